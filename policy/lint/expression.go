package lint

import (
	"regexp"
	"regexp/syntax"
	"strings"

	"github.com/headgate/headgate/policy"
)

// l7 looks at the requests that one port allows.
func (l *linter) l7(rules *policy.L7Rules) {
	for i := range rules.HTTP {
		l.http(&rules.HTTP[i])
		for j := range rules.HTTP {
			if i != j && wider(&rules.HTTP[j], &rules.HTTP[i]) && (j < i || !wider(&rules.HTTP[i], &rules.HTTP[j])) {
				l.warn(rules.HTTP[i].Ref.Path, "adds nothing, as %s matches all that it matches; delete one of them", rules.HTTP[j].Ref.Path)
				break
			}
		}
	}
	for _, r := range rules.DNS {
		l.namePattern(r.Ref.Path, r.Pattern)
	}
	for _, r := range rules.TLS {
		l.namePattern(r.Ref.Path, r.ServerName)
	}
}

// wider reports whether a matches every request that b matches, as far as that
// is seen without understanding expressions.
func wider(a, b *policy.HTTPRule) bool {
	if len(a.Edits)+len(a.Secrets)+len(b.Edits)+len(b.Secrets) > 0 {
		return false
	}
	for _, pair := range [][2]string{{a.Method, b.Method}, {a.Path, b.Path}, {a.Host, b.Host}} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	for _, want := range a.Headers {
		found := false
		for _, h := range b.Headers {
			found = found || strings.EqualFold(h.Name, want.Name) && (want.Value == "" || want.Value == h.Value)
		}
		if !found {
			return false
		}
	}
	return true
}

// http looks at the expressions of a rule.
func (l *linter) http(r *policy.HTTPRule) {
	at := r.Ref.Path
	if text, ok := literal(r.Host); ok && strings.Contains(text, "/") || strings.Contains(r.Host, "://") {
		l.warn(at+".host", "%q can match nothing, as a host has no scheme and no path; write the name alone", r.Host)
	} else if better := escapeDots(r.Host); better != r.Host {
		l.warn(at+".host", "%q has a dot that stands for any character; write %s", r.Host, better)
	}
	l.path(r)
}

func (l *linter) path(r *policy.HTTPRule) {
	if r.Path == "" {
		return
	}
	if text, ok := literal(r.Path); ok {
		for _, never := range []string{"//", "/./", "/../", "#", "%2f", "%2F", "%5c", "%5C", `\`} {
			if strings.Contains(text, never) {
				l.warn(r.Ref.Path+".path", "%q can match nothing, as no path has %s once it is in normal form; write it without", r.Path, never)
				return
			}
		}
	}
	if r.Method != "" && !matches(r.Method, "GET") && !matches(r.Method, "HEAD") {
		return // queries are rare there
	}
	tree, err := syntax.Parse(r.Path, syntax.Perl)
	if err == nil && !admits(tree, '?') {
		l.warn(r.Ref.Path+".path", `%q does not match a path with a query, as it must match all of both; write %s(\?.*)? to allow one`, r.Path, grouped(r.Path))
	}
}

// grouped is an expression that something may follow.
func grouped(expr string) string {
	expr = strings.TrimSuffix(strings.TrimPrefix(expr, "^"), "$")
	if strings.Contains(expr, "|") {
		return "(" + expr + ")"
	}
	return expr
}

// literal returns the one text that an expression matches, if there is one.
func literal(expr string) (string, bool) {
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil || expr == "" {
		return "", false
	}
	subs := []*syntax.Regexp{tree}
	if tree.Op == syntax.OpConcat {
		subs = tree.Sub
	}
	var text strings.Builder
	for _, s := range subs {
		switch {
		case s.Op == syntax.OpBeginText || s.Op == syntax.OpEndText:
		case s.Op == syntax.OpLiteral && s.Flags&syntax.FoldCase == 0:
			text.WriteString(string(s.Rune))
		default:
			return "", false
		}
	}
	return text.String(), true
}

// admits reports whether some text that the expression matches has the
// character in it.
func admits(re *syntax.Regexp, want rune) bool {
	switch re.Op {
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return true
	case syntax.OpLiteral:
		return strings.ContainsRune(string(re.Rune), want)
	case syntax.OpCharClass:
		for i := 0; i+1 < len(re.Rune); i += 2 {
			if re.Rune[i] <= want && want <= re.Rune[i+1] {
				return true
			}
		}
		return false
	}
	for _, s := range re.Sub {
		if admits(s, want) {
			return true
		}
	}
	return false
}

func matches(expr, text string) bool {
	re, err := regexp.Compile(`^(?:` + expr + `)$`)
	return expr == "" || err == nil && re.MatchString(text)
}

// escapeDots escapes the dots of an expression of hosts that plainly stand
// between two labels: with a letter or digit before and behind, or behind an
// expression that ends in ')', ']', '*' or '+', and without a quantifier.
func escapeDots(expr string) string {
	var out strings.Builder
	class := false
	for i := 0; i < len(expr); i++ {
		c := expr[i]
		switch {
		case c == '\\' && i+1 < len(expr):
			out.WriteString(expr[i : i+2])
			i++
			continue
		case c == '[':
			class = true
		case c == ']':
			class = false
		case c == '.' && !class && i > 0 && i+1 < len(expr) && isWord(expr[i+1]) && (isWord(expr[i-1]) || strings.IndexByte(")]*+", expr[i-1]) >= 0):
			out.WriteByte('\\')
		}
		out.WriteByte(c)
	}
	return out.String()
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_'
}

// namePattern finds a star that no dot follows, before a name of its own: it
// takes in the names of others.
func (l *linter) namePattern(path, pattern string) {
	rest := strings.TrimLeft(pattern, "*")
	if len(rest) == len(pattern) || rest == "" || rest[0] == '.' || !strings.Contains(rest, ".") {
		return
	}
	l.warn(path, "the pattern %q matches also my%s, which somebody else may own, and no name below %s; write *.%s", pattern, rest, rest, rest)
}
