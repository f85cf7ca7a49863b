package automaton

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unicode/utf8"
)

// Limits of a Set. What is beyond Instructions does not compile; states beyond
// StateBytes are simulated.
type Limits struct {
	Instructions int
	StateBytes   int
}

// Set is expressions that are matched together. Use it from any goroutine.
type Set struct {
	limits    Limits
	literals  map[string][]uint32 // the expressions that match a text
	insts     []inst              // nil if all expressions are literals
	anyAssert bool
	classes   *classes
	context   [kinds][kinds]uint8
	seed      maphash.Seed

	cache  atomic.Pointer[cache]
	resets atomic.Int64
	work   sync.Pool
}

// Compile makes a Set. An expression's number is its place in patterns.
func Compile(patterns []*Pattern, limits Limits) (*Set, error) {
	s := &Set{limits: limits, literals: make(map[string][]uint32), context: contexts(), seed: maphash.MakeSeed()}
	b := newBuilder(limits.Instructions)
	for i, p := range patterns {
		id := uint32(i)
		for _, w := range p.ways {
			if text, ok := w.literal(); ok {
				if ids := s.literals[text]; len(ids) == 0 || ids[len(ids)-1] != id {
					s.literals[text] = append(ids, id)
				}
				continue
			}
			if err := b.add(w, id); err != nil {
				return nil, err
			}
		}
	}
	if b.insts[root].op == opFail {
		return s, nil
	}
	s.insts = slices.Clip(b.insts)
	s.anyAssert = slices.ContainsFunc(s.insts, func(in inst) bool { return in.op == opEmpty })
	var err error
	if s.classes, err = divide(b.sets.sets); err != nil {
		return nil, err
	}
	insts := len(s.insts)
	s.work.New = func() any { return newWork(insts) }
	s.cache.Store(s.newCache())
	return s, nil
}

// Matches is the expressions that match a value: Texts because the value is their
// text, Others because they describe it. Both are in order; an expression may be
// in both. They belong to the Set.
type Matches struct{ Texts, Others []uint32 }

// Match tells which expressions match the whole value. It allocates only while
// the Set still learns, or beyond its limit.
func (s *Set) Match(value []byte) Matches {
	m := Matches{Texts: s.literals[string(value)]}
	if s.insts != nil {
		m.Others = s.run(value)
	}
	return m
}

func (s *Set) run(value []byte) []uint32 {
	c := s.cache.Load()
	st := c.start
	for at := 0; at < len(value); {
		var class uint16
		n := 1
		if b := value[at]; b < utf8.RuneSelf {
			class = s.classes.ascii[b]
		} else {
			class, n = s.classes.first(value[at:])
		}
		next := st.after(class)
		if next == nil {
			if next = s.grow(c, st, class); next == nil {
				return s.simulate(c, st, value[at:])
			}
		}
		if len(next.list) == 0 {
			return nil
		}
		st = next
		at += n
	}
	return st.ends
}

// first reads the first character of a value that is not empty.
func (c *classes) first(value []byte) (class uint16, n int) {
	if value[0] < utf8.RuneSelf {
		return c.ascii[value[0]], 1
	}
	r, n := utf8.DecodeRune(value)
	return c.class(r), n
}

// Stats says how large a Set is and how it fares.
type Stats struct {
	Instructions int
	Classes      int
	Literals     int
	States       int   // kept at present
	StateBytes   int   // about what they take
	Resets       int64 // how often the states were full and given up
}

// Stats of the moment.
func (s *Set) Stats() Stats {
	out := Stats{Instructions: len(s.insts), Literals: len(s.literals), Resets: s.resets.Load()}
	if s.insts == nil {
		return out
	}
	out.Classes = len(s.classes.kinds)
	c := s.cache.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	out.States, out.StateBytes = c.count, c.bytes
	return out
}
