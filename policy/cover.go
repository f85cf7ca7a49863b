package policy

import "slices"

// portPrefix is one entry over a prefix of port numbers.
type portPrefix struct {
	port  uint16
	bits  uint8
	entry Entry
}

// cover returns few prefixes that by longest match give every port what want
// says. A port that no prefix covers gets what fallback says.
//
// It is ORTC (Draves et al., 1999) on 16 bits: going up, each node collects the
// values that suit most of its ports; going down, a node takes a value only if
// the one it inherits does not suit. Not being covered is one more value, which
// can be inherited but not taken.
func cover(want, fallback portMap) []portPrefix {
	c := coverer{index: map[Entry]int{}}
	root := c.node(want, fallback, 0, 16)
	c.descend(root, 0, 0, uncovered)
	return c.out
}

const uncovered = -1

type coverer struct {
	values []Entry
	index  map[Entry]int
	out    []portPrefix
}

type coverNode struct {
	suit        []int // sorted values, as indexes into coverer.values
	left, right *coverNode
}

func (c *coverer) value(e Entry) int {
	i, ok := c.index[e]
	if !ok {
		i = len(c.values)
		c.values = append(c.values, e)
		c.index[e] = i
	}
	return i
}

// node builds the tree over 1<<size ports from first. The maps begin with the
// run that holds first.
func (c *coverer) node(want, fallback portMap, first uint16, size int) *coverNode {
	last := first + uint16(1<<size-1)
	for want[0].last < first {
		want = want[1:]
	}
	for fallback[0].last < first {
		fallback = fallback[1:]
	}
	if want[0].last >= last && fallback[0].last >= last {
		suit := []int{c.value(want[0].entry)}
		if want[0].entry == fallback[0].entry {
			suit = []int{uncovered, suit[0]}
		}
		return &coverNode{suit: suit}
	}
	n := &coverNode{
		left:  c.node(want, fallback, first, size-1),
		right: c.node(want, fallback, first+uint16(1<<(size-1)), size-1),
	}
	n.suit = intersect(n.left.suit, n.right.suit)
	if len(n.suit) == 0 {
		n.suit = union(n.left.suit, n.right.suit)
	}
	return n
}

func (c *coverer) descend(n *coverNode, port uint16, bits uint8, inherited int) {
	if !slices.Contains(n.suit, inherited) {
		if take := n.suit[len(n.suit)-1]; take != uncovered {
			c.out = append(c.out, portPrefix{port, bits, c.values[take]})
			inherited = take
		}
	}
	if n.left == nil {
		return
	}
	c.descend(n.left, port, bits+1, inherited)
	c.descend(n.right, port|1<<(15-bits), bits+1, inherited)
}

func intersect(a, b []int) []int {
	var both []int
	for _, v := range a {
		if slices.Contains(b, v) {
			both = append(both, v)
		}
	}
	return both
}

func union(a, b []int) []int {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}
