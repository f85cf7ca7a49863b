package policy

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
)

// tenantRules are what a large installation has: a third plain paths, the others
// expressions, two methods.
func tenantRules(n int) []HTTPRule {
	rules := make([]HTTPRule, n)
	for i := range rules {
		r := HTTPRule{Method: "GET", Ref: Ref{"default/tenants", fmt.Sprint(i)}}
		switch i % 3 {
		case 0:
			r.Path = fmt.Sprintf("/static/tenant-%d/index.html", i)
		case 1:
			r.Path = fmt.Sprintf("/api/v[0-9]+/tenant-%d/.*", i)
			r.Method = "GET|POST"
		default:
			r.Path = fmt.Sprintf(`/files/tenant-%d/[a-z0-9-]+\.(json|ya?ml)(\?.*)?`, i)
		}
		rules[i] = r
	}
	return rules
}

// tenantRequest is one that rule i of tenantRules is the first to match.
func tenantRequest(i int) *HTTPRequest {
	switch i % 3 {
	case 0:
		return httpRequest("GET", fmt.Sprintf("/static/tenant-%d/index.html", i), "api.example.com")
	case 1:
		return httpRequest("POST", fmt.Sprintf("/api/v2/tenant-%d/users/17?x=1", i), "api.example.com")
	}
	return httpRequest("GET", fmt.Sprintf("/files/tenant-%d/report-7.json?x=1", i), "api.example.com")
}

// lastExpression is the last rule that is not a plain text.
func lastExpression(n int) int {
	if n > 1 && (n-1)%3 == 0 {
		return n - 2
	}
	return n - 1
}

var benchSizes = []int{1, 10, 100, 1000, 10_000}

// benchRules is tenantRules, but an expression if there is one rule only.
func benchRules(n int) []HTTPRule {
	if n == 1 {
		return tenantRules(2)[1:]
	}
	return tenantRules(n)
}

type httpCase struct {
	name    string
	request *HTTPRequest
	allowed bool
}

func benchCases(n int) []httpCase {
	last := httpCase{"last", tenantRequest(lastExpression(n)), true}
	first := httpCase{"first", tenantRequest(1), true}
	if n == 1 {
		last.request = first.request
	}
	return []httpCase{first, last, {"none", httpRequest("GET", "/api/v2/nobody/users/17?x=1", "api.example.com"), false}}
}

// BenchmarkDecide is one decision, of the Star Wars demo and among many rules.
func BenchmarkDecide(b *testing.B) {
	b.Run("starwars", func(b *testing.B) {
		j, r := starWars(b)
		benchDecide(b, j, true, r)
	})
	for _, n := range benchSizes {
		j := judgeOf(b, benchRules(n)...)
		for _, c := range benchCases(n) {
			b.Run(fmt.Sprintf("rules=%d/%s", n, c.name), func(b *testing.B) { benchDecide(b, j, c.allowed, c.request) })
		}
	}
}

func benchDecide(b *testing.B, j *L7Judge, allowed bool, requests ...*HTTPRequest) {
	b.ReportAllocs()
	for _, r := range requests { // what is learnt once is not measured
		j.Decide(r)
	}
	i := 0
	for b.Loop() {
		if (j.Decide(requests[i]).Verdict == Allow) != allowed {
			b.Fatal("wrong verdict")
		}
		if i++; i == len(requests) {
			i = 0
		}
	}
}

// BenchmarkDecideSpread is requests to all rules in turn: states do not stay in
// the processor's caches.
func BenchmarkDecideSpread(b *testing.B) {
	for _, n := range benchSizes[1:] {
		var requests []*HTTPRequest
		for i := range n {
			requests = append(requests, tenantRequest(i*7919%n))
		}
		j := judgeOf(b, tenantRules(n)...)
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) { benchDecide(b, j, true, requests...) })
	}
}

