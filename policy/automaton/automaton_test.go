package automaton

import (
	"errors"
	"flag"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "repeat the random comparisons of this seed")
	pairsFlag = flag.Int("pairs", 400_000, "comparisons of an expression and a value")
)

const (
	roomy = 1 << 20
	tight = 6000 // a few states
	none  = 1    // only what cannot be done without
)

func compile(t testing.TB, stateBytes int, exprs ...string) *Set {
	t.Helper()
	var patterns []*Pattern
	for _, expr := range exprs {
		p, err := Parse(expr, 20000)
		if err != nil {
			t.Fatalf("%q: %v", expr, err)
		}
		patterns = append(patterns, p)
	}
	s, err := Compile(patterns, Limits{Instructions: 1 << 20, StateBytes: stateBytes})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func oracle(expr string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(expr); err != nil {
		return nil, err
	}
	return regexp.Compile(`\A(?:` + expr + `)\z`)
}

func (m Matches) has(id uint32) bool {
	return slices.Contains(m.Texts, id) || slices.Contains(m.Others, id)
}

// batch is some expressions and values.
type batch struct {
	exprs   []string
	oracles []*regexp.Regexp
	values  [][]byte
}

func (m maker) batch(t testing.TB) batch {
	var b batch
	for n := 1 + m.IntN(8); len(b.exprs) < n; {
		expr := m.expr(1 + m.IntN(4))
		re, err := oracle(expr)
		if _, mine := Parse(expr, 20000); (err == nil) != (mine == nil) {
			t.Fatalf("%q: regexp says %v, Parse says %v", expr, err, mine)
		}
		if err == nil {
			b.exprs, b.oracles = append(b.exprs, expr), append(b.oracles, re)
		}
	}
	b.values = append(b.values, nil)
	for _, expr := range b.exprs {
		for range 3 {
			v := m.like(expr)
			b.values = append(b.values, v, m.spoil(v))
		}
	}
	return b
}

// check compares all answers, and returns how many and how many were matches.
func (b *batch) check(t testing.TB, s *Set) (pairs, matches int) {
	t.Helper()
	for _, v := range b.values {
		got := s.Match(v)
		if !slices.IsSorted(got.Texts) || !slices.IsSorted(got.Others) {
			t.Fatalf("not in order: %v", got)
		}
		for id, re := range b.oracles {
			want := re.Match(v)
			if got.has(uint32(id)) != want {
				t.Fatalf("%q among %q and value %q: regexp says %v", b.exprs[id], b.exprs, v, want)
			}
			pairs++
			if want {
				matches++
			}
		}
	}
	return pairs, matches
}

// TestAgreesWithRegexp: with states for all, for a few, and for none.
func TestAgreesWithRegexp(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed %d", seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with: go test ./policy/automaton -run TestAgreesWithRegexp -seed %d -pairs %d", seed, *pairsFlag)
		}
	})
	m := newMaker(seed)
	pairs, matches, resets := 0, 0, int64(0)
	for pairs < *pairsFlag {
		b := m.batch(t)
		for _, bytes := range []int{roomy, tight, none} {
			s := compile(t, bytes, b.exprs...)
			for range 2 { // cold, then warm
				p, n := b.check(t, s)
				pairs, matches = pairs+p, matches+n
			}
			resets += s.Stats().Resets
		}
	}
	t.Logf("%d comparisons, %d matches, %d resets", pairs, matches, resets)
	if matches < pairs/10 || resets == 0 {
		t.Errorf("%d comparisons, of which only %d match; %d resets", pairs, matches, resets)
	}
}

// TestFromManyGoroutines is for the race detector: states are built, given up and
// read at once.
func TestFromManyGoroutines(t *testing.T) {
	m := newMaker(7)
	for range 40 {
		b := m.batch(t)
		for _, bytes := range []int{roomy, tight, none} {
			s := compile(t, bytes, b.exprs...)
			var wg sync.WaitGroup
			for range 4 {
				wg.Go(func() {
					for range 3 {
						for _, v := range b.values {
							got := s.Match(v)
							for id, re := range b.oracles {
								if got.has(uint32(id)) != re.Match(v) {
									t.Errorf("%q and %q: %v", b.exprs[id], v, got)
								}
							}
						}
					}
				})
			}
			wg.Wait()
		}
	}
}

