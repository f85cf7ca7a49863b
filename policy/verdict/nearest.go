package verdict

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// nearest finds, of the rules that could have allowed a connection, the one of
// which least had to differ; of several the first.
func (j *Judge) nearest(s *Side, subject, peer *party, q *asked) {
	found := false
	for i := range j.rules {
		r := &j.rules[i]
		if r.Deny || r.Mode != policy.ModeEnforce || !r.AnyPeer && len(r.Peers) == 0 || !j.concerns(r, s.Direction, subject) {
			continue
		}
		list := j.peerChanges(r, subject, peer)
		if change := portChange(r, subject, q.flow); change != "" {
			list = append(list, change)
		}
		if len(list) > 0 && (!found || len(list) < len(s.Changes)) {
			found, s.Nearest, s.Changes = true, r.Ref, list
		}
	}
	if !found {
		s.Changes = []string{fmt.Sprintf("write a rule: %s has none for %s that names anybody", subject.name, s.Direction)}
	}
}

// peerChanges says what must differ for a rule to name the peer; nothing if it
// does. Of the rule's peers the one counts that needs least.
func (j *Judge) peerChanges(r *policy.Rule, subject, peer *party) []string {
	if r.AnyPeer {
		return nil
	}
	cluster, _ := subject.subject.Labels.Get(policy.SourceK8s, policy.KeyCluster)
	var best []string
	for _, p := range r.Peers {
		if slices.Contains(j.ids.Select(p, cluster), peer.id) {
			return nil
		}
		if list := j.peerChange(r, p, peer); best == nil || len(list) < len(best) {
			best = list
		}
	}
	return best
}

func (j *Judge) peerChange(r *policy.Rule, p policy.Peer, peer *party) []string {
	info, _ := j.ids.Get(peer.id)
	workload := info.Labels.Has(policy.SourceK8s, policy.KeyNamespace)
	side := "from"
	if r.Direction == policy.Egress {
		side = "to"
	}
	switch p := p.(type) {
	case policy.Selector:
		if workload {
			return labelChanges(p, info.Labels, peer.name)
		}
	case policy.NodeSelector:
		if !workload && peer.subject != nil {
			return labelChanges(p.Selector, info.Labels, peer.name)
		}
	case policy.CIDR:
		if a, err := netip.ParseAddr(peer.name); err == nil && !workload && p.Prefix.Contains(a) {
			return []string{fmt.Sprintf("take %s out of the except of %s in %s", a, p.Prefix, r.Ref)}
		}
	}
	return otherPeer(r, p, peer, side, workload)
}

// otherPeer says what to write for a peer of another kind than the rule has:
// that is a rule of its own, and so more than a label.
func otherPeer(r *policy.Rule, p policy.Peer, peer *party, side string, workload bool) []string {
	ports := "give it the ports of " + r.Ref.String()
	_, err := netip.ParseAddr(peer.name)
	switch {
	case workload:
		return []string{fmt.Sprintf("write a rule with %sEndpoints for %s", side, peer.name), ports}
	case err != nil || peer.subject != nil:
		return []string{fmt.Sprintf("write a rule with %sEntities: [%s]", side, entityOf(peer)), ports}
	}
	switch p.(type) {
	case policy.FQDN:
		return []string{fmt.Sprintf("add a name of %s to toFQDNs of %s, under which it was seen in the DNS", peer.name, r.Ref)}
	case policy.CIDR:
		return []string{fmt.Sprintf("add %s to the addresses of %s", peer.name, r.Ref)}
	}
	return []string{fmt.Sprintf("write a rule with %sCIDR: [%s]", side, peer.name), ports}
}

// entityOf is the entity that a rule names a node or a reserved identity by.
func entityOf(p *party) string {
	if p.subject != nil && p.subject.Node && p.subject.Labels.Has(policy.SourceReserved, string(policy.EntityRemoteNode)) {
		return string(policy.EntityRemoteNode)
	}
	if p.subject != nil && p.subject.Node {
		return string(policy.EntityHost)
	}
	return p.name
}

