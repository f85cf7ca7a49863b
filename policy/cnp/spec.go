package cnp

import (
	"strings"

	"github.com/headgate/headgate/policy"
)

var specFields = []string{
	"endpointSelector", "ingress", "ingressDeny", "egress", "egressDeny", "enableDefaultDeny", "description", "labels",
}

var specRefused = map[string]string{
	"nodeSelector": "write endpointSelector",
	"log":          "delete it",
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

// spec reads one spec into rules.
func (d *document) spec(v value, p *policy.Policy) []policy.Rule {
	if v.node.Tag == "!!null" {
		v.fail("has no value; write the policy")
		return nil
	}
	before := len(d.errs)
	fields := v.object(specFields, specRefused)
	if len(fields) == 0 && len(d.errs) > before {
		return nil
	}
	r := &reader{policy: p}
	if s, ok := fields["endpointSelector"]; ok {
		r.subject = r.subjectSelector(s)
	} else if len(d.errs) == before {
		v.fail("endpointSelector is missing; write one, {} for every endpoint")
	}

	var rules []policy.Rule
	entries := map[policy.Direction]int{}
	for _, s := range sections {
		list, ok := fields[s.field]
		if !ok {
			continue
		}
		for _, item := range list.list() {
			entries[s.direction]++
			rules = append(rules, r.rule(item, s))
		}
	}
	explicit := d.enableDefaultDeny(fields)
	if entries[policy.Ingress]+entries[policy.Egress] == 0 {
		v.fail("has no rule and so no effect; write ingress: [{}] to deny all ingress, egress: [{}] to deny all egress, or rules that allow something")
	}
	for i := range rules {
		deny, said := explicit[rules[i].Direction]
		rules[i].DefaultDeny = !said || deny
	}
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		if explicit[dir] && entries[dir] == 0 { // nothing is allowed then
			rules = append(rules, policy.Rule{
				Subject: r.subject, Direction: dir, DefaultDeny: true,
				Ref: r.ref(v.path + ".enableDefaultDeny." + dir.String()),
			})
		}
	}
	return rules
}

// enableDefaultDeny returns what is said of each direction.
func (d *document) enableDefaultDeny(fields map[string]value) map[policy.Direction]bool {
	explicit := map[policy.Direction]bool{}
	v, ok := fields["enableDefaultDeny"]
	if !ok {
		return explicit
	}
	said := v.object([]string{"ingress", "egress"}, nil)
	for _, dir := range []policy.Direction{policy.Ingress, policy.Egress} {
		if b, ok := said[dir.String()]; ok {
			if deny, ok := b.boolean(); ok {
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
}

// ref names a place as people look for it: without the spec that holds it all.
func (r *reader) ref(path string) policy.Ref {
	return policy.Ref{Policy: r.policy.FullName(), Path: strings.TrimPrefix(path, "spec.")}
}

// rule reads one entry of a section.
func (r *reader) rule(v value, s section) policy.Rule {
	kinds := peerKinds(s.direction)
	known := []string{"toPorts", "icmps"}
	for _, k := range kinds {
		known = append(known, k.field)
	}
	fields := v.object(known, refusedInRule)
	rule := policy.Rule{Subject: r.subject, Direction: s.direction, Deny: s.deny, Ref: r.ref(v.path)}

	ports, hasPorts := fields["toPorts"]
	icmps, hasICMPs := fields["icmps"]
	if hasPorts {
		rule.Ports = r.toPorts(ports, s)
		hasPorts = len(ports.node.Content) > 0
	}
	if hasICMPs {
		rule.Ports = append(rule.Ports, r.icmps(icmps)...)
		hasICMPs = len(icmps.node.Content) > 0
	}
	if hasPorts && hasICMPs {
		icmps.fail("does not go with toPorts; write a rule of its own for it")
	}
	named := r.peers(v, fields, kinds, &rule)
	if !named {
		// With ports: for everybody. Without: for nobody, as in Cilium.
		rule.AnyPeer = hasPorts || hasICMPs
		if !rule.AnyPeer && s.deny {
			v.warn("denies nothing by itself; write %s: [all] to deny everything", kinds[len(kinds)-1].field)
		}
	}
	return rule
}
