package observe

import (
	"net/netip"
	"slices"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/policy"
)

// Directory knows the names behind addresses and identities. Its answers are
// shared by flows and must not change afterwards.
type Directory interface {
	// Endpoint is who has the address now.
	Endpoint(netip.Addr) (EndpointInfo, bool)
	// Identity is the labels the number stands for ("k8s:class=deathstar",
	// "reserved:world"), nil if it is not known.
	Identity(policy.Identity) []string
}

// EndpointInfo describes a local endpoint.
type EndpointInfo struct {
	ID        uint32
	Identity  policy.Identity
	Namespace string
	Name      string // pod name
	Labels    []string
}

const (
	labelNamespace = "k8s:io.kubernetes.pod.namespace="
	labelCluster   = "k8s:io.cilium.k8s.policy.cluster="
)

// endpoint describes one side of a flow. The identity that the verdict was given
// for wins over the one the address has by now.
func (b *Builder) endpoint(addr netip.Addr, id policy.Identity) *flowpb.Endpoint {
	var info EndpointInfo
	if b.Directory != nil && addr.IsValid() {
		info, _ = b.Directory.Endpoint(addr)
	}
	labels := info.Labels
	if id == policy.IdentityUnknown {
		id = info.Identity
	}
	if (labels == nil || id != info.Identity) && id != policy.IdentityUnknown {
		if known := b.identityLabels(id); known != nil {
			labels = known
		}
	}
	if !slices.IsSorted(labels) {
		labels = slices.Sorted(slices.Values(labels))
	}
	ep := &flowpb.Endpoint{
		ID:          info.ID,
		Identity:    uint32(id),
		ClusterName: labelValue(labels, labelCluster),
		Namespace:   info.Namespace,
		Labels:      labels,
		PodName:     info.Name,
	}
	if ep.Namespace == "" {
		ep.Namespace = labelValue(labels, labelNamespace)
	}
	return ep
}

func (b *Builder) identityLabels(id policy.Identity) []string {
	if b.Directory != nil {
		if labels := b.Directory.Identity(id); labels != nil {
			return labels
		}
	}
	if name, ok := ReservedName(id); ok && id != policy.IdentityUnknown {
		return []string{"reserved:" + name}
	}
	return nil
}

func labelValue(labels []string, prefix string) string {
	for _, l := range labels {
		if value, ok := strings.CutPrefix(l, prefix); ok {
			return value
		}
	}
	return ""
}

// ReservedName is the name of a reserved identity, "world" for 2; that of zero is
// "unknown".
func ReservedName(id policy.Identity) (string, bool) {
	names := reservedNames()
	if int(id) < len(names) {
		return names[id], true
	}
	return "", false
}

// ParseIdentity takes the name of a reserved identity or a number.
func ParseIdentity(s string) (policy.Identity, bool) {
	for id, name := range reservedNames() {
		if s == name {
			return policy.Identity(id), true
		}
	}
	n, ok := parseUint(s, 32)
	return policy.Identity(n), ok
}

// reservedNames by number, from policy.IdentityUnknown on.
func reservedNames() [11]string {
	return [...]string{
		"unknown", "host", "world", "unmanaged", "health", "init",
		"remote-node", "kube-apiserver", "ingress", "world-ipv4", "world-ipv6",
	}
}
