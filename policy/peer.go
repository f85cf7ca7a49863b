package policy

import (
	"net/netip"
	"slices"
)

// Peer is what a rule names as the other side: a Selector of workloads, an
// Entity, a CIDR, a NodeSelector, an FQDN, or a reference that Objects.Expand
// puts other peers in place of.
type Peer interface {
	selects(info *IdentityInfo, cluster string) bool
}

// Entity is a group of identities with a name of its own.
type Entity string

// The entity "all" is not here: it is Rule.AnyPeer.
const (
	EntityCluster       Entity = "cluster"      // what is managed in this cluster, and its nodes
	EntityClusterMesh   Entity = "cluster-mesh" // the same of every cluster
	EntityHost          Entity = "host"
	EntityRemoteNode    Entity = "remote-node"
	EntityKubeAPIServer Entity = "kube-apiserver"
	EntityHealth        Entity = "health"
	EntityInit          Entity = "init"
	EntityIngress       Entity = "ingress"
	EntityUnmanaged     Entity = "unmanaged"
	EntityWorld         Entity = "world"
	EntityWorldIPv4     Entity = "world-ipv4"
	EntityWorldIPv6     Entity = "world-ipv6"
	EntityNone          Entity = "none" // nobody
)

// Entities lists every entity that is a Peer.
func Entities() []Entity {
	return []Entity{
		EntityCluster, EntityClusterMesh, EntityHost, EntityRemoteNode, EntityKubeAPIServer, EntityHealth,
		EntityInit, EntityIngress, EntityUnmanaged, EntityWorld, EntityWorldIPv4, EntityWorldIPv6, EntityNone,
	}
}

func (e Entity) selects(info *IdentityInfo, cluster string) bool {
	switch e {
	case EntityCluster, EntityClusterMesh:
		if info.ID.Reserved() || isNode(info.Labels) {
			return !info.Labels.Has(SourceReserved, string(EntityWorld))
		}
		if info.ID.Local() {
			return false
		}
		of, named := info.Labels.Get(SourceK8s, KeyCluster)
		return e == EntityClusterMesh || !named || cluster == "" || of == cluster
	case EntityWorld:
		return info.Prefix.IsValid() || info.Labels.Has(SourceReserved, string(e))
	case EntityWorldIPv4:
		return isWorld(info, true)
	case EntityWorldIPv6:
		return isWorld(info, false)
	case EntityNone:
		return false
	}
	return info.Labels.Has(SourceReserved, string(e))
}

func isWorld(info *IdentityInfo, v4 bool) bool {
	if info.Prefix.IsValid() {
		return info.Prefix.Addr().Is4() == v4
	}
	return v4 && info.ID == IdentityWorldIPv4 || !v4 && info.ID == IdentityWorldIPv6
}

// CIDR is a range of addresses outside the cluster, less some. It never selects
// workloads or nodes, whatever their addresses.
type CIDR struct {
	Prefix netip.Prefix
	Except []netip.Prefix
}

func (c CIDR) selects(info *IdentityInfo, _ string) bool {
	prefix := info.Prefix
	switch info.ID { // they hold what no longer prefix holds
	case IdentityWorldIPv4:
		prefix = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	case IdentityWorldIPv6:
		prefix = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if !within(prefix, c.Prefix) {
		return false
	}
	return !slices.ContainsFunc(c.Except, func(e netip.Prefix) bool { return within(prefix, e) })
}

// within reports whether every address of inner is one of outer.
func within(inner, outer netip.Prefix) bool {
	return inner.IsValid() && outer.IsValid() && inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// Prefixes returns every prefix that the rules tell apart, in order: each needs
// an identity of its own. The prefixes of length zero are not among them, theirs
// are reserved.
func Prefixes(rules []Rule) []netip.Prefix {
	var list []netip.Prefix
	for _, r := range rules {
		for _, p := range r.Peers {
			if c, ok := p.(CIDR); ok {
				list = append(append(list, c.Prefix), c.Except...)
			}
		}
	}
	list = slices.DeleteFunc(list, func(p netip.Prefix) bool { return p.Bits() <= 0 })
	for i, p := range list {
		list[i] = p.Masked()
	}
	slices.SortFunc(list, netip.Prefix.Compare)
	return slices.Compact(list)
}