func TestKnownAnswers(t *testing.T) {
	for _, tt := range []struct {
		expr, value string
		want        bool
	}{
		{`\bfoo\b`, "foo", true},
		{`foo\b.bar`, "foo bar", true},
		{`foo\B.bar`, "foo bar", false},
		{`foo\B.bar`, "fooxbar", true},
		{"(?m)a$\n^b", "a\nb", true},
		{"a$\n^b", "a\nb", false},
		{`.*\z.*`, "abc", true},
		{`a\zb`, "ab", false},
		{`.`, "\xff", true},
		{`..`, "\xe4\xb8", true},
		{`.`, "\xe4\xb8", false},
		{"\ufffd", "\xff", true},
		{"a\ufffd", "a\xff", true},
		{`[^a]`, "世", true},
		{`(?i)k`, "\u212a", true},
		{`(?i)/ABC`, "/abc", true},
		{`/x$`, "/x", true},
		{`/x$`, "/x\n", false},
		{`\x{D800}`, "\ufffd", false}, // as doc.go says
		{``, "", true},
		{``, "a", false},
		{`\B`, "", true},
		{`\b`, "", false},
		{`(?s).(?m:^).`, "ab", false},
		{`(?s).(?m:^).`, "\nb", true},
	} {
		for _, bytes := range []int{roomy, none} {
			if got := compile(t, bytes, tt.expr).Match([]byte(tt.value)).has(0); got != tt.want {
				t.Errorf("%q and %q: %v", tt.expr, tt.value, got)
			}
		}
	}
}

// TestSharedParts: what looks alike is not the same.
func TestSharedParts(t *testing.T) {
	s := compile(t, roomy, "(?:AB)*x", "(?i)(?:AB)*x", "(?:AB)+x", "(?:AB)*?x", "A(?i)B.*", "AB.*", "(?s)AB.*", "(?:ABAB|x)x", "AB.*|ABABx")
	for value, want := range map[string][]uint32{
		"ABABx": {0, 1, 2, 3, 4, 5, 6, 7, 8}, "ababx": {1}, "x": {0, 1, 3}, "Ab\n": nil, "AB\n": {6}, "Ab": {4}, "xx": {7},
	} {
		m := s.Match([]byte(value))
		got := slices.Sorted(slices.Values(append(slices.Clone(m.Texts), m.Others...)))
		if !slices.Equal(slices.Compact(got), want) {
			t.Errorf("%q: %v, want %v", value, got, want)
		}
	}
}

func TestLiteral(t *testing.T) {
	for expr, want := range map[string]string{
		"abc": "abc", `a\.b`: "a.b", `\Qa.b\E`: "a.b", "^abc$": "abc", "(abc)": "abc", "(?i)/1": "/1", "()": "",
		"a.c": "-", "(?i)a": "-", "a|b": "-", "\ufffd": "-", `\x{D800}`: "-", `\babc`: "-", "a?": "-",
	} {
		p, err := Parse(expr, 100)
		if err != nil {
			t.Fatal(err)
		}
		text, ok := p.Literal()
		if !ok {
			text = "-"
		}
		if text != want {
			t.Errorf("%q is the text %q, want %q", expr, text, want)
		}
	}
}

func TestLimits(t *testing.T) {
	for _, expr := range []string{strings.Repeat("a.", 60), "(?:a.){60}", "(?:(?:a|b|c){5}){30}", "a{1000}"} {
		if _, err := Parse(expr, 100); !errors.Is(err, ErrSize) {
			t.Errorf("%q: %v", expr, err)
		}
	}
	p, err := Parse("a.c(d|ef)*", 100)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Compile([]*Pattern{p}, Limits{Instructions: 8}); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
}

