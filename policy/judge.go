package policy

import "slices"

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
// term names.
func (s *scope) judge(terms []int, proto Proto, port uint16) Entry {
	var plain, l7 []*term
	for _, i := range terms {
		t := &s.terms[i]
		switch {
		case !t.covers(proto, port):
		case t.deny:
			return Entry{Verdict: Deny, Rule: s.ruleID(t.ref)}
		case t.redirect:
			l7 = append(l7, t)
		default:
			plain = append(plain, t)
		}
	}
	if len(plain)+len(l7) == 0 {
		return s.otherwise
	}
	for _, t := range l7 {
		if !slices.ContainsFunc(plain, func(p *term) bool { return p.voids(t) }) {
			return Entry{Verdict: Redirect, Set: s.set(l7), Rule: s.ruleID(t.ref)}
		}
	}
	return Entry{Verdict: Allow, Rule: s.ruleID(plain[0].ref)}
}

// set makes the union of the terms' L7 rules, and returns its id.
func (s *scope) set(terms []*term) SetID {
	set := &L7Set{Protocol: terms[0].protocol}
	for _, t := range terms {
		if t.protocol == set.Protocol {
			set.HTTP = append(set.HTTP, t.l7...)
		}
	}
	set.seal()
	s.sets[set.ID] = set
	return set.ID
}
