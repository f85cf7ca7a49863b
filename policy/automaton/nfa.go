package automaton

import "slices"

// work is the memory of one simulation. A list of instructions holds those that
// wait for a character, match, or are assertions not yet decided.
type work struct {
	mark    []uint32 // the round in which an instruction was reached
	round   uint32
	stack   []uint32
	decided []uint32 // a list whose assertions are decided
	list    []uint32 // the result of step
	other   []uint32
	key     []byte
}

func newWork(insts int) *work { return &work{mark: make([]uint32, insts)} }

func (w *work) nextRound() {
	if w.round++; w.round == 0 {
		clear(w.mark)
		w.round = 1
	}
}

// reach adds to a list all that follows from an instruction without a character.
// If wait, assertions are kept in the list; else those of holds are true, the
// others false.
func (w *work) reach(s *Set, to []uint32, pc uint32, wait bool, holds uint8) []uint32 {
	w.stack = append(w.stack[:0], pc)
	for len(w.stack) > 0 {
		pc := w.stack[len(w.stack)-1]
		w.stack = w.stack[:len(w.stack)-1]
		if w.mark[pc] == w.round {
			continue
		}
		w.mark[pc] = w.round
		switch in := &s.insts[pc]; in.op {
		case opNop:
			w.stack = append(w.stack, in.out)
		case opAlt:
			w.stack = append(w.stack, in.arg, in.out)
		case opChar, opMatch:
			to = append(to, pc)
		case opEmpty:
			if wait {
				to = append(to, pc)
			} else if in.cond&^holds == 0 {
				w.stack = append(w.stack, in.out)
			}
		}
	}
	return to
}

// decide replaces the assertions of a list by what follows from them between two
// kinds of characters. The result is valid until the next call.
func (w *work) decide(s *Set, list []uint32, before, after kind) []uint32 {
	if !s.asserts(list) {
		return list
	}
	w.nextRound()
	w.decided = w.decided[:0]
	for _, pc := range list {
		w.decided = w.reach(s, w.decided, pc, false, s.context[before][after])
	}
	return w.decided
}

// step reads one character: w.list becomes what follows from a list, which may
// be w.other but not w.list. It returns the kind of the character, for what
// comes after.
func (w *work) step(s *Set, list []uint32, before kind, class uint16) kind {
	list = w.decide(s, list, before, s.classes.kinds[class])
	w.nextRound()
	w.list = w.list[:0]
	for _, pc := range list {
		if in := &s.insts[pc]; in.op == opChar && s.classes.has(in.arg, class) {
			w.list = w.reach(s, w.list, in.out, true, 0)
		}
	}
	return s.classes.kinds[class]
}

// ends is the expressions that match if the value ends after a list.
func (w *work) ends(s *Set, list []uint32, before kind) []uint32 {
	var ids []uint32
	for _, pc := range w.decide(s, list, before, kindEdge) {
		if in := &s.insts[pc]; in.op == opMatch {
			ids = append(ids, in.arg)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// asserts reports whether a list has assertions.
func (s *Set) asserts(list []uint32) bool {
	if !s.anyAssert {
		return false
	}
	for _, pc := range list {
		if s.insts[pc].op == opEmpty {
			return true
		}
	}
	return false
}
