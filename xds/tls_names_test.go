package xds

import (
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestNameExpression: an expression matches what the pattern does that it stands for.
func TestNameExpression(t *testing.T) {
	names := []string{
		"example.com", "www.example.com", "a.b.example.com", "wwwexample.com", ".example.com", "www..example.com", "EXAMPLE.com",
		"example.com.", "example.com..", ".", "", "example", "x", "_x.example.com", "a-b.example.com", "a b.example.com", "a,example.com",
		"www.example.org", "exampleAcom", "w.example.com\n", "sub.www.example.com", "api.v1.example.com", "api.v22.example.com", "api-.example.com",
		strings.Repeat("a.", 120) + "example.com", "ex\xffample.com",
	}
	for _, pattern := range []string{
		"example.com", "Example.COM.", "*", "**", "*.example.com", "**.example.com", "*example.com", "w*.example.com", "*w*.example.com",
		"*.*.example.com", "api.v*.example.com", "*.**.example.com", "**.*.com", "a-*.example.com", "***.example.com", "**w.example.com",
	} {
		want, err := policy.CompileDNSPattern(pattern)
		if err != nil {
			t.Fatal(err)
		}
		all := namesOf(&policy.L7Set{Protocol: policy.ProtocolTLS, TLS: []policy.TLSRule{{ServerName: pattern}}})
		re := regexp.MustCompile(`\A(?:` + all[0] + `)\z`)
		for _, name := range names {
			dotted := name == "" || name[len(name)-1] == '.'
			if got := re.MatchString(name); got != (!dotted && want.Match(name)) {
				t.Errorf("%q by %q: %v, want %v", name, pattern, got, !got)
			}
		}
	}
}

// TestNamesOf: who may name whatever, and how many expressions many names take.
func TestNamesOf(t *testing.T) {
	rules := func(names ...string) (out []policy.TLSRule) {
		for _, n := range names {
			out = append(out, policy.TLSRule{ServerName: n})
		}
		return out
	}
	var many []string
	for range 4000 {
		many = append(many, "www.example.com")
	}
	for name, tt := range map[string]struct {
		set  policy.L7Set
		want int // -1: nil
	}{
		"http without":  {policy.L7Set{Protocol: policy.ProtocolHTTP}, -1},
		"http with":     {policy.L7Set{Protocol: policy.ProtocolHTTP, TLS: rules("a")}, 1},
		"tls without":   {policy.L7Set{Protocol: policy.ProtocolTLS}, 0},
		"tls whatever":  {policy.L7Set{Protocol: policy.ProtocolTLS, TLS: rules("a", "")}, -1},
		"tls with many": {policy.L7Set{Protocol: policy.ProtocolTLS, TLS: rules(many...)}, 5},
	} {
		got := namesOf(&tt.set)
		if (got == nil) != (tt.want < 0) || got != nil && len(got) != tt.want {
			t.Errorf("%s: %d expressions (nil %v), want %d", name, len(got), got == nil, tt.want)
		}
		for _, expr := range got {
			if re := regexp.MustCompile(expr); len(expr) > longestExpression+64 || !re.MatchString("www.example.com") && tt.want > 1 {
				t.Errorf("%s: an expression of %d bytes", name, len(expr))
			}
		}
	}
}
