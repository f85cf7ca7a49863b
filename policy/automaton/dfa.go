package automaton

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// state of the deterministic automaton. Only next changes, and only from nil.
type state struct {
	list   []uint32 // instructions, in order
	before kind     // of the last character, if list has assertions
	ends   []uint32 // the expressions that match if the value ends here
	next   []atomic.Pointer[state]
	twin   *state // another of the same hash
}

// bytes is about what a state takes.
func (st *state) bytes() int { return 160 + 4*len(st.list) + 4*len(st.ends) + 8*len(st.next) }

// cache is the states built so far. It only grows; a full one is replaced.
type cache struct {
	start     *state
	simulated atomic.Int64 // characters, since the cache was full

	mu     sync.Mutex
	states map[uint64]*state
	count  int
	bytes  int
}

func (s *Set) newCache() *cache {
	c := &cache{states: make(map[uint64]*state)}
	w := s.work.Get().(*work)
	defer s.work.Put(w)
	w.nextRound()
	w.list = w.reach(s, w.list[:0], root, true, 0)
	c.start = s.keep(c, w, kindEdge, true)
	return c
}

// keep finds or makes the state of w.list, or returns nil if there is no room
// and it can be done without.
func (s *Set) keep(c *cache, w *work, before kind, needed bool) *state {
	slices.Sort(w.list)
	if !s.asserts(w.list) {
		before = kindOther
	}
	w.key = append(w.key[:0], byte(before))
	for _, pc := range w.list {
		w.key = binary.LittleEndian.AppendUint32(w.key, pc)
	}
	hash := maphash.Bytes(s.seed, w.key)

	c.mu.Lock()
	defer c.mu.Unlock()
	for st := c.states[hash]; st != nil; st = st.twin {
		if st.before == before && slices.Equal(st.list, w.list) {
			return st
		}
	}
	size := (&state{list: w.list}).bytes() + 8*len(s.classes.kinds)
	if !needed && len(w.list) > 0 && c.bytes+size > s.limits.StateBytes {
		return nil
	}
	st := &state{
		list: slices.Clone(w.list), before: before, ends: w.ends(s, w.list, before),
		next: make([]atomic.Pointer[state], len(s.classes.kinds)), twin: c.states[hash],
	}
	c.states[hash] = st
	c.count++
	c.bytes += st.bytes()
	return st
}

// grow makes the state behind a character, or returns nil if there is no room.
func (s *Set) grow(c *cache, from *state, class uint16) *state {
	if c.simulated.Load() > 0 { // full
		return nil
	}
	w := s.work.Get().(*work)
	defer s.work.Put(w)
	kind := w.step(s, from.list, from.before, class)
	st := s.keep(c, w, kind, false)
	if st != nil {
		from.next[class].Store(st)
	}
	return st
}

// simulate goes on from a state without keeping others.
func (s *Set) simulate(c *cache, from *state, rest []byte) []uint32 {
	w := s.work.Get().(*work)
	defer s.work.Put(w)
	list, before, read := from.list, from.before, 0
	for len(rest) > 0 && len(list) > 0 {
		class, n := s.classes.first(rest)
		rest = rest[n:]
		read++
		before = w.step(s, list, before, class)
		w.list, w.other = w.other, w.list
		list = w.other
	}
	s.spent(c, read)
	if len(list) == 0 {
		return nil
	}
	return w.ends(s, list, before)
}

// spent counts what was simulated because a cache is full. When that is more than
// it took to fill it, another set of states may serve better.
func (s *Set) spent(c *cache, read int) {
	n := c.simulated.Add(int64(read))
	c.mu.Lock()
	enough := n > int64(resetAfter*c.count)
	c.mu.Unlock()
	if enough && s.cache.CompareAndSwap(c, s.newCache()) {
		s.resets.Add(1)
	}
}

// resetAfter is how many characters are simulated for each state of a full cache
// before it starts again. A new state costs more than a simulated character.
const resetAfter = 8
