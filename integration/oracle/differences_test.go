package oracle

import (
	"slices"
	"strings"

	headgate "github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/policytest/naive"
)

// difference is one that is known and intended.
type difference struct {
	name  string
	about func(documents []*naive.Document, q *naive.Connection, ours, theirs headgate.Verdict) bool
}

var differences = []difference{
	{"where an allow of the port voids L7 rules, Cilium redirects all the same and lets its proxy allow everything", func(_ []*naive.Document, _ *naive.Connection, ours, theirs headgate.Verdict) bool {
		return ours == headgate.Allow && theirs == headgate.Redirect
	}},
	{"selectors that only say what is absent stay among workloads here (CVE-2023-41333)", func(documents []*naive.Document, q *naive.Connection, _, _ headgate.Verdict) bool {
		return q.Peer.Namespace == "" && slices.ContainsFunc(documents, reachesOut)
	}},
	{"ICMP type 0 is that type here, for Cilium 1.17 every type", func(documents []*naive.Document, q *naive.Connection, _, _ headgate.Verdict) bool {
		return strings.HasPrefix(q.Protocol, "ICMP") && slices.ContainsFunc(documents, namesTypeZero)
	}},
	{"ANY with L7 rules does not mean SCTP here, which no proxy reads", func(_ []*naive.Document, q *naive.Connection, ours, theirs headgate.Verdict) bool {
		return q.Protocol == "SCTP" && ours == headgate.Deny && theirs == headgate.Redirect
	}},
	{"enableDefaultDeny: true has effect here also in a direction without rules, as is documented", func(documents []*naive.Document, q *naive.Connection, ours, _ headgate.Verdict) bool {
		return ours == headgate.Deny && slices.ContainsFunc(documents, func(d *naive.Document) bool { return deniesWithoutRules(d, q.Egress) })
	}},
	{"NetworkPolicy rules of a direction that policyTypes does not name have no effect here, as is documented", func(documents []*naive.Document, q *naive.Connection, _, _ headgate.Verdict) bool {
		return slices.ContainsFunc(documents, func(d *naive.Document) bool { return hasIdleRules(d, q.Egress) })
	}},
}

func explain(documents []*naive.Document, q *naive.Connection, ours, theirs headgate.Verdict) string {
	for _, d := range differences {
		if d.about(documents, q, ours, theirs) {
			return d.name
		}
	}
	return ""
}

// reachesOut reports whether a selector of peers asks for no label to be there,
// not even for a namespace.
func reachesOut(d *naive.Document) bool {
	if d.Kube != nil {
		return slices.ContainsFunc(slices.Concat(d.Kube.Ingress, d.Kube.Egress), func(r naive.KubeRule) bool {
			return slices.ContainsFunc(r.Peers, func(p naive.KubePeer) bool {
				return p.NamespaceSelector != nil && onlyAbsent(*p.NamespaceSelector) && (p.PodSelector == nil || onlyAbsent(*p.PodSelector))
			})
		})
	}
	return slices.ContainsFunc(ciliumRules(d), func(r naive.CiliumRule) bool {
		return slices.ContainsFunc(r.Endpoints, func(s naive.Selector) bool {
			return onlyAbsent(s) && (d.Namespace == "" || namesNamespaces(s))
		})
	})
}

func ciliumRules(d *naive.Document) []naive.CiliumRule {
	return slices.Concat(d.Cilium.Ingress, d.Cilium.IngressDeny, d.Cilium.Egress, d.Cilium.EgressDeny)
}

// onlyAbsent reports whether a selector asks for no label to be there.
func onlyAbsent(s naive.Selector) bool {
	return len(s.MatchLabels) == 0 && !slices.ContainsFunc(s.MatchExpressions, func(e naive.Expression) bool {
		return e.Operator == "In" || e.Operator == "Exists"
	})
}

func namesNamespaces(s naive.Selector) bool {
	return slices.ContainsFunc(s.MatchExpressions, func(e naive.Expression) bool {
		return strings.Contains(e.Key, "k8s.namespace.labels.") || strings.HasSuffix(e.Key, "pod.namespace")
	})
}

func namesTypeZero(d *naive.Document) bool {
	return d.Cilium != nil && slices.ContainsFunc(ciliumRules(d), func(r naive.CiliumRule) bool {
		return slices.ContainsFunc(r.ICMPs, func(i naive.ICMP) bool { return i.Type == 0 })
	})
}

func deniesWithoutRules(d *naive.Document, egress bool) bool {
	if d.Cilium == nil {
		return false
	}
	rules, side := len(d.Cilium.Ingress)+len(d.Cilium.IngressDeny), 0
	if egress {
		rules, side = len(d.Cilium.Egress)+len(d.Cilium.EgressDeny), 1
	}
	on := d.Cilium.DefaultDeny[side]
	return rules == 0 && on != nil && *on
}

func hasIdleRules(d *naive.Document, egress bool) bool {
	if d.Kube == nil || d.Kube.Types == nil {
		return false
	}
	if egress {
		return len(d.Kube.Egress) > 0 && !slices.Contains(d.Kube.Types, "Egress")
	}
	return len(d.Kube.Ingress) > 0 && !slices.Contains(d.Kube.Types, "Ingress")
}