// BenchmarkDecideOther is other shapes of large sets: by host, by header, many
// services times many paths, and one where every rule matches.
func BenchmarkDecideOther(b *testing.B) {
	const n = 10_000
	for _, shape := range []struct {
		name    string
		rule    func(i int) HTTPRule
		request *HTTPRequest
	}{
		{"hosts", func(i int) HTTPRule { return HTTPRule{Path: "/.*", Host: fmt.Sprintf("t%d[.]example[.]com", i)} },
			httpRequest("GET", "/users", "t9999.example.com")},
		{"headers", func(i int) HTTPRule {
			return HTTPRule{Method: "GET", Path: "/.*", Headers: []HeaderRule{{"X-Tenant", fmt.Sprint(i)}}}
		}, httpRequest("GET", "/users", "example.com", "Accept", "*/*", "x-tenant", "9999")},
		{"grid", func(i int) HTTPRule {
			return HTTPRule{Method: "GET", Path: fmt.Sprintf("/api/p%d/.*", i%100), Host: fmt.Sprintf("s%d", i/100)}
		}, httpRequest("GET", "/api/p99/x", "s99")},
		{"all", func(i int) HTTPRule { return HTTPRule{Path: fmt.Sprintf("/.{0,%d}.*", i%500)} },
			httpRequest("GET", "/users", "")},
	} {
		b.Run(shape.name, func(b *testing.B) {
			rules := make([]HTTPRule, n)
			for i := range rules {
				rules[i] = shape.rule(i)
			}
			benchDecide(b, judgeOf(b, rules...), true, shape.request)
		})
	}
}

// BenchmarkDecideSimulated is expressions and values that make a state for each
// character, more than are kept; beside it, the same one by one.
func BenchmarkDecideSimulated(b *testing.B) {
	rules := make([]HTTPRule, 100)
	for i := range rules {
		rules[i].Path = fmt.Sprintf("/(a|b)*a(a|b){%d}c%d", 12+i%5, i)
	}
	m := rand.New(rand.NewPCG(1, 2))
	var requests []*HTTPRequest
	for range 1000 {
		path := []byte("/")
		for range 40 {
			path = append(path, "ab"[m.IntN(2)])
		}
		requests = append(requests, httpRequest("GET", string(path), ""))
	}
	b.Run("automaton", func(b *testing.B) { benchDecide(b, judgeOf(b, rules...), false, requests...) })
	b.Run("onebyone", func(b *testing.B) {
		plain, i := newPlainHTTP(b, rules), 0
		for b.Loop() {
			if plain.first(requests[i%len(requests)]) >= 0 {
				b.Fatal("wrong verdict")
			}
			i++
		}
	})
}

// BenchmarkDecideOneByOne is what a decision cost without the automaton.
func BenchmarkDecideOneByOne(b *testing.B) {
	for _, n := range benchSizes {
		plain := newPlainHTTP(b, benchRules(n))
		for _, c := range benchCases(n) {
			b.Run(fmt.Sprintf("rules=%d/%s", n, c.name), func(b *testing.B) {
				for b.Loop() {
					if (plain.first(c.request) >= 0) != c.allowed {
						b.Fatal("wrong verdict")
					}
				}
			})
		}
	}
}

// BenchmarkDecideCompile is making a judge: time, what it allocates, what it
// keeps, and what it keeps when every rule was asked.
func BenchmarkDecideCompile(b *testing.B) {
	for _, n := range benchSizes[2:] {
		b.Run(fmt.Sprintf("rules=%d", n), func(b *testing.B) {
			rules := tenantRules(n)
			b.ReportAllocs()
			for b.Loop() {
				judgeOf(b, rules...)
			}
			b.StopTimer()
			before := heap()
			j := judgeOf(b, rules...)
			kept := heap()
			for i := range n {
				j.Decide(tenantRequest(i))
			}
			b.ReportMetric(float64(kept-before), "B-kept")
			b.ReportMetric(float64(heap()-before), "B-learnt")
			runtime.KeepAlive(j)
		})
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
