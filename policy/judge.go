package policy

import (
	"cmp"
	"slices"
)

// portMap says of every port what becomes of it: runs in order of their last
// port, the last of them ending at 65535.
type portMap []portRun

type portRun struct {
	last  uint16
	entry Entry
}

func constant(e Entry) portMap { return portMap{{65535, e}} }

// portMap judges every port of a protocol for a peer whom the terms concern.
func (s *scope) portMap(terms []int, proto Proto) portMap {
	var concern []int
	starts := []uint16{0}
	for _, i := range terms {
		t := &s.terms[i]
		if t.proto == ProtoAny {
			concern = append(concern, i)
			continue
		}
		if t.proto != proto {
			continue
		}
		concern = append(concern, i)
		starts = append(starts, t.first)
		if t.last < 65535 {
			starts = append(starts, t.last+1)
		}
	}
	slices.Sort(starts)
	starts = slices.Compact(starts)

	var m portMap
	for i, start := range starts {
		run := portRun{last: 65535, entry: s.judge(concern, proto, start)}
		if i+1 < len(starts) {
			run.last = starts[i+1] - 1
		}
		if n := len(m); n > 0 && m[n-1].entry == run.entry {
			m[n-1].last = run.last
			continue
		}
		m = append(m, run)
	}
	return m
}

// judge decides one port. With ProtoAny it decides for the protocols that no
// term names. Where requests are judged, what would be if the policies that audit
// enforced goes into the set.
func (s *scope) judge(terms []int, proto Proto, port uint16) Entry {
	e := s.judgeAs(terms, proto, port, s.otherwise, false)
	if !s.audits || e.Verdict != Redirect {
		return e
	}
	audit := s.judgeAs(terms, proto, port, s.auditOtherwise, true)
	if audit.Verdict == Redirect && audit.Set != e.Set {
		set := *s.sets[e.Set]
		set.Audit = s.sets[audit.Set]
		set.seal()
		s.sets[set.ID], e.Set = &set, set.ID
	}
	return e
}

// judgeAs decides one port, by the policies that enforce or by those that audit too.
func (s *scope) judgeAs(terms []int, proto Proto, port uint16, otherwise Entry, audit bool) Entry {
	var plain, l7, deny, shown []*term
	for _, i := range terms {
		t := &s.terms[i]
		switch {
		case !t.covers(proto, port), t.shown && t.l7 == nil && !audit:
		case t.shown && !(audit && t.audit):
			shown = append(shown, t)
		case t.deny && t.l7 == nil:
			return Entry{Verdict: Deny, Rule: s.ruleID(t.ref)}
		case t.deny:
			deny = append(deny, t)
		case t.l7 != nil:
			l7 = append(l7, t)
		default:
			plain = append(plain, t)
		}
	}
	if len(plain)+len(l7) == 0 && otherwise.Verdict == Deny {
		return otherwise
	}
	for _, t := range l7 {
		if !slices.ContainsFunc(plain, func(p *term) bool { return p.voids(t) }) {
			return s.redirect(l7, deny, t.ref, false)
		}
	}
	allowed := otherwise
	if len(plain)+len(l7) > 0 {
		allowed = Entry{Verdict: Allow, Rule: s.ruleID(slices.Concat(plain, l7)[0].ref)}
	}
	// What is allowed whatever is in it goes to the proxy for the sake of denies,
	// or to be seen.
	for _, list := range [2][]*term{deny, shown} {
		if len(list) > 0 {
			all := *list[0]
			all.l7 = all.l7.everything(all.ref)
			if len(plain) > 0 {
				all.l7 = all.l7.everything(plain[0].ref)
				all.ref = plain[0].ref
			}
			return s.redirect([]*term{&all}, deny, all.ref, len(deny) == 0)
		}
	}
	return allowed
}

// redirect says that requests are judged by the union of the terms' L7 rules. A
// deny that is about another protocol than they are cannot be judged, and so
// denies the connection.
func (s *scope) redirect(allow, deny []*term, ref Ref, observed bool) Entry {
	set := &L7Set{Protocol: allow[0].l7.family(), Observed: observed}
	rules := &L7Rules{Protocol: set.Protocol}
	for _, t := range allow {
		if t.l7.family() == set.Protocol {
			rules = rules.and(t.l7)
		}
		set.DenyResponse = cmp.Or(set.DenyResponse, t.response)
	}
	set.HTTP, set.GRPC, set.Kafka, set.DNS, set.TLS = rules.HTTP, rules.GRPC, rules.Kafka, rules.DNS, rules.TLS
	set.Ends = rules.Ends
	for _, t := range deny {
		if t.l7.family() != set.Protocol {
			return Entry{Verdict: Deny, Rule: s.ruleID(t.ref)}
		}
		if set.Deny == nil {
			set.Deny = &L7Rules{Protocol: set.Protocol}
		}
		set.Deny = set.Deny.and(t.l7)
		set.DenyResponse = cmp.Or(set.DenyResponse, t.response)
	}
	set.seal()
	s.sets[set.ID] = set
	return Entry{Verdict: Redirect, Set: set.ID, Rule: s.ruleID(ref)}
}
