package automaton

import (
	"flag"
	"regexp"
	"slices"
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
