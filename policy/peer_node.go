package policy

import "fmt"

// SourceNode is where the labels of nodes come from. A workload cannot have such
// labels, whatever it calls itself.
const SourceNode = "node"

// NodeLabels returns the labels that make the identity of a node: those that it
// has in the cluster, and whether it is this one. The same labels are those of
// the subject of host policies.
func NodeLabels(local bool, labels map[string]string) (Labels, error) {
	reserved := EntityRemoteNode
	if local {
		reserved = EntityHost
	}
	list := []Label{{SourceReserved, string(reserved), ""}}
	for key, value := range labels {
		if err := validateLabel(key, value); err != nil {
			return Labels{}, fmt.Errorf("node: %w", err)
		}
		list = append(list, Label{SourceNode, key, value})
	}
	return NewLabels(list...)
}

// isNode reports whether the labels are those of a node.
func isNode(labels Labels) bool {
	return labels.Has(SourceReserved, string(EntityHost)) || labels.Has(SourceReserved, string(EntityRemoteNode))
}

// NodeSelector picks nodes by their labels, and never a workload with the same
// labels.
type NodeSelector struct{ Selector }

func (n NodeSelector) selects(info *IdentityInfo, _ string) bool {
	return isNode(info.Labels) && n.Matches(info.Labels)
}
