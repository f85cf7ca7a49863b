package policy

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
)

// Note 9.
func TestDNSPatterns(t *testing.T) {
	for _, tt := range []struct {
		pattern string
		yes, no []string
	}{
		{"*", []string{"a", "www.example.com", "WWW.Example.COM.", ".", "a_b.c"}, []string{"a..b", "a b", "-\x00"}},
		{"**", []string{"www.example.com"}, nil},
		{"*.", []string{"www.example.com"}, nil},
		{"*.cilium.io", []string{"www.cilium.io", "WWW.CILIUM.IO."}, []string{"cilium.io", "a.b.cilium.io", ".cilium.io", "wwwcilium.io"}},
		{"*cilium.io", []string{"cilium.io", "mycilium.io"}, []string{"www.cilium.io"}},
		{"sub*.cilium.io", []string{"sub.cilium.io", "subdomain.cilium.io"}, []string{"sub.x.cilium.io", "xsub.cilium.io"}},
		{"**.cilium.io", []string{"app.cilium.io", "test.app.cilium.io"}, []string{"cilium.io", "xcilium.io", ".cilium.io"}},
		{"****.cilium.io.", []string{"a.b.cilium.io"}, []string{"cilium.io"}},
		{"*.*.example.com", []string{"a.b.example.com", "A.b.Example.com."}, []string{"a.example.com", "a.b.c.example.com", "example.com"}},
		{"**.", []string{"a", "www.example.com", "."}, nil},
		{"**.com", []string{"a.com", "b.a.com"}, []string{"com", "acom"}},
		{"**.**.example.com", []string{"a.b.example.com", "a.b.c.example.com"}, []string{"a.example.com"}}, // only the first stands for several
		{"a.**.example.com", []string{"a.b.example.com"}, []string{"a.example.com", "a.b.c.example.com"}},
		{"WWW.Example.COM", []string{"www.example.com", "wWw.eXample.com."}, []string{"www.example.com..", "www.example.org"}},
		{"_*._tcp.example.com", []string{"_ldap._tcp.example.com"}, []string{"ldap._tcp.example.com"}},
		{"xn--*.example", []string{"xn--bcher-kva.example"}, []string{"bücher.example", "xn-a.example"}},
		{"*.example.com", []string{"-.example.com"}, []string{`a\.b.example.com`, `a\000.example.com`, "a .example.com", "a.example.com.evil.org", "\u212a.example.com", "..example.com"}},
		{"**.*x.io", []string{"a.x.io", "b.a.yx.io"}, []string{"x.io"}},
		{"a**.io", []string{"a.io", "abc.io"}, []string{"a.b.io"}},
		{"special*service.api.cilium.io", []string{"special-x-service.api.cilium.io", "specialservice.api.cilium.io"}, []string{"special.service.api.cilium.io"}},
	} {
		p, err := CompileDNSPattern(tt.pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range tt.yes {
			if !p.Match(name) {
				t.Errorf("%s does not match %q", tt.pattern, name)
			}
		}
		for _, name := range tt.no {
			if p.Match(name) {
				t.Errorf("%s matches %q", tt.pattern, name)
			}
		}
	}
	for _, bad := range []string{"", ".", "..", "*..", "a.com..", "[a-z].com", "?.com", "a..b", ".a", "a b", "a/b", "ä.de", strings.Repeat("a", 256)} {
		if _, err := CompileDNSPattern(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	for name, advice := range map[string]string{"bücher.example": "punycode", ".": `matchPattern "*"`, "\u212a.com": "punycode"} {
		if err := ValidateDNSName(name); err == nil || !strings.Contains(err.Error(), advice) {
			t.Errorf("%q: %v, want advice about %s", name, err, advice)
		}
	}
	if err := ValidateDNSName("*.example.com"); err == nil || !strings.Contains(err.Error(), "matchPattern") {
		t.Error(err)
	}
}

// TestDNSPatternsProperty holds the matcher against the expressions that Cilium
// makes of patterns.
func TestDNSPatternsProperty(t *testing.T) {
	r := newRand(t)
	word := func(letters string, most int) string {
		b := make([]byte, 1+r.IntN(most))
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	for range 20000 {
		pattern, name := word("ab.**", 8), word("aab..", 9)
		p, err := CompileDNSPattern(pattern)
		if err != nil || NormalName(name) == "" {
			continue
		}
		want := cilium(pattern).MatchString(strings.ToLower(strings.TrimSuffix(name, ".")) + ".")
		if valid := ValidateDNSName(name) == nil; p.Match(name) != (want && valid) {
			t.Fatalf("%q matches %q: %t, want %t", pattern, name, p.Match(name), want && valid)
		}
	}
}

func cilium(pattern string) *regexp.Regexp {
	if strings.Trim(strings.TrimSuffix(pattern, "."), "*") == "" {
		return regexp.MustCompile(`^([-a-z0-9_]+[.])+$`)
	}
	text := strings.ReplaceAll(strings.TrimSuffix(pattern, ".")+".", ".", "[.]")
	text = regexp.MustCompile(`^[*]{2,}\[\.\]`).ReplaceAllString(text, "([-a-z0-9_]+([.][-a-z0-9_]+){0,})[.]")
	text = regexp.MustCompile(`[*]+`).ReplaceAllString(text, "[-a-z0-9_]*")
	return regexp.MustCompile("^" + text + "$")
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"orders-*", "orders-eu", true}, {"orders-*", "orders-", true}, {"orders-*", "xorders-eu", false},
		{"*", "", true}, {"", "", true}, {"", "a", false}, {"a*b*c", "axxbyyc", true}, {"a*b*c", "axxbyy", false}, {"*a", "ba", true},
	} {
		if glob(tt.pattern, tt.text, 0) != tt.want {
			t.Errorf("%q %q: want %t", tt.pattern, tt.text, tt.want)
		}
	}
}

func BenchmarkDNSPattern(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	p, _ := CompileDNSPattern("**.example.com")
	name := fmt.Sprintf("a%d.b.c.example.com", r.IntN(100))
	b.ReportAllocs()
	for b.Loop() {
		p.Match(name)
	}
}
