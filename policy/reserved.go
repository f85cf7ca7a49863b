package policy

import (
	"net/netip"
	"slices"
)

// ReservedLabels returns the labels of a reserved identity. All that is outside
// the cluster carries reserved:world, whatever its address family.
func ReservedLabels(id Identity) (Labels, bool) {
	var keys []string
	switch id {
	case IdentityHost:
		keys = []string{"host"}
	case IdentityWorld:
		keys = []string{"world"}
	case IdentityUnmanaged:
		keys = []string{"unmanaged"}
	case IdentityHealth:
		keys = []string{"health"}
	case IdentityInit:
		keys = []string{"init"}
	case IdentityRemoteNode:
		keys = []string{"remote-node"}
	case IdentityKubeAPIServer: // it runs on a node
		keys = []string{"kube-apiserver", "remote-node"}
	case IdentityIngress:
		keys = []string{"ingress"}
	case IdentityWorldIPv4:
		keys = []string{"world", "world-ipv4"}
	case IdentityWorldIPv6:
		keys = []string{"world", "world-ipv6"}
	default:
		return Labels{}, false
	}
	list := make([]Label, len(keys)) // keys are sorted above
	for i, key := range keys {
		list[i] = Label{Source: SourceReserved, Key: key}
	}
	return Labels{list}, true
}

// CIDRLabels returns the labels of the identity of a prefix outside the cluster.
func CIDRLabels(prefix netip.Prefix) Labels {
	family := "world-ipv4"
	if prefix.Addr().Is6() {
		family = "world-ipv6"
	}
	list := []Label{
		{Source: SourceCIDR, Key: prefix.String()},
		{Source: SourceReserved, Key: "world"},
		{Source: SourceReserved, Key: family},
	}
	slices.SortFunc(list, compareLabels)
	return Labels{list}
}
