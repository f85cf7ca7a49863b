package policy

import (
	"cmp"
	"maps"
	"slices"
)

// heldSubject is a subject and its tables.
type heldSubject struct {
	key     string
	subject Subject
	at      []anchor
	chosen  map[*cohort]struct{} // what picks it
	now     Resolved             // as last returned
	known   bool                 // whether it ever was
}

// cohort is a selector of subjects, with those that it picks. Rules with equal
// ones share one.
type cohort struct {
	selector Selector
	node     bool
	text     string
	at       []anchor
	members  map[*heldSubject]struct{}
	rules    map[*heldRule]struct{}
}

func (c *cohort) picks(s *Subject) bool { return c.node == s.Node && c.selector.Matches(s.Labels) }

// SetSubject adds a subject under a name, or replaces it.
func (x *Index) SetSubject(key string, subject Subject) {
	if s := x.subjects[key]; s != nil {
		if s.subject.equal(&subject) {
			return
		}
		x.leave(s)
	}
	s := x.subjects[key]
	if s == nil {
		s = &heldSubject{key: key}
		x.subjects[key] = s
	}
	s.subject, s.at, s.chosen = subject, labelAnchors(subject.Labels), map[*cohort]struct{}{}
	x.population.add(s, s.at)
	for c := range x.cohorts.find(s.at) {
		if c.picks(&s.subject) {
			c.members[s], s.chosen[c] = struct{}{}, struct{}{}
		}
	}
	x.stale[s] = struct{}{}
}

func (s *Subject) equal(o *Subject) bool {
	return s.Labels.Equal(o.Labels) && s.Node == o.Node && s.Enforcement == o.Enforcement &&
		maps.EqualFunc(s.NamedPorts, o.NamedPorts, slices.Equal)
}

// RemoveSubject forgets a subject.
func (x *Index) RemoveSubject(key string) {
	s := x.subjects[key]
	if s == nil {
		return
	}
	x.leave(s)
	delete(x.subjects, key)
	delete(x.stale, s)
}

func (x *Index) leave(s *heldSubject) {
	x.population.remove(s, s.at)
	for c := range s.chosen {
		delete(c.members, s)
	}
}

// Get returns the tables of a subject as they are now. Changes will return them
// too if they are new.
func (x *Index) Get(key string) (Resolved, bool) {
	s := x.subjects[key]
	if s == nil {
		return Resolved{}, false
	}
	if _, stale := x.stale[s]; stale {
		return x.resolve(s), true
	}
	return s.now, true
}

// resolve is Resolve with the rules that select the subject.
func (x *Index) resolve(s *heldSubject) Resolved {
	table, sets := Resolve(s.subject, x.rules(s), x.ids)
	return Resolved{table, sets}
}

// Rules are those that select a subject, in the order in which Resolve wants them,
// which need not ask who their peers are. They hold until the next change.
func (x *Index) Rules(key string) []Rule {
	if s := x.subjects[key]; s != nil {
		return x.rules(s)
	}
	return nil
}

func (x *Index) rules(s *heldSubject) []Rule {
	var held []*heldRule
	for c := range s.chosen {
		for r := range c.rules {
			held = append(held, r)
		}
	}
	slices.SortFunc(held, func(a, b *heldRule) int {
		return cmp.Or(cmp.Compare(a.policy, b.policy), cmp.Compare(a.place, b.place))
	})
	rules := make([]Rule, len(held))
	for i, r := range held {
		rules[i] = r.rule
	}
	return rules
}
