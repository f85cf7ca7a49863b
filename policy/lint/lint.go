// Package lint finds what policies say that was probably not meant: rules that
// put others out of force, rules that can match nothing, expressions that match
// more or less than they look like.
//
// All it says is true of the policies that it is given. It says nothing of what
// is only unusual, since a warning that is mostly wrong is not read, nor of what
// the decoder refuses, as selectors that contradict themselves.
package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

// Warning is one thing that was probably not meant.
type Warning struct {
	Policy  int    // the index of the policy
	Path    string // of the field, as "ingress[0].toPorts[0]"
	Message string // what it is, and what to write instead
}

// manyRules is up to how many rules are compared each with each; of more only
// those of one policy are, so that nobody waits.
const manyRules = 2000

// Check looks at policies, which are thought of as applied together. The judge
// knows of endpoints; it may be nil.
func Check(policies []policy.Policy, judge *verdict.Judge) []Warning {
	l := &linter{policies: policies, seen: map[Warning]bool{}}
	var all []place
	for i := range policies {
		l.policy = i
		var own []place
		for j := range policies[i].Rules {
			r := &policies[i].Rules[j]
			l.rule(r)
			if r.Mode == policy.ModeEnforce {
				own = append(own, place{i, r})
			}
		}
		all = append(all, own...)
	}
	if len(all) <= manyRules {
		l.pairs(all)
	} else {
		for start := 0; start < len(all); {
			end := start
			for end < len(all) && all[end].policy == all[start].policy {
				end++
			}
			l.pairs(all[start:end])
			start = end
		}
	}
	if judge != nil {
		l.unmatched(all, judge)
	}
	slices.SortStableFunc(l.warnings, func(a, b Warning) int { return cmp.Compare(a.Policy, b.Policy) })
	return l.warnings
}

// place is a rule, and the policy that it is of.
type place struct {
	policy int
	rule   *policy.Rule
}

type linter struct {
	policies []policy.Policy
	policy   int // that is looked at
	warnings []Warning
	seen     map[Warning]bool
}

// once reports whether nothing of the kind was said of the field so far: of
// several rules that make another useless, one is enough to know.
func (l *linter) once(kind, path string) bool {
	key := Warning{l.policy, path, kind}
	first := !l.seen[key]
	l.seen[key] = true
	return first
}

func (l *linter) warn(path, format string, args ...any) {
	w := Warning{l.policy, path, fmt.Sprintf(format, args...)}
	if !l.seen[w] { // rules for many ports say the same for each
		l.seen[w] = true
		l.warnings = append(l.warnings, w)
	}
}

// rule looks at one rule by itself.
func (l *linter) rule(r *policy.Rule) {
	for _, p := range r.Peers {
		switch p := p.(type) {
		case policy.CIDR:
			for _, e := range p.Except {
				if e.Bits() <= p.Prefix.Bits() && e.Contains(p.Prefix.Addr()) {
					l.warn(r.Ref.Path, "%s names nobody, as its except %s takes all of it out; narrow except", p.Prefix, e)
				}
			}
		case policy.FQDN:
			l.namePattern(r.Ref.Path, p.Pattern)
		}
	}
	for i := range r.Ports {
		if l7 := r.Ports[i].L7; l7 != nil {
			l.l7(l7)
		}
	}
}

// unmatched finds selectors that pick none of the endpoints that are known.
func (l *linter) unmatched(all []place, judge *verdict.Judge) {
	policies := map[policy.Ref]int{}
	for _, p := range all {
		policies[p.rule.Ref] = p.policy
	}
	for _, s := range judge.Selectors() {
		if !s.Empty() || s.Kind == "fqdn" { // names are seen in time
			continue
		}
		what := map[string]string{"endpoints": "endpoint", "nodes": "node", "service": "endpoint or address", "cidrGroup": "address"}[s.Kind]
		if what == "" {
			continue
		}
		for _, ref := range s.Subjects {
			l.policy = policies[ref]
			l.warn(subjectPath, "%s selects no %s that is known, so the policy is for nobody; compare with its labels", s.Text, what)
		}
		for _, ref := range s.Peers {
			l.policy = policies[ref]
			l.warn(ref.Path, "%s selects no %s that is known; compare with its labels", s.Text, what)
		}
	}
}

// subjectPath stands for the field that says whom a policy is for: its name
// differs by kind.
const subjectPath = "selector"
