package policy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// Limits of one expression of an HTTP rule, so that no policy makes a proxy
// slow: its length, and the instructions it compiles to.
const (
	maxPattern      = 4096
	maxInstructions = 20000
)

var errPattern = errors.New("is too large; write it shorter, or split the rule in several")

// ValidatePattern checks an expression of an HTTP rule.
func ValidatePattern(expr string) error {
	_, err := compilePattern(expr)
	return err
}

// pattern is a compiled expression. The zero pattern matches everything.
type pattern struct {
	text    string
	literal []byte         // the one value that matches, if re is nil
	re      *regexp.Regexp // must match the whole value
}

func compilePattern(expr string) (pattern, error) {
	if expr == "" {
		return pattern{}, nil
	}
	if len(expr) > maxPattern {
		return pattern{}, fmt.Errorf("the expression of %d bytes %w", len(expr), errPattern)
	}
	// Alone first: "a)|(b" is no expression, though it is one inside a group.
	bare, err := regexp.Compile(expr)
	if err != nil {
		return pattern{}, fmt.Errorf("%q is not an RE2 expression (%w); see https://github.com/google/re2/wiki/Syntax", expr, err)
	}
	if err := checkSize(expr); err != nil {
		return pattern{}, err
	}
	if literal, whole := bare.LiteralPrefix(); whole {
		return pattern{text: expr, literal: []byte(literal)}, nil
	}
	re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
	if err != nil {
		return pattern{}, fmt.Errorf("%q does not compile when it must match the whole value: %w", expr, err)
	}
	return pattern{text: expr, re: re}, nil
}

func checkSize(expr string) error {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return fmt.Errorf("%q: %w", expr, err)
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return fmt.Errorf("%q: %w", expr, err)
	}
	if len(prog.Inst) > maxInstructions {
		return fmt.Errorf("the expression %.40q... %w", expr, errPattern)
	}
	return nil
}

func (p *pattern) match(value []byte) bool {
	switch {
	case p.text == "":
		return true
	case p.re == nil:
		return bytes.Equal(p.literal, value)
	}
	return p.re.Match(value)
}

// header is a compiled HeaderRule.
type header struct {
	name  []byte
	value []byte
}

var hostName = []byte("host")

// match looks at the header's values as one list joined with commas. Of a
// request's Host there is one, kept apart.
func (h *header) match(r *HTTPRequest) bool {
	found := false
	rest := h.value
	matches := true
	if len(r.Host) > 0 && bytes.EqualFold(h.name, hostName) {
		found, matches, rest = true, bytes.HasPrefix(rest, r.Host), bytes.TrimPrefix(rest, r.Host)
	}
	for i := range r.Headers {
		if !bytes.EqualFold(r.Headers[i].Name, h.name) {
			continue
		}
		if found {
			matches = matches && len(rest) > 0 && rest[0] == ','
			rest = bytes.TrimPrefix(rest, comma)
		}
		found = true
		matches = matches && bytes.HasPrefix(rest, r.Headers[i].Value)
		rest = bytes.TrimPrefix(rest, r.Headers[i].Value)
	}
	return found && (len(h.value) == 0 || matches && len(rest) == 0)
}

func (h *header) present(r *HTTPRequest) bool {
	probe := header{name: h.name}
	return probe.match(r)
}

var comma = []byte{','}
