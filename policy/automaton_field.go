package policy

import (
	"fmt"
	"regexp"

	"github.com/headgate/headgate/policy/automaton"
)

// httpField is a part of a request that rules describe with an expression.
type httpField uint8

const (
	fieldMethod httpField = iota
	fieldPath
	fieldHost
	httpFields
)

func (f httpField) String() string {
	return [httpFields]string{"method", "path", "host"}[f]
}

func (f httpField) of(r *HTTPRequest) []byte {
	switch f {
	case fieldMethod:
		return r.Method
	case fieldPath:
		return r.Path
	}
	return r.Host
}

func (f httpField) in(rule *HTTPRule) string {
	switch f {
	case fieldMethod:
		return rule.Method
	case fieldPath:
		return rule.Path
	}
	return rule.Host
}

// Limits of the expressions of one field of a set. Beyond the instructions the
// set does not compile. Beyond the bytes the automaton is simulated; most sets
// are small and may keep a megabyte.
const (
	maxSetInstructions = 1 << 20
	minStateBytes      = 1 << 20
	maxStateBytes      = 1 << 25
	stateBytesEach     = 1 << 12 // of expressions
)

// fieldIndex is all expressions of one field. Each has a number; 0 is the empty
// one, which matches everything.
type fieldIndex struct {
	ids      map[string]uint32 // while it is made
	patterns []*automaton.Pattern
	texts    []string
	plain    []bool     // the text matches itself only
	rules    [][]uint32 // that ask for an expression, in order
	set      *automaton.Set
}

func newFieldIndex() fieldIndex {
	return fieldIndex{
		ids: map[string]uint32{"": 0}, patterns: []*automaton.Pattern{{}},
		texts: []string{""}, plain: []bool{false}, rules: [][]uint32{nil},
	}
}

// add numbers the expression of a rule.
func (f *fieldIndex) add(expr string, rule uint32) (uint32, error) {
	id, ok := f.ids[expr]
	if !ok {
		p, err := parsePattern(expr)
		if err != nil {
			return 0, err
		}
		literal, plain := p.Literal()
		id = uint32(len(f.texts))
		f.ids[expr] = id
		f.patterns = append(f.patterns, p)
		f.texts = append(f.texts, expr)
		f.plain = append(f.plain, plain && (expr == literal || expr == regexp.QuoteMeta(literal)))
		f.rules = append(f.rules, nil)
	}
	f.rules[id] = append(f.rules[id], rule)
	return id, nil
}

// compile ends the making.
func (f *fieldIndex) compile() error {
	if len(f.texts) > 1 {
		var err error
		f.set, err = automaton.Compile(f.patterns, automaton.Limits{
			Instructions: maxSetInstructions,
			StateBytes:   min(minStateBytes+stateBytesEach*len(f.texts), maxStateBytes),
		})
		if err != nil {
			return fmt.Errorf("%w; split the rules over several ports or subjects", err)
		}
	}
	f.ids, f.patterns = nil, nil
	return nil
}

func (f *fieldIndex) match(value []byte) automaton.Matches {
	if f.set == nil {
		return automaton.Matches{}
	}
	return f.set.Match(value)
}

// has reports whether the expression id is among those that match.
func has(m *automaton.Matches, id uint32) bool {
	return id == 0 || contains(m.Texts, id) || contains(m.Others, id)
}

func contains(ids []uint32, id uint32) bool {
	for len(ids) > 8 {
		if mid := len(ids) / 2; ids[mid] <= id {
			ids = ids[mid:]
		} else {
			ids = ids[:mid]
		}
	}
	for _, have := range ids {
		if have == id {
			return true
		}
	}
	return false
}