// labelChanges says which labels would make a selector pick the labels.
func labelChanges(s policy.Selector, labels policy.Labels, name string) []string {
	var list []string
	for _, q := range s.Requirements {
		if q.Matches(labels) {
			continue
		}
		list = append(list, labelChange(q, labels, name))
	}
	return list
}

func labelChange(q policy.Requirement, labels policy.Labels, name string) string {
	has, _ := labels.Get(q.Source, q.Key)
	what, whose := "label "+q.Key, name
	if key, ok := strings.CutPrefix(q.Key, policy.PrefixOfNamespaceLabels); ok {
		namespace, _ := labels.Get(policy.SourceK8s, policy.KeyNamespace)
		what, whose = "label "+key, "namespace "+namespace
	}
	special := map[string]string{
		policy.KeyNamespace: "namespace", policy.KeyServiceAccount: "service account", policy.KeyCluster: "cluster",
	}[q.Key]
	if special != "" {
		what = special
	}
	values := strings.Join(q.Values, " or ")
	switch {
	case q.Op == policy.OpIn && special != "":
		return fmt.Sprintf("run %s in %s %s (it is in %s), or name that %s in the rule", name, what, values, orNone(has), what)
	case q.Op == policy.OpIn && has != "":
		return fmt.Sprintf("set %s=%s on %s (it is %s)", what, values, whose, has)
	case q.Op == policy.OpIn:
		return fmt.Sprintf("add %s=%s to %s", what, values, whose)
	case q.Op == policy.OpExists:
		return fmt.Sprintf("add %s to %s", what, whose)
	case q.Op == policy.OpNotIn:
		return fmt.Sprintf("give %s of %s another value than %s", what, whose, has)
	}
	return fmt.Sprintf("remove %s from %s", what, whose)
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

// portChange says which port a rule would have to allow; empty if it does.
func portChange(r *policy.Rule, subject *party, f flow) string {
	if len(r.Ports) == 0 {
		return ""
	}
	var allows []string
	for i := range r.Ports {
		p := &r.Ports[i]
		proto := p.Proto == f.proto || p.Proto == policy.ProtoAny && f.proto != policy.ProtoICMP && f.proto != policy.ProtoICMPv6
		if p.Name == "" && proto && p.First <= f.port && f.port <= p.Last {
			return ""
		}
		if p.Name != "" && r.Direction == policy.Ingress && slices.Contains(subject.subject.NamedPorts[p.Name], policy.NamedPort{Proto: f.proto, Port: f.port}) {
			return ""
		}
		allows = append(allows, PortText(p))
	}
	asked := policy.PortRule{Proto: f.proto, First: f.port, Last: f.port}
	return fmt.Sprintf("allow %s in %s (it has %s)", PortText(&asked), r.Ref, strings.Join(allows, ", "))
}

// PortText is a port as people write it: "80/TCP", "8000-8080/TCP",
// "ICMP type 8".
func PortText(p *policy.PortRule) string {
	proto := ProtoText(p.Proto)
	icmp := p.Proto == policy.ProtoICMP || p.Proto == policy.ProtoICMPv6
	switch {
	case icmp:
		return fmt.Sprintf("%s type %d", proto, p.First)
	case p.Name != "":
		return p.Name + "/" + proto
	case p.First == 0 && p.Last == 65535:
		return "every port/" + proto
	case p.First != p.Last:
		return fmt.Sprintf("%d-%d/%s", p.First, p.Last, proto)
	}
	return fmt.Sprintf("%d/%s", p.First, proto)
}

// ProtoText is the name of a protocol.
func ProtoText(p policy.Proto) string {
	switch p {
	case policy.ProtoTCP:
		return "TCP"
	case policy.ProtoUDP:
		return "UDP"
	case policy.ProtoSCTP:
		return "SCTP"
	case policy.ProtoICMP:
		return "ICMP"
	case policy.ProtoICMPv6:
		return "ICMPv6"
	}
	return "ANY"
}
