package policy

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
)

// audience is a peer with the identities that it picks, kept as these come and
// go. Rules with equal peers share one. It stands in a rule in place of its peer.
type audience struct {
	peer    Peer
	text    string // by which equal peers are known
	at      []anchor
	members idSet
	users   map[*heldRule]struct{}
	lists   map[string][]Identity // of a cluster, in order; made when asked for
}

func (a *audience) selects(info *IdentityInfo, cluster string) bool {
	return a.peer.selects(info, cluster)
}

// list returns the members as a subject of the cluster sees them.
func (a *audience) list(ids *Identities, cluster string) []Identity {
	if a.peer != EntityCluster {
		cluster = ""
	}
	list, ok := a.lists[cluster]
	if !ok {
		list = slices.Sorted(maps.Keys(a.members))
		if cluster != "" {
			list = slices.DeleteFunc(list, func(id Identity) bool { return !a.peer.selects(ids.byID[id], cluster) })
		}
		if a.lists == nil {
			a.lists = map[string][]Identity{}
		}
		a.lists[cluster] = list
	}
	return list
}

// update says whether an identity that is new or has changed is a member, and
// reports whether that may matter to tables. Relabelled is for a change of labels
// that matters also if it stays a member.
func (a *audience) update(id Identity, info *IdentityInfo, relabelled bool) bool {
	_, before := a.members[id]
	// Without a cluster, EntityCluster picks what is in any.
	after := info != nil && a.peer.selects(info, "")
	switch {
	case after:
		a.members[id] = struct{}{}
	case before:
		delete(a.members, id)
	}
	if before == after && !(after && relabelled) {
		return false
	}
	a.lists = nil
	return true
}

// peerAnchors says at which anchors a peer lies.
func peerAnchors(peer Peer, ids *Identities) []anchor {
	switch p := peer.(type) {
	case Selector:
		return p.anchors(ids.count)
	case NodeSelector:
		return p.anchors(ids.count)
	case CIDR:
		return []anchor{{kind: anchorPrefix, prefix: p.Prefix.Masked()}}
	case FQDN:
		if p.Name != "" {
			return []anchor{{kind: anchorKey, key: p.Name}}
		}
		return []anchor{{kind: anchorNamed}}
	case CIDRGroupPeer, ServicePeer: // they pick nobody
		return nil
	}
	return []anchor{{}}
}

// count is how many identities lie at anchors of labels.
func (ids *Identities) count(at []anchor) int {
	n := 0
	for _, a := range at {
		if a.kind == anchorKey {
			n += len(ids.byKey[a.key])
		} else {
			n += len(ids.byValue[[2]string{a.key, a.value}])
		}
	}
	return n
}

// peerText is equal for equal peers only. It is empty for a peer of an unknown
// kind, which none is equal to.
func peerText(peer Peer) string {
	switch p := peer.(type) {
	case Selector:
		return string(p.appendText([]byte("selector ")))
	case NodeSelector:
		return string(p.appendText([]byte("node ")))
	case Entity:
		return "entity " + string(p)
	case CIDR:
		b := appendPrefix([]byte("cidr "), p.Prefix)
		for _, e := range slices.SortedFunc(slices.Values(p.Except), netip.Prefix.Compare) {
			b = appendPrefix(b, e)
		}
		return string(b)
	case FQDN:
		return string(appendStrings([]byte("fqdn "), p.Name, p.Pattern))
	}
	return ""
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	addr := p.Addr().AsSlice()
	return append(append(append(b, byte(len(addr))), addr...), byte(p.Bits()))
}

// appendText writes the requirements such that different selectors give
// different bytes. Their order does not matter to what is picked.
func (s Selector) appendText(b []byte) []byte {
	words := make([]string, len(s.Requirements))
	for i, r := range s.Requirements {
		word := appendStrings([]byte{byte(r.Op)}, r.Source, r.Key)
		words[i] = string(appendStrings(word, slices.Sorted(slices.Values(r.Values))...))
	}
	slices.Sort(words)
	b = binary.AppendUvarint(b, uint64(len(words)))
	return appendStrings(b, words...)
}
