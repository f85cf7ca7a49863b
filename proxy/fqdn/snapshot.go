package fqdn

import (
	"net/netip"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// prefixes finds the longest that holds an address.
type prefixes struct {
	known map[netip.Prefix]struct{}
	bits  [2][]int // lengths in use, longest first; IPv4, IPv6
}

func newPrefixes(list []netip.Prefix) *prefixes {
	p := &prefixes{known: map[netip.Prefix]struct{}{}}
	var lengths [2][129]bool
	for _, prefix := range list {
		prefix = prefix.Masked()
		p.known[prefix] = struct{}{}
		lengths[family(prefix.Addr())][prefix.Bits()] = true
	}
	for f := range lengths {
		for bits := 128; bits > 0; bits-- {
			if lengths[f][bits] {
				p.bits[f] = append(p.bits[f], bits)
			}
		}
	}
	return p
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (p *prefixes) of(a netip.Addr) netip.Prefix {
	for _, bits := range p.bits[family(a)] {
		if prefix, err := a.Prefix(bits); err == nil {
			if _, ok := p.known[prefix]; ok {
				return prefix
			}
		}
	}
	prefix, _ := a.Prefix(0)
	return prefix
}

// withDefaults are the limits in force.
func withDefaults(l redirect.NameLimits) redirect.NameLimits {
	if l.MinTTL <= 0 {
		l.MinTTL = 10 * time.Second
	}
	if l.Grace <= 0 {
		l.Grace = 10 * time.Second
	}
	if l.PerName <= 0 {
		l.PerName = 1000
	}
	if l.PerEndpoint <= 0 {
		l.PerEndpoint = redirect.NamesPerEndpoint
	}
	return l
}

// maxTTL bounds how long an answer counts, as resolvers do.
const maxTTL = 24 * time.Hour

// number puts numbers in place of the names in what a table says. What names a set that
// nobody numbered stays closed; it says whether there is such.
func number(t policy.AuditedTable, rules map[policy.Ref]uint32, sets map[policy.SetID]redirect.SetNumber) (policy.NameRules, bool) {
	out := make(policy.NameRules, len(t.Entries))
	missing := false
	for k, e := range t.Entries {
		n := policy.NumberedEntry{Verdict: e.Verdict, Audit: e.Audit}
		if e.Rule > 0 && !e.Audit {
			n.Rule = rules[t.Rules[e.Rule-1]]
		}
		if e.AuditBy > 0 { // what is told of it is who would deny it
			n.Rule = rules[t.Rules[e.AuditBy-1]]
		}
		if e.Verdict == policy.Redirect {
			n.Set = uint32(sets[e.Set]) // without a set the gate refuses
			missing = missing || n.Set == 0
		}
		out[k] = n
	}
	return out, missing
}
