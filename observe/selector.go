package observe

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// selector is a Kubernetes label selector whose keys may name the source of the
// label: "k8s:app=web, !reserved:host, tier in (a, b)". A key without a source is
// that label from any.
type selector []requirement

type requirement struct {
	source, key string
	values      []string // nil: the key alone counts
	negative    bool
}

// matches also takes labels without a source ("app=web").
func (s selector) matches(labels []string) bool {
	for _, r := range s {
		if slices.ContainsFunc(labels, r.has) == r.negative {
			return false
		}
	}
	return true
}

func (r requirement) has(label string) bool {
	key, value, _ := strings.Cut(label, "=")
	source, name, ok := strings.Cut(key, ":")
	if !ok {
		source, name = "", key
	}
	if name != r.key || (r.source != "any" && r.source != source) {
		return false
	}
	return r.values == nil || slices.Contains(r.values, value)
}

// parseSelector takes the empty selector for everything, as Kubernetes does.
func parseSelector(s string) (selector, error) {
	var sel selector
	p := selectorParser{rest: strings.TrimSpace(s)}
	for p.rest != "" {
		r, err := p.requirement()
		if err != nil {
			return nil, err
		}
		sel = append(sel, r)
		if p.space(); p.rest == "" {
			break
		}
		if !p.take(",") {
			return nil, fmt.Errorf("want a comma before %q", p.rest)
		}
		if p.space(); p.rest == "" {
			return nil, errors.New("nothing follows the last comma")
		}
	}
	return sel, nil
}

type selectorParser struct{ rest string }

func (p *selectorParser) space() { p.rest = strings.TrimLeft(p.rest, " \t") }

func (p *selectorParser) take(token string) bool {
	rest, ok := strings.CutPrefix(p.rest, token)
	if ok {
		p.rest = rest
	}
	return ok
}

func (p *selectorParser) word() string {
	p.space()
	end := strings.IndexAny(p.rest, " \t=!,()<>")
	if end < 0 {
		end = len(p.rest)
	}
	w := p.rest[:end]
	p.rest = p.rest[end:]
	return w
}

func (p *selectorParser) requirement() (requirement, error) {
	p.space()
	absent := p.take("!")
	r := requirement{source: "any", negative: absent}
	r.key = p.word()
	if source, key, ok := strings.Cut(r.key, ":"); ok {
		r.source, r.key = source, key
	}
	if r.key == "" || r.source == "" {
		return r, fmt.Errorf("want a label key before %q", p.rest)
	}
	if absent {
		return r, nil
	}
	err := p.operator(&r)
	return r, err
}

func (p *selectorParser) operator(r *requirement) error {
	p.space()
	switch {
	case p.rest == "", strings.HasPrefix(p.rest, ","):
		return nil
	case p.take("=="), p.take("="):
		r.values = []string{p.word()}
		return nil
	case p.take("!="):
		r.values, r.negative = []string{p.word()}, true
		return nil
	}
	switch op := p.word(); op {
	case "in":
		return p.set(r)
	case "notin":
		r.negative = true
		return p.set(r)
	default:
		return fmt.Errorf("want =, ==, !=, in or notin after %q, not %q", r.key, op+p.rest)
	}
}

func (p *selectorParser) set(r *requirement) error {
	p.space()
	if !p.take("(") {
		return errors.New("want a list in parentheses")
	}
	for {
		r.values = append(r.values, p.word())
		p.space()
		if p.take(")") {
			return nil
		}
		if !p.take(",") {
			return errors.New("want a comma or a closing parenthesis")
		}
	}
}
