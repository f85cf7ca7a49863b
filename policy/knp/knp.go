// Package knp reads NetworkPolicy documents of Kubernetes into policy rules.
//
// It reads as strictly as Kubernetes does, and a bit more: what is not
// understood makes the whole file an error, never an allow.
package knp

import (
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// Kind is the kind that is read, and APIVersion its version.
const (
	Kind       = "NetworkPolicy"
	APIVersion = "networking.k8s.io/v1"
)

// Kinds says how the documents are read.
func Kinds() []manifest.Kind {
	return []manifest.Kind{{Name: Kind, APIVersions: []string{APIVersion}, Fields: []string{"spec", "status"}, Read: read}}
}

// side is one direction, as a NetworkPolicy writes it.
type side struct {
	direction         policy.Direction
	kind, field, peer string
}

var sides = []side{
	{policy.Ingress, "Ingress", "ingress", "from"},
	{policy.Egress, "Egress", "egress", "to"},
}

// reader reads one policy.
type reader struct {
	policy  *policy.Policy
	subject policy.Selector
}

func read(d *manifest.Document, fields map[string]manifest.Value, p *policy.Policy) {
	spec, ok := fields["spec"]
	if !ok {
		d.Fail("spec", "is missing; write spec: {podSelector: {}} to isolate every pod of the namespace")
		return
	}
	nullable(spec, "podSelector")
	before := spec.Failed()
	in := spec.DropNull(func(key string) bool { return key == "podSelector" }).
		Object([]string{"podSelector", "policyTypes", "ingress", "egress"}, nil)
	r := &reader{policy: p}
	if pods, ok := in["podSelector"]; ok {
		r.subject.Requirements = requirements(pods, podKey)
	} else if !hasKey(spec, "podSelector") && spec.Failed() == before {
		spec.Fail("podSelector is missing; write one, {} for every pod of the namespace")
	}
	r.subject.Requirements = append(r.subject.Requirements, inNamespace(p.Namespace))

	isolates := isolated(in)
	for _, s := range sides {
		list, ok := in[s.field]
		var items []manifest.Value
		if ok {
			items = list.List()
		}
		if !isolates[s.direction] {
			if len(items) > 0 {
				list.Warn("has no effect, as policyTypes does not name %s; write it there, or delete the rules", s.kind)
			}
			for _, item := range items { // to find what is wrong with them
				r.rule(item, s)
			}
			continue
		}
		if len(items) == 0 { // it isolates, and nothing is allowed then
			path := "policyTypes"
			if ok {
				path = s.field
			}
			p.Rules = append(p.Rules, policy.Rule{Subject: r.subject, Direction: s.direction, DefaultDeny: true, Ref: r.ref(path)})
		}
		for _, item := range items {
			p.Rules = append(p.Rules, r.rule(item, s))
		}
	}
}

// isolated says in which directions the policy isolates its pods. Without
// policyTypes that is ingress always, and egress if there is a rule for it.
func isolated(fields map[string]manifest.Value) map[policy.Direction]bool {
	types, ok := fields["policyTypes"]
	if !ok || types.Len() == 0 {
		egress, has := fields["egress"]
		return map[policy.Direction]bool{policy.Ingress: true, policy.Egress: has && egress.Len() > 0}
	}
	isolates := map[policy.Direction]bool{}
	for _, item := range types.List() {
		text, ok := item.Text()
		if !ok {
			continue
		}
		known := false
		for _, s := range sides {
			if text == s.kind {
				known, isolates[s.direction] = true, true
			}
		}
		if !known {
			item.Fail("%q is not a type; write Ingress or Egress", text)
		}
	}
	return isolates
}

func (r *reader) ref(path string) policy.Ref {
	return policy.Ref{Policy: r.policy.FullName(), Path: strings.TrimPrefix(path, "spec.")}
}

// rule reads one rule. Without peers it is for everybody, without ports for
// every port: other than in a CiliumNetworkPolicy, an empty list is none.
func (r *reader) rule(v manifest.Value, s side) policy.Rule {
	fields := v.Object([]string{s.peer, "ports"}, nil)
	rule := policy.Rule{Subject: r.subject, Direction: s.direction, DefaultDeny: true, Ref: r.ref(v.Path)}
	if ports, ok := fields["ports"]; ok {
		for _, item := range ports.List() {
			if port, ok := r.port(item); ok {
				rule.Ports = append(rule.Ports, port)
			}
		}
	}
	peers, ok := fields[s.peer]
	if !ok || peers.Len() == 0 {
		rule.AnyPeer = true
		return rule
	}
	for _, item := range peers.List() {
		if peer, ok := r.peer(item); ok {
			rule.Peers = append(rule.Peers, peer)
		}
	}
	return rule
}

// peer reads one item of from or to.
func (r *reader) peer(v manifest.Value) (policy.Peer, bool) {
	before := v.Failed()
	fields := v.Object([]string{"podSelector", "namespaceSelector", "ipBlock"}, nil)
	pods, hasPods := fields["podSelector"]
	namespaces, hasNamespaces := fields["namespaceSelector"]
	block, hasBlock := fields["ipBlock"]
	switch {
	case v.Failed() > before:
		return nil, false
	case hasBlock && (hasPods || hasNamespaces):
		v.Fail("has ipBlock beside a selector; write an item of its own for each")
		return nil, false
	case hasBlock:
		return ipBlock(block)
	case !hasPods && !hasNamespaces:
		v.Fail("names nobody; write podSelector, namespaceSelector or ipBlock, podSelector: {} for every pod of the namespace")
		return nil, false
	}
	var reqs []policy.Requirement
	if hasPods {
		reqs = requirements(pods, podKey)
	}
	if !hasNamespaces {
		return policy.Selector{Requirements: append(reqs, inNamespace(r.policy.Namespace))}, true
	}
	reqs = append(reqs, requirements(namespaces, namespaceKey)...)
	// Never more than workloads, whatever it says must not be there.
	reqs = append(reqs, policy.Requirement{Source: policy.SourceK8s, Key: policy.KeyNamespace, Op: policy.OpExists})
	return policy.Selector{Requirements: reqs}, true
}

func ipBlock(v manifest.Value) (policy.Peer, bool) {
	fields := v.Object([]string{"cidr", "except"}, nil)
	cidr, ok := fields["cidr"]
	if !ok {
		v.Fail("cidr is missing; write one, as 10.0.0.0/8")
		return nil, false
	}
	prefix, ok := cidr.Prefix()
	if !ok {
		return nil, false
	}
	c := policy.CIDR{Prefix: prefix}
	if except, ok := fields["except"]; ok {
		c.Except = except.Except(prefix)
	}
	return c, true
}

// port reads one item of ports.
func (r *reader) port(v manifest.Value) (policy.PortRule, bool) {
	p := policy.PortRule{Proto: policy.ProtoTCP, Last: 65535, Ref: r.ref(v.Path)}
	fields := v.Object([]string{"protocol", "port", "endPort"}, nil)
	if proto, ok := fields["protocol"]; ok {
		text, ok := proto.Text()
		if !ok {
			return p, false
		}
		protos := map[string]policy.Proto{"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP}
		if p.Proto, ok = protos[text]; !ok {
			proto.Fail("%q is not a protocol here; write TCP, UDP or SCTP", text)
			return p, false
		}
	}
	end, hasEnd := fields["endPort"]
	port, ok := fields["port"]
	if !ok {
		if hasEnd {
			end.Fail("needs port, where the range begins; write it")
		}
		return p, !hasEnd
	}
	raw, isNumber, isText := port.Scalar()
	switch {
	case isText && policy.IsPortName(raw) && raw == strings.ToLower(raw):
		p.Name, p.Last = raw, 0
		if hasEnd {
			end.Fail("does not go with a port's name; write port as a number")
		}
		return p, !hasEnd
	case !isNumber:
		port.Fail("is %s; write a number from 1 to 65535 without quotes, or a name of at most 15 lower-case letters, digits and '-'", port.Describe())
		return p, false
	}
	first, ok := port.Number(1, 65535)
	if !ok {
		return p, false
	}
	p.First, p.Last = uint16(first), uint16(first)
	if !hasEnd {
		return p, true
	}
	last, ok := end.Number(1, 65535)
	if ok && last < first {
		end.Fail("%d is less than port %d; write the greater one here", last, first)
	}
	p.Last = uint16(last)
	return p, ok && last >= first
}

// requirements reads a selector. Keys without a value are as good as not there.
func requirements(v manifest.Value, key manifest.KeyReader) []policy.Requirement {
	nullable(v, "matchLabels")
	nullable(v, "matchExpressions")
	return v.DropNull(func(key string) bool { return key == "matchLabels" || key == "matchExpressions" }).Requirements(key)
}

// nullable warns of a key without a value, which Kubernetes reads as {}.
func nullable(v manifest.Value, key string) {
	for _, e := range v.Keys() {
		if e.Key == key && e.IsNull() {
			e.Warn("has no value and is read as {}, everything; write so, or a selector")
		}
	}
}

func hasKey(v manifest.Value, key string) bool {
	for _, e := range v.Keys() {
		if e.Key == key {
			return true
		}
	}
	return false
}

func inNamespace(namespace string) policy.Requirement {
	return policy.Requirement{Source: policy.SourceK8s, Key: policy.KeyNamespace, Op: policy.OpIn, Values: []string{namespace}}
}

// podKey reads the key of a pod's own label.
func podKey(v manifest.Value, text string) (source, key string, ok bool) {
	if err := policy.ValidateLabelKey(text); err != nil {
		v.Fail("%v", err)
		return "", "", false
	}
	return policy.SourceK8s, text, true
}

// nameOfNamespace is the label that every namespace has: its name.
const nameOfNamespace = "kubernetes.io/metadata.name"

// namespaceKey reads the key of a namespace's label.
func namespaceKey(v manifest.Value, text string) (source, key string, ok bool) {
	source, key, ok = podKey(v, text)
	if key == nameOfNamespace {
		return source, policy.KeyNamespace, ok
	}
	return source, policy.PrefixOfNamespaceLabels + key, ok
}
