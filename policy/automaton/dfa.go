package automaton

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
)

// state of the deterministic automaton. What comes after it is learnt; all else
// never changes. Most states have one way on, which stands in the state itself:
// class is set before only, and neither changes again. A table holds the others.
type state struct {
	list   []uint32 // instructions, in order
	only   atomic.Pointer[state]
	table  atomic.Pointer[[]atomic.Pointer[state]] // by class
	ends   []uint32                                // the expressions that match if the value ends here
	twin   *state                                  // another of the same hash
	class  uint16                                  // that leads to only
	before kind                                    // of the last character, if list has assertions
}

// bytes is about what a state takes, without its table.
func (st *state) bytes() int { return 160 + 4*len(st.list) + 4*len(st.ends) }

// after is the state behind a character, or nil if it is not known.
func (st *state) after(class uint16) *state {
	if next := st.only.Load(); next != nil && st.class == class {
		return next
	}
	if table := st.table.Load(); table != nil {
		return (*table)[class].Load()
	}
	return nil
}

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
	if !needed && len(w.list) > 0 && c.bytes+(&state{list: w.list}).bytes() > s.limits.StateBytes {
		return nil
	}
	st := &state{list: slices.Clone(w.list), before: before, ends: w.ends(s, w.list, before), twin: c.states[hash]}
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
	if st == nil || !s.link(c, from, class, st) {
		return nil
	}
	return st
}

// link makes a state known behind another, if there is room for that.
func (s *Set) link(c *cache, from *state, class uint16, to *state) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if from.only.Load() == nil {
		from.class = class
		from.only.Store(to)
		return true
	}
	if from.class == class {
		return true // somebody else was faster
	}
	table := from.table.Load()
	if table == nil {
		size := 24 + 8*len(s.classes.kinds)
		if c.bytes+size > s.limits.StateBytes {
			return false
		}
		c.bytes += size
		made := make([]atomic.Pointer[state], len(s.classes.kinds))
		table = &made
		from.table.Store(table)
	}
	(*table)[class].Store(to)
	return true
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