// TestStatesAreBounded: values that make a state each do not fill memory.
func TestStatesAreBounded(t *testing.T) {
	const most = 200_000
	s := compile(t, most, "(a|b)*a(a|b){14}", "(a|b)*b(a|b){13}c")
	re, _ := oracle("(a|b)*a(a|b){14}")
	m := newMaker(3)
	for range 2000 {
		v := make([]byte, 40)
		for i := range v {
			v[i] = "ab"[m.IntN(2)]
		}
		if s.Match(v).has(0) != re.Match(v) {
			t.Fatalf("%s", v)
		}
		if got := s.Stats(); got.StateBytes > most {
			t.Fatalf("%+v", got)
		}
	}
	if got := s.Stats(); got.Resets == 0 {
		t.Errorf("the states are never full: %+v", got)
	}
}

// TestLinear: ten times the value takes about ten times as long, for expressions
// that make backtracking engines take for ever.
func TestLinear(t *testing.T) {
	exprs := []string{"(a|aa)+$", "(x+x+)+y", ".*.*.*=.*", "(.*a){20}", "((a?){30})a{30}", "(a*)*b", "(?:a{0,100}){0,10}c", "(.*)*=(.*)*"}
	for _, char := range []string{"a", "x", "=", "é"} {
		for _, bytes := range []int{roomy, none} {
			s := compile(t, bytes, exprs...)
			took := func(n int) time.Duration {
				v := []byte(strings.Repeat(char, n) + "!")
				best := time.Hour
				for range 3 {
					start := time.Now()
					s.Match(v)
					best = min(best, time.Since(start))
				}
				return best
			}
			short, long := took(500), took(5000)
			if long > 50*short+5*time.Millisecond {
				t.Errorf("%s, %d bytes of states: %v, then %v", char, bytes, short, long)
			}
		}
	}
}

func TestWarmMatchDoesNotAllocate(t *testing.T) {
	s := compile(t, roomy, "GET", `/api/v[0-9]+/.*`, `.*\b世.*`)
	for _, v := range []string{"GET", "/api/v12/users", "/ 世界", "nothing"} {
		value := []byte(v)
		if n := testing.AllocsPerRun(100, func() { s.Match(value) }); n != 0 {
			t.Errorf("%s: %v allocations", v, n)
		}
	}
}

// FuzzMatch: any expressions, one a line, and any value.
func FuzzMatch(f *testing.F) {
	for _, seed := range [][2]string{
		{"GET|HEAD\n(?i)get", "GET"}, {`/api/v[0-9]+/.*` + "\n/api/.*", "/api/v1/x"}, {"(a|aa)+$\n(x+x+)+y", "aaaa"},
		{`\bfoo\b.*` + "\n" + `.*\Bx`, "foo x"}, {"(?m)^a$\n(?s).*\n[^a]*", "a\nb"}, {"\\pL+\n.{2}\n\ufffd", "é\xff"},
		{`(?i)k+s`, "\u212aſ"}, {"a{2,5}b{0,3}?\n(?:a{0,3}){2}", "aaab"},
	} {
		f.Add(seed[0], []byte(seed[1]))
	}
	f.Fuzz(func(t *testing.T, lines string, value []byte) {
		if len(lines) > 400 || len(value) > 200 || strings.Contains(lines, `\x{`) || strings.Contains(lines, `\Q`) {
			return
		}
		b := batch{values: [][]byte{value}}
		for expr := range strings.SplitSeq(lines, "\n") {
			re, err := oracle(expr)
			p, mine := Parse(expr, 2000)
			if errors.Is(mine, ErrSize) {
				continue
			}
			if (err == nil) != (mine == nil) {
				t.Fatalf("%q: regexp says %v, Parse says %v", expr, err, mine)
			}
			if p != nil {
				b.exprs, b.oracles = append(b.exprs, expr), append(b.oracles, re)
			}
		}
		for _, bytes := range []int{roomy, none} {
			b.check(t, compile(t, bytes, b.exprs...))
		}
	})
}
