package automaton

import (
	"math/rand/v2"
	"regexp/syntax"
	"strings"
	"unicode/utf8"
)

// maker makes random expressions and values that they are likely to match.
type maker struct{ *rand.Rand }

func newMaker(seed uint64) maker { return maker{rand.New(rand.NewPCG(seed, 0))} }

func (m maker) pick(of ...string) string { return of[m.IntN(len(of))] }

// atom is the smallest expression.
func (m maker) atom() string {
	switch m.IntN(20) {
	case 0, 1, 2, 3, 4, 5:
		return m.pick("a", "b", "c", "A", "/", "1", "_", "-", " ", "k", "s", "é", "世", "\u212a", "ſ", "\ufffd", `\.`, `\n`, `\x00`, `\x{10FFFF}`)
	case 6, 7:
		return m.pick("ab", "abc", "/a", "aB1", "api/v", `\Qa.b\E`, "世界", "ks")
	case 8, 9:
		return "."
	case 10:
		return m.pick("[a-c]", "[^a]", "[^/]", "[0-9]", "[a-z_]", `[^\n]`, `[\x00-\x{10FFFF}]`, `[^\x00-\x{10FFFF}]`, "[α-ω]", "[^é]", "[k-s]", "[ab-]", "[[:alpha:]]", "[[:^space:]]", `[\d_]`, "[\ufffd]", "[^\ufffd]", "[\u212a]", "[c]")
	case 11:
		return m.pick(`\d`, `\D`, `\w`, `\W`, `\s`, `\S`, `\pL`, `\PL`, `\p{Greek}`, `\p{Lu}`, `\pN`)
	case 12:
		return m.pick("^", "$", `\A`, `\z`, `\b`, `\B`, "(?m:^)", "(?m:$)", "(?s:.)", "(?i:k)", "(?i:s)", "(?i:é)")
	case 13:
		return m.pick("", "()", "(?:)", "(|a)", "(a|)")
	case 14:
		return m.pick("(a|aa)+", "(x+x+)+y", ".*.*=", "(a*)*", "(a?){3}", "(?:a|b|ab)*", `(\b|a)*`, `(^|a)+`, `(\B$|b)*`, "(a*?)+?")
	}
	return m.pick("a", "b", "/", "x", "1")
}

// expr is an expression of some depth. It need not be one that compiles.
func (m maker) expr(depth int) string {
	if depth <= 0 {
		return m.atom()
	}
	sub := func() string { return m.expr(depth - 1 - m.IntN(2)) }
	switch m.IntN(12) {
	case 0, 1, 2, 3:
		return sub() + sub()
	case 4:
		return sub() + sub() + sub()
	case 5, 6:
		return "(" + m.pick("", "?:", "?i:", "?s:", "?m:", "?U:", "?is:", "?-i:", "?P<n>") + sub() + "|" + sub() + ")"
	case 7:
		return "(?:" + sub() + ")" + m.pick("*", "+", "?", "*?", "+?", "??")
	case 8:
		return "(?:" + sub() + ")" + m.pick("{2}", "{0}", "{0,1}", "{1,3}", "{2,}", "{0,}", "{3}?", "{1,2}?")
	case 9:
		return sub() + "|" + sub()
	case 10:
		return m.pick("(?i)", "(?m)", "(?s)", "(?U)", "^", "") + sub() + m.pick("", "$", `\b`, `\z`)
	}
	return m.atom() + sub()
}

// like makes a value that the expression matches, assertions aside.
func (m maker) like(expr string) []byte {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		panic(err)
	}
	var to []byte
	to = m.value(to, tree)
	return to
}

func (m maker) value(to []byte, re *syntax.Regexp) []byte {
	times := func(least, most int) {
		for range least + m.IntN(most-least+1) {
			if len(to) < 60 {
				to = m.value(to, re.Sub[0])
			}
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			to = m.char(to, r)
		}
	case syntax.OpCharClass:
		if n := len(re.Rune) / 2; n > 0 {
			i := 2 * m.IntN(n)
			to = m.char(to, re.Rune[i]+m.Int32N(min(re.Rune[i+1]-re.Rune[i], 70)+1))
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		to = append(to, m.pick("a", "b", "/", "=", "\n", "é", "\xff", "1", " ")...)
	case syntax.OpCapture, syntax.OpConcat:
		for _, sub := range re.Sub {
			to = m.value(to, sub)
		}
	case syntax.OpAlternate:
		to = m.value(to, re.Sub[m.IntN(len(re.Sub))])
	case syntax.OpStar:
		times(0, 3)
	case syntax.OpPlus:
		times(1, 3)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		times(re.Min, max(re.Max, re.Min+1))
	}
	return to
}

// char writes a character; invalid bytes now and then where U+FFFD would do, and
// another case.
func (m maker) char(to []byte, r rune) []byte {
	switch m.IntN(10) {
	case 0:
		return append(to, strings.ToUpper(string(r))...)
	case 1:
		return append(to, strings.ToLower(string(r))...)
	}
	if r == utf8.RuneError && m.IntN(2) == 0 {
		return append(to, m.pick("\xff", "\xc3", "\xe4\xb8", "\xed\xa0\x80")...)
	}
	return utf8.AppendRune(to, r)
}

// spoil changes a value a little.
func (m maker) spoil(value []byte) []byte {
	out := append([]byte(nil), value...)
	for range 1 + m.IntN(2) {
		at := m.IntN(len(out) + 1)
		junk := m.pick("a", "b", "A", "/", "\n", "\xff", "\xe4\xb8", "é", "_", "1", "x", "\x80", "\xf4\x90\x80\x80")
		switch m.IntN(3) {
		case 0:
			out = append(out[:at:at], append([]byte(junk), out[at:]...)...)
		case 1:
			out = out[:at]
		default:
			if at < len(out) {
				out = append(out[:at:at], out[at+1:]...)
			}
		}
	}
	return out
}
