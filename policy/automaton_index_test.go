package policy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
)

// plainHTTP judges one rule after the other with package regexp: what the index
// must agree with, and is measured against.
type plainHTTP struct {
	rules []HTTPRule
	parts [][httpFields]*regexp.Regexp // nil: everything
}

func newPlainHTTP(t testing.TB, rules []HTTPRule) *plainHTTP {
	t.Helper()
	p := &plainHTTP{rules: rules}
	for i := range rules {
		var parts [httpFields]*regexp.Regexp
		for f := range httpFields {
			if expr := f.in(&rules[i]); expr != "" {
				re, err := regexp.Compile(`\A(?:` + expr + `)\z`)
				if err != nil {
					t.Fatal(err)
				}
				parts[f] = re
			}
		}
		p.parts = append(p.parts, parts)
	}
	return p
}

func (p *plainHTTP) first(r *HTTPRequest) int {
	for i := range p.rules {
		if _, not := p.count(i, r, true); not == 0 {
			return i
		}
	}
	return -1
}

func (p *plainHTTP) count(i int, r *HTTPRequest, stop bool) (met, not int) {
	for f, re := range p.parts[i] {
		switch {
		case re == nil:
		case re.Match(httpField(f).of(r)):
			met++
		default:
			not++
		}
		if stop && not > 0 {
			return met, not
		}
	}
	for _, h := range p.rules[i].Headers {
		if plainHeader(h, r) {
			met++
		} else {
			not++
		}
	}
	return met, not
}

// searchedWhole reports whether the search for the nearest rule looks at every rule that
// has headers: it is bounded.
func searchedWhole(rules []HTTPRule) bool {
	work := 0
	for _, r := range rules {
		if len(r.Headers) > 0 {
			work += 1 + len(r.Headers)
		}
	}
	return work <= nearestWork
}

func plainHeader(h HeaderRule, r *HTTPRequest) bool {
	if len(r.Host) > 0 && strings.EqualFold(h.Name, "host") {
		return h.Value == "" || h.Value == string(r.Host)
	}
	var values []string
	for _, have := range r.Headers {
		if strings.EqualFold(string(have.Name), h.Name) {
			values = append(values, string(have.Value))
		}
	}
	return len(values) > 0 && (h.Value == "" || h.Value == strings.Join(values, ","))
}

func (p *plainHTTP) nearest(r *HTTPRequest) int {
	best, bestMet, bestNot := -1, 0, 0
	for i := range p.rules {
		met, not := p.count(i, r, false)
		if best < 0 || met > bestMet || met == bestMet && not < bestNot {
			best, bestMet, bestNot = i, met, not
		}
	}
	return best
}

// httpMaker makes rules and requests of a small world, so that they meet.
type httpMaker struct{ *rand.Rand }

func (m httpMaker) pick(of ...string) string { return of[m.IntN(len(of))] }

func (m httpMaker) rules(n, spread int) []HTTPRule {
	rules := make([]HTTPRule, n)
	for i := range rules {
		k := m.IntN(spread)
		r := HTTPRule{
			Method: m.pick("", "GET", "POST", "GET|HEAD", "(?i)put", "P.*", "GET"),
			Path:   m.pick("", "/public", fmt.Sprint("/t", k), fmt.Sprintf("/t%d/.*", k), fmt.Sprintf("/v[0-9]+/t%d", k), ".*", "/t1.?", `/\bt.*\b`, "/x$"),
			Host:   m.pick("", "", "a.example", fmt.Sprintf("h%d[.]example", k), ".*[.]example", "(?i)A.EXAMPLE"),
			Ref:    Ref{"p", fmt.Sprint(i)},
		}
		for range m.IntN(3) * m.IntN(2) {
			r.Headers = append(r.Headers, HeaderRule{m.pick("X", "x", "Y-Token", "Host", "\u212aey"), m.pick("", "1", "1,2", fmt.Sprint(k), "a.example")})
		}
		rules[i] = r
	}
	return rules
}

func (m httpMaker) request(spread int) *HTTPRequest {
	k := m.IntN(spread)
	r := httpRequest(m.pick("GET", "POST", "HEAD", "put", "PATCH", "DELETE"),
		m.pick("/public", fmt.Sprint("/t", k), fmt.Sprintf("/t%d/x", k), fmt.Sprintf("/v%d/t%d", k, k), "/x", "/\xff", "/t1\n"),
		m.pick("", "a.example", fmt.Sprintf("h%d.example", k), "other"))
	for range m.IntN(4) {
		r.Headers = append(r.Headers, HTTPHeader{[]byte(m.pick("X", "x", "y-token", "host", "Key", "KEY", "Z")), []byte(m.pick("", "1", "2", "1,2", fmt.Sprint(k), "a.example"))})
	}
	return r
}

// TestDecideAgreesWithOneByOne: the rule named, and for small sets the nearest.
func TestDecideAgreesWithOneByOne(t *testing.T) {
	m := httpMaker{newRand(t)}
	allowed, total := 0, 0
	for _, size := range []int{1, 2, 5, 20, 100, 600} {
		for range 12 {
			spread := 1 + m.IntN(2*size)
			rules := m.rules(size, spread)
			plain, judge := newPlainHTTP(t, rules), judgeOf(t, rules...)
			exactly := searchedWhole(rules)
			var wg sync.WaitGroup
			for range 100 {
				r := m.request(spread)
				want := plain.first(r)
				total++
				if want >= 0 {
					allowed++
				}
				wg.Go(func() {
					got := judge.Decide(r)
					switch {
					case want >= 0 && (got.Verdict != Allow || got.Rule != rules[want].Ref):
						t.Errorf("%q: %+v, want %+v", r, got, rules[want])
					case want < 0 && (got.Verdict != Deny || got.Nearest == (Ref{})):
						t.Errorf("%q: %+v, want a denial with the nearest rule", r, got)
					case want < 0 && exactly && got.Nearest != rules[plain.nearest(r)].Ref:
						t.Errorf("%q: %+v, want nearest %+v", r, got, rules[plain.nearest(r)])
					}
				})
			}
			wg.Wait()
		}
	}
	if allowed < total/10 || allowed > total*9/10 {
		t.Errorf("%d of %d allowed: the comparison says little", allowed, total)
	}
}

