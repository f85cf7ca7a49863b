package policy

import "strings"

// dnsTrie finds the first of many rules that matches a name, at a cost that does not grow
// with the rules. Names that are wanted exactly are in a map, and so are patterns with
// stars in their first label only, by what follows it, which are nearly all that people
// write. Others are in a tree of their labels, from the last to the first. Labels with "*"
// are found by what stands before the first star and behind the last.
type dnsTrie struct {
	exact map[string][]int32 // numbers of rules, rising
	every []int32            // that match whatever is asked
	all   []int32            // that match every name
	tails map[string]*dnsTail
	deep  map[string][]int32 // "**." and what follows it
	root  *dnsNode           // nil: there are no others
}

// dnsTail is the patterns that are alike behind their first label.
type dnsTail struct {
	any    []int32 // whose first label is "*"
	labels dnsNode
}

// dnsNode is where one or more labels lead, read from the last.
type dnsNode struct {
	labels map[string]*dnsNode
	globs  map[string][]dnsGlob // by "before*behind"
	shapes []dnsShape
	here   []int32 // rules whose pattern ends here
	deep   []int32 // that have "**." here: one label more, or several
}

type dnsGlob struct {
	pattern string
	node    *dnsNode
}

// dnsShape is how much stands before the first star of a label, and behind the last.
type dnsShape struct{ before, behind int }

func (t *dnsTrie) add(rule int32, m *dnsMatcher) {
	pattern := m.pattern.rest
	first, rest, _ := strings.Cut(pattern, ".")
	switch {
	case m.rule.Pattern == "" && m.rule.Name == "":
		t.every = append(t.every, rule)
	case m.rule.Pattern == "":
		t.exact = added(t.exact, m.name, rule)
	case m.pattern.all:
		t.all = append(t.all, rule)
	case m.pattern.deep && !strings.Contains(pattern, "*"):
		t.deep = added(t.deep, pattern, rule)
	case !m.pattern.deep && !strings.Contains(pattern, "*"):
		t.exact = added(t.exact, pattern, rule)
	case !m.pattern.deep && !strings.Contains(rest, "*"):
		t.tail(rest).add(first, rule)
	default:
		if t.root == nil {
			t.root = &dnsNode{}
		}
		t.root.add(pattern, m.pattern.deep, rule)
	}
}

func added(rules map[string][]int32, key string, rule int32) map[string][]int32 {
	if rules == nil {
		rules = map[string][]int32{}
	}
	rules[key] = append(rules[key], rule)
	return rules
}

func (t *dnsTrie) tail(rest string) *dnsTail {
	if t.tails == nil {
		t.tails = map[string]*dnsTail{}
	}
	if t.tails[rest] == nil {
		t.tails[rest] = &dnsTail{}
	}
	return t.tails[rest]
}

func (t *dnsTail) add(label string, rule int32) {
	if label == "*" {
		t.any = append(t.any, rule)
		return
	}
	t.labels.add(label, false, rule)
}

func (n *dnsNode) add(pattern string, deep bool, rule int32) {
	for rest, more := pattern, true; more; {
		var label string
		label, rest, more = lastLabel(rest)
		n = n.child(label)
	}
	if deep {
		n.deep = append(n.deep, rule)
	} else {
		n.here = append(n.here, rule)
	}
}

// lastLabel cuts the last label off a name; more: there is a rest.
func lastLabel(name string) (label, rest string, more bool) {
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		return name[i+1:], name[:i], true
	}
	return name, "", false
}

func (n *dnsNode) child(label string) *dnsNode {
	first := strings.IndexByte(label, '*')
	if first < 0 {
		if n.labels == nil {
			n.labels = map[string]*dnsNode{}
		}
		if n.labels[label] == nil {
			n.labels[label] = &dnsNode{}
		}
		return n.labels[label]
	}
	last := strings.LastIndexByte(label, '*')
	key := label[:first+1] + label[last+1:]
	for _, g := range n.globs[key] {
		if g.pattern == label {
			return g.node
		}
	}
	if n.globs == nil {
		n.globs = map[string][]dnsGlob{}
	}
	shape := dnsShape{first, len(label) - last - 1}
	known := false
	for _, s := range n.shapes {
		known = known || s == shape
	}
	if !known {
		n.shapes = append(n.shapes, shape)
	}
	g := dnsGlob{label, &dnsNode{}}
	n.globs[key] = append(n.globs[key], g)
	return g.node
}

// dnsSearch is one look for a rule.
type dnsSearch struct {
	rules []dnsMatcher
	typ   uint16
	best  int32 // -1: none
}

// offer takes the first rule of a list if it comes before the one that was found.
func (s *dnsSearch) offer(list []int32) {
	for _, i := range list {
		if s.best >= 0 && i >= s.best {
			return
		}
		if s.rules[i].wants(s.typ) {
			s.best = i
			return
		}
	}
}

// find returns the number of the first rule that matches a question; -1: none does. The
// name is in normal form.
func (t *dnsTrie) find(rules []dnsMatcher, name string, typ uint16) int32 {
	s := dnsSearch{rules: rules, typ: typ, best: -1}
	s.offer(t.every)
	s.offer(t.exact[name])
	switch {
	case name == "":
		s.offer(t.all)
	case inDNS(name):
		s.offer(t.all)
		t.patterns(&s, name)
	}
	return s.best
}

func (t *dnsTrie) patterns(s *dnsSearch, name string) {
	label, rest, _ := strings.Cut(name, ".")
	if tail := t.tails[rest]; tail != nil {
		s.offer(tail.any)
		tail.labels.walk(s, label, true)
	}
	if len(t.deep) > 0 {
		for i := range len(name) {
			if name[i] == '.' {
				s.offer(t.deep[name[i+1:]])
			}
		}
	}
	if t.root != nil {
		t.root.walk(s, name, true)
	}
}

// walk goes on with what of the name stands before the labels that led to n.
func (n *dnsNode) walk(s *dnsSearch, name string, more bool) {
	if !more {
		s.offer(n.here)
		return
	}
	s.offer(n.deep)
	label, rest, more := lastLabel(name)
	if child := n.labels[label]; child != nil {
		child.walk(s, rest, more)
	}
	for _, shape := range n.shapes {
		if shape.before+shape.behind > len(label) {
			continue
		}
		var key [maxName + 1]byte
		k := append(append(append(key[:0], label[:shape.before]...), '*'), label[len(label)-shape.behind:]...)
		globs := n.globs[string(k)]
		for i := range globs {
			if glob(globs[i].pattern, label, 0) {
				globs[i].node.walk(s, rest, more)
			}
		}
	}
}
