package automaton

import (
	"errors"
	"fmt"
	"regexp/syntax"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrSize says that an expression, or a set of them, is larger than allowed.
var ErrSize = errors.New("is too large")

// Pattern is a parsed expression, good for Compile.
type Pattern struct {
	ways []way
}

// way is one top-level alternative of an expression: all of its parts in turn.
type way []*syntax.Regexp

// Parse reads an expression of the syntax of package regexp. It refuses, with
// ErrSize, what would take more than limit instructions.
func Parse(expr string, limit int) (*Pattern, error) {
	// Alone: "a)|(b" is no expression, though it is one inside a group.
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	if strings.Contains(expr, `\Q`) { // which may have no end of its own
		if _, err := syntax.Parse(`\A(?:`+expr+`)\z`, syntax.Perl); err != nil {
			return nil, err
		}
	}
	if n := size(tree); n > limit {
		return nil, fmt.Errorf("%w: %d instructions, of %d at most", ErrSize, n, limit)
	}
	p := &Pattern{}
	p.split(tree.Simplify())
	return p, nil
}

// size is the number of instructions that the tree compiles to, or a little
// more. It is known before repetitions are written out.
func size(re *syntax.Regexp) int {
	n := 0
	for _, sub := range re.Sub {
		n += size(sub)
	}
	switch re.Op {
	case syntax.OpLiteral:
		return max(1, len(re.Rune))
	case syntax.OpCapture:
		return n + 2
	case syntax.OpAlternate:
		return n + len(re.Sub) - 1
	case syntax.OpRepeat:
		if re.Max < 0 {
			return n*max(1, re.Min) + 2
		}
		return n*re.Max + re.Max - re.Min + 1
	case syntax.OpConcat:
		return n
	}
	return n + 1
}

func (p *Pattern) split(re *syntax.Regexp) {
	switch re.Op {
	case syntax.OpCapture:
		p.split(re.Sub[0])
	case syntax.OpAlternate:
		for _, sub := range re.Sub {
			p.split(sub)
		}
	default:
		p.ways = append(p.ways, trim(parts(nil, re)))
	}
}

func parts(to way, re *syntax.Regexp) way {
	switch re.Op {
	case syntax.OpEmptyMatch:
		return to
	case syntax.OpConcat, syntax.OpCapture:
		for _, sub := range re.Sub {
			to = parts(to, sub)
		}
		return to
	case syntax.OpLiteral:
		for i := range re.Rune {
			to = append(to, &syntax.Regexp{Op: syntax.OpLiteral, Flags: re.Flags & syntax.FoldCase, Rune: re.Rune[i : i+1]})
		}
		return to
	}
	return append(to, re)
}

// trim takes away the anchors that a match of the whole value implies.
func trim(w way) way {
	for len(w) > 0 && (w[0].Op == syntax.OpBeginText || w[0].Op == syntax.OpBeginLine) {
		w = w[1:]
	}
	for n := len(w); n > 0 && (w[n-1].Op == syntax.OpEndText || w[n-1].Op == syntax.OpEndLine); n-- {
		w = w[:n-1]
	}
	return w
}

// Literal is the only value that the expression matches, if it is of that kind.
func (p *Pattern) Literal() (string, bool) {
	if len(p.ways) != 1 {
		return "", false
	}
	return p.ways[0].literal()
}

func (w way) literal() (string, bool) {
	var text strings.Builder
	for _, part := range w {
		if part.Op != syntax.OpLiteral {
			return "", false
		}
		r := part.Rune[0]
		folds := part.Flags&syntax.FoldCase != 0 && unicode.SimpleFold(r) != r
		// U+FFFD matches every invalid byte too.
		if folds || r == utf8.RuneError || !utf8.ValidRune(r) {
			return "", false
		}
		text.WriteRune(r)
	}
	return text.String(), true
}
