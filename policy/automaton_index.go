package policy

import (
	"fmt"

	"github.com/headgate/headgate/policy/automaton"
)

// httpIndex finds the first rule of a set that matches a request, without looking
// at each.
//
// The expressions of each field are one automaton, which tells those that match.
// What is left is to find the first rule that asks only for expressions among
// them. Each rule is listed under each of its expressions (rules without, under
// the empty one), under its three expressions together, and under one of its
// headers. Any of these lists has the rule sought if there is one, so the search
// takes those that are short for this request: tenants with a path each are found
// by path, tenants with a host each by host, services times paths by all three,
// tokens by header. The rules listed are then looked at in full.
type httpIndex struct {
	rules   []httpRule
	fields  [httpFields]fieldIndex
	triples map[[httpFields]uint32][]uint32 // rules with these expressions, in order
	headers headerIndex
	near    nearIndex
	deny    bool
}

// httpRule is an HTTPRule whose expressions are numbers.
type httpRule struct {
	want    [httpFields]uint32
	headers []header
	ref     Ref
}

func newHTTPIndex(rules []HTTPRule, deny bool) (*httpIndex, error) {
	x := &httpIndex{deny: deny, rules: make([]httpRule, 0, len(rules)), triples: make(map[[httpFields]uint32][]uint32)}
	x.near.best = make(map[[httpFields]uint32]uint32)
	for f := range x.fields {
		x.fields[f] = newFieldIndex()
	}
	for i := range rules {
		if err := x.add(&rules[i]); err != nil {
			return nil, fmt.Errorf("%s: %w", rules[i].Ref, err)
		}
	}
	for f := range httpFields {
		if err := x.fields[f].compile(); err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
	}
	return x, nil
}

func (x *httpIndex) add(rule *HTTPRule) error {
	id := uint32(len(x.rules))
	r := httpRule{ref: rule.Ref}
	for f := range httpFields {
		var err error
		if r.want[f], err = x.fields[f].add(f.in(rule), id); err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
	}
	for _, h := range rule.Headers {
		if h.Name == "" {
			return fmt.Errorf("headers: a header rule without a name")
		}
		r.headers = append(r.headers, header{name: []byte(h.Name), value: []byte(h.Value), any: x.deny})
	}
	x.rules = append(x.rules, r)
	x.headers.add(r.headers, id)
	x.addNear(id)
	// A rule that asks for no header hides all later ones of the same expressions.
	same := x.triples[r.want]
	if n := len(same); n == 0 || len(x.rules[same[n-1]].headers) > 0 {
		x.triples[r.want] = append(same, id)
	}
	return nil
}

// find tells which expressions match the request.
func (x *httpIndex) find(r *HTTPRequest) (found [httpFields]automaton.Matches) {
	for f := range httpFields {
		found[f] = x.fields[f].match(f.of(r))
	}
	return found
}

func (x *httpIndex) match(i uint32, r *HTTPRequest, found *[httpFields]automaton.Matches) bool {
	rule := &x.rules[i]
	for f := range found {
		if !has(&found[f], rule.want[f]) {
			return false
		}
	}
	for h := range rule.headers {
		if !rule.headers[h].match(r) {
			return false
		}
	}
	return true
}

// few rules are looked at rather than searched for a shorter list.
const few = 8

// first is the first rule that matches a request, or -1.
func (x *httpIndex) first(r *HTTPRequest, found *[httpFields]automaton.Matches) int {
	field, least := fieldMethod, len(x.rules)+1
	ways := 1
	for f := range httpFields {
		n := x.fields[f].listed(&found[f], least)
		if n == 0 {
			return -1
		}
		if n < least {
			field, least = f, n
		}
		ways *= 1 + len(found[f].Texts) + len(found[f].Others)
		ways = min(ways, len(x.rules)+1)
	}
	w := walk{index: x, request: r, found: found, best: len(x.rules)}
	if least > few && x.headers.used() {
		var room [8][]uint32
		lists := x.headers.lists(r, room[:0])
		if n := total(lists); n < least && n < ways {
			for _, list := range lists {
				w.look(list)
			}
			return w.result()
		}
	}
	if least > few && ways < least {
		w.triples()
	} else {
		w.field(field)
	}
	return w.result()
}

// listed is how many rules are listed under the expressions that match. Counting
// stops at a limit.
func (f *fieldIndex) listed(m *automaton.Matches, limit int) int {
	n := len(f.rules[0])
	for _, ids := range [...][]uint32{m.Texts, m.Others} {
		for _, id := range ids {
			if n >= limit {
				return n
			}
			n += len(f.rules[id])
		}
	}
	return n
}

func total(lists [][]uint32) (n int) {
	for _, list := range lists {
		n += len(list)
	}
	return n
}

// walk looks for the first rule in some lists.
type walk struct {
	index   *httpIndex
	request *HTTPRequest
	found   *[httpFields]automaton.Matches
	best    int
}

func (w *walk) result() int {
	if w.best == len(w.index.rules) {
		return -1
	}
	return w.best
}

func (w *walk) look(list []uint32) {
	for _, i := range list {
		if int(i) >= w.best {
			return
		}
		if w.index.match(i, w.request, w.found) {
			w.best = int(i)
			return
		}
	}
}

// field looks at all rules listed under one field.
func (w *walk) field(f httpField) {
	rules := w.index.fields[f].rules
	w.look(rules[0])
	for _, id := range w.found[f].Texts {
		w.look(rules[id])
	}
	for _, id := range w.found[f].Others {
		w.look(rules[id])
	}
}

// triples looks at the rules listed under each combination of expressions, but
// for expressions that only later rules have.
func (w *walk) triples() {
	m, p, h := &w.found[fieldMethod], &w.found[fieldPath], &w.found[fieldHost]
	for i := range choices(m) {
		method := choice(m, i)
		if w.late(fieldMethod, method) {
			continue
		}
		for j := range choices(p) {
			path := choice(p, j)
			if w.late(fieldPath, path) {
				continue
			}
			for k := range choices(h) {
				w.look(w.index.triples[[httpFields]uint32{method, path, choice(h, k)}])
			}
		}
	}
}

// late reports whether no rule before the best so far has an expression.
func (w *walk) late(f httpField, id uint32) bool {
	rules := w.index.fields[f].rules[id]
	return len(rules) == 0 || int(rules[0]) >= w.best
}

// choices of expressions that match, the empty one among them.
func choices(m *automaton.Matches) int { return 1 + len(m.Texts) + len(m.Others) }

func choice(m *automaton.Matches, i int) uint32 {
	switch n := len(m.Texts); {
	case i == 0:
		return 0
	case i <= n:
		return m.Texts[i-1]
	default:
		return m.Others[i-1-n]
	}
}
