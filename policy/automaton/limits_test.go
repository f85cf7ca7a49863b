package automaton

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

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
			for range 20 { // on a busy machine the clock goes on while we do not
				if long <= 50*short+5*time.Millisecond {
					break
				}
				short, long = min(short, took(500)), min(long, took(5000))
			}
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

// surrogate is the one known difference.
var surrogate = regexp.MustCompile(`(?i)\\x\{0*d[89a-f]`)

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
		if len(lines) > 400 || len(value) > 200 || surrogate.MatchString(lines) {
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
