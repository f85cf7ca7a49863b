package policy

import (
	"fmt"
	"slices"
)

type dnsMatcher struct {
	rule    *DNSRule
	name    string
	pattern DNSPattern
}

func compileDNS(rules []DNSRule) ([]dnsMatcher, error) {
	list := make([]dnsMatcher, len(rules))
	for i := range rules {
		r := &rules[i]
		list[i] = dnsMatcher{rule: r, name: NormalName(r.Name)}
		var err error
		switch {
		case r.Name != "" && r.Pattern != "":
			err = fmt.Errorf("both a name and a pattern")
		case r.Pattern != "":
			list[i].pattern, err = CompileDNSPattern(r.Pattern)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", r.Ref, err)
		}
	}
	return list, nil
}

func (m *dnsMatcher) match(name string) bool {
	switch {
	case m.rule.Pattern != "":
		return m.pattern.Match(name)
	case m.rule.Name != "":
		return NormalName(name) == m.name
	}
	return true
}

// wants reports whether a rule is about questions of a type.
func (m *dnsMatcher) wants(typ uint16) bool {
	return len(m.rule.Types) == 0 || slices.Contains(m.rule.Types, typ)
}

// dnsIndex is the rules, and how one is found.
type dnsIndex struct {
	rules []dnsMatcher
	trie  dnsTrie
}

func newDNSIndex(rules []DNSRule) (dnsIndex, error) {
	list, err := compileDNS(rules)
	x := dnsIndex{rules: list}
	for i := range list {
		x.trie.add(int32(i), &list[i])
	}
	return x, err
}

func (j *rulesJudge) decideDNS(r *DNSRequest) Decision {
	rules := j.dns.rules
	if i := j.dns.trie.find(rules, NormalName(r.Name), r.Type); i >= 0 {
		return Decision{Verdict: Allow, Rule: rules[i].rule.Ref}
	}
	if len(rules) == 0 {
		return Decision{Reason: "there is no rule that allows a question"}
	}
	near, reason := j.dns.nearest(r)
	return Decision{Nearest: near.Ref, Reason: reason}
}

// maxNear bounds how many rules are looked at to explain a denial.
const maxNear = 64

// nearest is a rule for the name, but not for the type of the question; or else the first.
func (x *dnsIndex) nearest(r *DNSRequest) (*DNSRule, string) {
	for i := range x.rules[:min(len(x.rules), maxNear)] {
		if m := &x.rules[i]; len(m.rule.Types) > 0 && m.match(r.Name) {
			return m.rule, "type " + DNSTypeName(r.Type) + " is not among those of the rule"
		}
	}
	first := x.rules[0].rule
	return first, "name " + show([]byte(r.Name)) + " does not match " + show([]byte(first.Name+first.Pattern))
}
