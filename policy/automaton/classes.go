package automaton

import (
	"encoding/binary"
	"fmt"
	"regexp/syntax"
	"slices"
	"sort"
	"unicode"
)

// Limits of characters that are told apart: their classes, and the sets of
// characters times the classes in them.
const (
	maxClasses   = 1 << 12
	maxClassWork = 1 << 27
)

// charSets numbers the different sets of characters that instructions match.
type charSets struct {
	sets [][]rune // pairs: first and last of each range, in order
	ids  map[string]uint32
	seen map[*rune]uint32 // by first rune: repetitions share theirs
	key  []byte
}

func newCharSets() *charSets {
	return &charSets{ids: make(map[string]uint32), seen: make(map[*rune]uint32)}
}

// pairs numbers a set given as ranges in order.
func (c *charSets) pairs(set []rune) uint32 {
	if len(set) > 8 {
		if id, ok := c.seen[&set[0]]; ok && len(c.sets[id]) == len(set) {
			return id
		}
	}
	c.key = c.key[:0]
	for _, r := range set {
		c.key = binary.LittleEndian.AppendUint32(c.key, uint32(r))
	}
	id, ok := c.ids[string(c.key)]
	if !ok {
		id = uint32(len(c.sets))
		c.ids[string(c.key)] = id
		c.sets = append(c.sets, set)
	}
	if len(set) > 8 {
		c.seen[&set[0]] = id
	}
	return id
}

// one numbers the set of a character and, if fold, its other cases.
func (c *charSets) one(r rune, fold bool) uint32 {
	all := []rune{r}
	if fold {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			all = append(all, f)
		}
		slices.Sort(all)
	}
	set := make([]rune, 0, 2*len(all))
	for _, r := range all {
		set = append(set, r, r)
	}
	return c.pairs(set)
}

func (c *charSets) any() uint32 { return c.pairs([]rune{0, unicode.MaxRune}) }

func (c *charSets) anyNotNL() uint32 {
	return c.pairs([]rune{0, '\n' - 1, '\n' + 1, unicode.MaxRune})
}

// kind is what assertions want to know of a character.
type kind uint8

const (
	kindOther kind = iota
	kindWord
	kindNewLine
	kindEdge // no character: the beginning or the end of the value
	kinds
)

// contexts holds the assertions that are true between two kinds.
func contexts() (table [kinds][kinds]uint8) {
	of := [kinds]rune{kindOther: ' ', kindWord: 'a', kindNewLine: '\n', kindEdge: -1}
	for a := range kinds {
		for b := range kinds {
			table[a][b] = uint8(syntax.EmptyOpContext(of[a], of[b]))
		}
	}
	return table
}

// classes divides all characters into those that no set tells apart.
type classes struct {
	ascii  [0x80]uint16
	starts []rune   // of intervals, in order, from 0
	of     []uint16 // the class of each interval
	kinds  []kind   // of each class
	words  int      // of 64 bits in a set's members
	member []uint64 // for each set, the classes in it
}

// class of a character that is not ASCII.
func (c *classes) class(r rune) uint16 {
	lo, hi := 0, len(c.starts)
	for hi-lo > 1 {
		if mid := int(uint(lo+hi) >> 1); c.starts[mid] <= r {
			lo = mid
		} else {
			hi = mid
		}
	}
	return c.of[lo]
}

func (c *classes) has(set uint32, class uint16) bool {
	return c.member[int(set)*c.words+int(class>>6)]>>(class&63)&1 != 0
}

// divide makes the classes: every set in turn splits those that it cuts.
func divide(sets [][]rune) (*classes, error) {
	c := &classes{}
	// What assertions tell apart comes last and is no set of any instruction.
	all := append(slices.Clip(sets), []rune{'0', '9', 'A', 'Z', '_', '_', 'a', 'z'}, []rune{'\n', '\n'})
	c.cut(all)
	c.of = make([]uint16, len(c.starts))
	sizes := []int{len(c.starts)} // of each class, in intervals
	inside := make(map[uint16]int)
	split := make(map[uint16]uint16)
	work := 0
	for _, set := range all {
		clear(inside)
		clear(split)
		c.each(set, func(i int) { inside[c.of[i]]++; work++ })
		for class, n := range inside {
			if n < sizes[class] {
				split[class] = uint16(len(sizes))
				sizes[class] -= n
				sizes = append(sizes, n)
			}
		}
		if len(sizes) > maxClasses || work > maxClassWork {
			return nil, fmt.Errorf("%d classes of characters: %w", len(sizes), ErrSize)
		}
		if len(split) > 0 {
			c.each(set, func(i int) {
				if to, ok := split[c.of[i]]; ok {
					c.of[i] = to
				}
			})
		}
	}
	if len(sets)*len(sizes) > maxClassWork {
		return nil, fmt.Errorf("%d sets of characters: %w", len(sets), ErrSize)
	}
	c.finish(sets, len(sizes))
	return c, nil
}

// cut finds the intervals.
func (c *classes) cut(sets [][]rune) {
	c.starts = []rune{0}
	for _, set := range sets {
		for i := 0; i < len(set); i += 2 {
			c.starts = append(c.starts, set[i], set[i+1]+1)
		}
	}
	slices.Sort(c.starts)
	c.starts = slices.Compact(c.starts)
}

// each calls f with every interval of a set.
func (c *classes) each(set []rune, f func(interval int)) {
	for i := 0; i < len(set); i += 2 {
		at := sort.Search(len(c.starts), func(k int) bool { return c.starts[k] >= set[i] })
		for ; at < len(c.starts) && c.starts[at] <= set[i+1]; at++ {
			f(at)
		}
	}
}

func (c *classes) finish(sets [][]rune, count int) {
	c.words = (count + 63) / 64
	c.member = make([]uint64, len(sets)*c.words)
	for s, set := range sets {
		c.each(set, func(i int) {
			c.member[s*c.words+int(c.of[i]>>6)] |= 1 << (c.of[i] & 63)
		})
	}
	for r := range c.ascii {
		c.ascii[r] = c.class(rune(r))
	}
	c.kinds = make([]kind, count)
	c.kinds[c.ascii['\n']] = kindNewLine
	for r := range c.ascii {
		if syntax.IsWordChar(rune(r)) {
			c.kinds[c.ascii[r]] = kindWord
		}
	}
}
