package policy

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/headgate/headgate/policy/automaton"
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
	_, err := parsePattern(expr)
	return err
}

// parsePattern reads an expression. The empty one matches everything; it is the
// caller's to know, and matches the empty value only here.
func parsePattern(expr string) (*automaton.Pattern, error) {
	if len(expr) > maxPattern {
		return nil, fmt.Errorf("the expression of %d bytes %w", len(expr), errPattern)
	}
	p, err := automaton.Parse(expr, maxInstructions)
	switch {
	case errors.Is(err, automaton.ErrSize):
		return nil, fmt.Errorf("the expression %.40q... %w", expr, errPattern)
	case err != nil:
		return nil, fmt.Errorf("%q is not an RE2 expression (%w); see https://github.com/google/re2/wiki/Syntax", expr, err)
	}
	return p, nil
}

// header is a compiled HeaderRule.
type header struct {
	name  []byte
	value []byte
	any   bool // of a rule that denies
}

var hostName = []byte("host")

// match looks at the header's values as one list joined with commas. Of a
// request's Host there is one, kept apart; it may stand among the headers too.
func (h *header) match(r *HTTPRequest) bool {
	if h.any {
		return h.matchAny(r)
	}
	if len(r.Host) > 0 && bytes.EqualFold(h.name, hostName) {
		return len(h.value) == 0 || bytes.Equal(h.value, r.Host)
	}
	found := false
	rest := h.value
	matches := true
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
