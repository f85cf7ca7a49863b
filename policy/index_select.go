package policy

import (
	"net/netip"
	"slices"
)

// Select returns the identities that a peer stands for, in order of number.
// Cluster is the name of the cluster that the entity "cluster" means.
func (ids *Identities) Select(peer Peer, cluster string) []Identity {
	if a, ok := peer.(*audience); ok {
		return a.list(ids, cluster)
	}
	var picked []Identity
	pick := func(id Identity) {
		if info := ids.byID[id]; info != nil && peer.selects(info, cluster) {
			picked = append(picked, id)
		}
	}
	if sets, ok := ids.candidates(peer); ok {
		for _, set := range sets {
			for id := range set {
				pick(id)
			}
		}
	} else {
		for id := range ids.byID {
			pick(id)
		}
	}
	slices.Sort(picked)
	return slices.Compact(picked)
}

// candidates returns sets that together hold every identity a peer can pick, if
// there are any but that of all.
func (ids *Identities) candidates(peer Peer) ([]idSet, bool) {
	switch p := peer.(type) {
	case Selector:
		return p.candidates(ids)
	case NodeSelector:
		return p.candidates(ids)
	case CIDR:
		world := idSet{IdentityWorldIPv4: {}, IdentityWorldIPv6: {}}
		return []idSet{world, ids.under[stride(p.Prefix)]}, true
	case FQDN:
		if p.Name != "" {
			return []idSet{ids.byKey[p.Name]}, true
		}
		return ids.local(), true
	case Entity:
		switch p {
		case EntityCluster, EntityClusterMesh:
			return nil, false
		case EntityWorld, EntityWorldIPv4, EntityWorldIPv6:
			return append(ids.local(), ids.byKey[string(p)]), true
		}
		return []idSet{ids.byKey[string(p)]}, true
	case CIDRGroupPeer, ServicePeer:
		return nil, true
	}
	return nil, false
}

// local returns sets that together hold every identity with a prefix.
func (ids *Identities) local() []idSet {
	return []idSet{ids.under[netip.PrefixFrom(netip.IPv4Unspecified(), 0)], ids.under[netip.PrefixFrom(netip.IPv6Unspecified(), 0)]}
}

// strideBits is how far apart the lengths are under which prefixes are kept: it
// trades the number of sets that a prefix is in for how many of a set are looked
// at in vain.
const strideBits = 8

// stride is the prefix under which to look for what is within another.
func stride(p netip.Prefix) netip.Prefix {
	return netip.PrefixFrom(p.Addr(), p.Bits()-p.Bits()%strideBits).Masked()
}

// strides are those under which a prefix is kept.
func strides(p netip.Prefix) []netip.Prefix {
	var list []netip.Prefix
	for bits := 0; bits <= p.Bits(); bits += strideBits {
		list = append(list, netip.PrefixFrom(p.Addr(), bits).Masked())
	}
	return list
}

// narrowed narrows the selectors among peers by what the subject's rules
// require of them too.
func narrowed(peer Peer, requires []Requirement) Peer {
	if len(requires) == 0 {
		return peer
	}
	plain := peer
	if a, ok := peer.(*audience); ok {
		plain = a.peer
	}
	if s, ok := plain.(Selector); ok {
		return Selector{slices.Concat(s.Requirements, requires)}
	}
	return peer
}