// TestEachWayToSearch: every list of the index leads to the same rule.
func TestEachWayToSearch(t *testing.T) {
	m := httpMaker{rand.New(rand.NewPCG(1, 2))}
	rules := m.rules(300, 30)
	x, plain := judgeOf(t, rules...).http, newPlainHTTP(t, rules)
	for range 500 {
		r := m.request(30)
		want := plain.first(r)
		found := x.find(r)
		ways := map[string]func(w *walk){
			"method": func(w *walk) { w.field(fieldMethod) }, "path": func(w *walk) { w.field(fieldPath) },
			"host": func(w *walk) { w.field(fieldHost) }, "triples": (*walk).triples,
			"headers": func(w *walk) {
				for _, list := range x.headers.lists(r, nil) {
					w.look(list)
				}
			},
		}
		for name, way := range ways {
			w := walk{index: x, request: r, found: &found, best: len(rules)}
			if way(&w); w.result() != want {
				t.Fatalf("%s: %q: rule %d, want %d", name, r, w.result(), want)
			}
		}
	}
}

// TestManyHeaders: of many rules, the one whose header has the whole value.
func TestManyHeaders(t *testing.T) {
	var rules []HTTPRule
	for i := range 100 {
		rules = append(rules, HTTPRule{Path: "/.*", Headers: []HeaderRule{{"X", fmt.Sprint(i)}}, Ref: Ref{"p", fmt.Sprint(i)}})
	}
	for _, h := range []HeaderRule{{"x", "1,2"}, {"Host", "a"}, {"host", "a,b"}, {"Y", ""}, {"\u212aey", "k"}} {
		rules = append(rules, HTTPRule{Path: "/.*", Headers: []HeaderRule{h}, Ref: Ref{"p", h.Name + h.Value}})
	}
	j := judgeOf(t, rules...)
	for want, r := range map[string]*HTTPRequest{
		"77": httpRequest("GET", "/", "", "x", "77"), "x1,2": httpRequest("GET", "/", "", "X", "1", "Z", "", "x", "2"),
		"Hosta": httpRequest("GET", "/", "a", "HOST", "a"), "hosta,b": httpRequest("GET", "/", "", "HOST", "a", "Host", "b"),
		"Y": httpRequest("GET", "/", "", "y", strings.Repeat("v", 500)), "\u212aeyk": httpRequest("GET", "/", "", "KEY", "k"),
		"": httpRequest("GET", "/", "b", "X", "1", "X", "1"),
	} {
		if d := j.Decide(r); d.Rule.Path != want {
			t.Errorf("%q: %+v, want %q", r, d, want)
		}
	}
}

func TestFoldNameIsEqualFold(t *testing.T) {
	names := []string{"X", "x", "Host", "hOST", "\u212aey", "key", "ſ", "s", "\xff", "\ufffd", "é", "É", "", "a\xff"}
	for _, a := range names {
		for _, b := range names {
			same := bytes.Equal(foldName(nil, []byte(a)), foldName(nil, []byte(b)))
			if same != bytes.EqualFold([]byte(a), []byte(b)) {
				t.Errorf("%q and %q", a, b)
			}
		}
	}
}

// TestDenialIsBounded: a request that no rule of many allows costs a limited
// search, and still names a rule of its own path.
func TestDenialIsBounded(t *testing.T) {
	rules := tenantRules(10_000)
	for _, headed := range []bool{false, true} {
		for i := range rules {
			if headed {
				rules[i].Headers = []HeaderRule{{"X", "1"}, {"Y", "1"}}
			}
		}
		j := judgeOf(t, rules...)
		r := httpRequest("DELETE", "/api/v1/tenant-9001/x", "", "X", "1")
		if d := j.Decide(r); d.Verdict != Deny || d.Nearest.Path != "9001" || !strings.HasPrefix(d.Reason, "method DELETE ") {
			t.Errorf("%+v", d)
		}
		if n := len(j.http.near.best); n > 4*len(rules) {
			t.Errorf("%d choices of %d rules", n, len(rules))
		}
	}
}

func TestSetTooLarge(t *testing.T) {
	var rules []HTTPRule
	for i := range 400 {
		rules = append(rules, HTTPRule{Path: fmt.Sprintf("%d(?:[a-z]{2}x){900}", i)})
	}
	j, err := CompileL7(&L7Set{Protocol: ProtocolHTTP, HTTP: rules})
	if err == nil || j != nil || !strings.Contains(err.Error(), "path: ") {
		t.Errorf("%v", err)
	}
}

func TestContains(t *testing.T) {
	var ids []uint32
	for n := range uint32(40) {
		for id := range uint32(90) {
			if contains(ids, id) != slices.Contains(ids, id) {
				t.Fatalf("%d in %v", id, ids)
			}
		}
		ids = append(ids, 2*n+1)
	}
}
