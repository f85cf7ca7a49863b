package cnp

import (
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

var specFields = []string{
	"endpointSelector", "nodeSelector", "ingress", "ingressDeny", "egress", "egressDeny", "enableDefaultDeny", "description", "labels", "log",
}

// section is one of the four lists of a spec.
type section struct {
	field     string
	direction policy.Direction
	deny      bool
}

var sections = []section{
	{"ingressDeny", policy.Ingress, true},
	{"ingress", policy.Ingress, false},
	{"egressDeny", policy.Egress, true},
	{"egress", policy.Egress, false},
}

// readSpec reads one spec into rules.
func readSpec(v manifest.Value, p *policy.Policy) []policy.Rule {
	if v.IsNull() {
		v.Fail("has no value; write the policy")
		return nil
	}
	before := v.Failed()
	fields := v.Object(specFields, nil)
	if len(fields) == 0 && v.Failed() > before {
		return nil
	}
	r := &reader{policy: p}
	r.readSubject(v, fields, v.Failed() > before)
	if log, ok := fields["log"]; ok {
		log.Object([]string{"value"}, nil)
		log.Warn("is not used; flows name the rule that decided")
	}

	var rules []policy.Rule
	entries := map[policy.Direction]int{}
	for _, s := range sections {
		list, ok := fields[s.field]
		if !ok {
			continue
		}
		for _, item := range list.List() {
			entries[s.direction]++
			rules = append(rules, r.rule(item, s))
		}
	}
	explicit := enableDefaultDeny(fields)
	if entries[policy.Ingress]+entries[policy.Egress] == 0 {
		v.Fail("has no rule and so no effect; write ingress: [{}] to deny all ingress, egress: [{}] to deny all egress, or rules that allow something")
	}
	for i := range rules {
		deny, said := explicit[rules[i].Direction]
		rules[i].DefaultDeny = !said || deny
	}
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		if explicit[dir] && entries[dir] == 0 { // nothing is allowed then
			rules = append(rules, policy.Rule{
				Subject: r.subject, Node: r.node, Direction: dir, DefaultDeny: true,
				Ref: r.ref(v.Path + ".enableDefaultDeny." + dir.String()),
			})
		}
	}
	return rules
}

// readSubject reads whom the policy is for: workloads, or nodes.
func (r *reader) readSubject(v manifest.Value, fields map[string]manifest.Value, failed bool) {
	endpoints, hasEndpoints := fields["endpointSelector"]
	nodes, hasNodes := fields["nodeSelector"]
	switch {
	case hasNodes && r.policy.Namespace != "":
		nodes.Fail("is for nodes, which have no namespace; write endpointSelector, or a %s", KindClusterwidePolicy)
	case hasEndpoints && hasNodes:
		nodes.Fail("does not go with endpointSelector; write a policy of its own for nodes")
	case hasEndpoints:
		r.subject = r.subjectSelector(endpoints)
	case hasNodes:
		r.node, r.subject = true, policy.Selector{Requirements: nodes.Requirements(nodeKey)}
	case !failed:
		v.Fail("endpointSelector is missing; write one, {} for every endpoint")
	}
}

// enableDefaultDeny returns what is said of each direction.
func enableDefaultDeny(fields map[string]manifest.Value) map[policy.Direction]bool {
	explicit := map[policy.Direction]bool{}
	v, ok := fields["enableDefaultDeny"]
	if !ok {
		return explicit
	}
	said := v.Object([]string{"ingress", "egress"}, nil)
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		if b, ok := said[dir.String()]; ok {
			if deny, ok := b.Boolean(); ok {
				explicit[dir] = deny
			}
		}
	}
	return explicit
}

// reader reads the rules of one spec.
type reader struct {
	policy  *policy.Policy
	subject policy.Selector
	node    bool
}

// ref names a place as people look for it: without the spec that holds it all.
func (r *reader) ref(path string) policy.Ref {
	return policy.Ref{Policy: r.policy.FullName(), Path: strings.TrimPrefix(path, "spec.")}
}

// rule reads one entry of a section.
func (r *reader) rule(v manifest.Value, s section) policy.Rule {
	kinds := peerKinds(s)
	known := []string{"toPorts", "icmps"}
	for _, k := range kinds {
		known = append(known, k.field)
	}
	refused := refusedInRule
	if s.deny && s.direction == policy.Egress {
		refused = refusedInEgressDeny
	}
	fields := v.Object(known, refused)
	rule := policy.Rule{Subject: r.subject, Node: r.node, Direction: s.direction, Deny: s.deny, Ref: r.ref(v.Path)}

	ports, hasPorts := fields["toPorts"]
	icmps, hasICMPs := fields["icmps"]
	if hasPorts {
		rule.Ports = r.toPorts(ports, s)
		hasPorts = ports.Len() > 0
	}
	if hasICMPs {
		rule.Ports = append(rule.Ports, r.icmps(icmps)...)
		hasICMPs = icmps.Len() > 0
	}
	if hasPorts && hasICMPs {
		icmps.Fail("does not go with toPorts; write a rule of its own for it")
	}
	named := r.peers(v, fields, kinds, &rule)
	if !named {
		// With ports: for everybody. Without: for nobody, as in Cilium.
		rule.AnyPeer = hasPorts || hasICMPs
		if !rule.AnyPeer && s.deny {
			v.Warn("denies nothing by itself; write %s: [all] to deny everything", prefixOf(s.direction)+"Entities")
		}
	}
	return rule
}
