package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The index finds the rule that comes first among all that match one by one.
func TestDNSIndexProperty(t *testing.T) {
	r := newRand(t)
	word := func(letters string, most int) string {
		b := make([]byte, r.IntN(most)+1)
		for i := range b {
			b[i] = letters[r.IntN(len(letters))]
		}
		return string(b)
	}
	words := func(letters string) string {
		labels := make([]string, 1+r.IntN(4))
		for i := range labels {
			labels[i] = word(letters, 3)
		}
		return strings.Join(labels, ".")
	}
	for range 3000 {
		var rules []DNSRule
		for range 1 + r.IntN(12) {
			rule := DNSRule{Ref: Ref{"p", fmt.Sprint(len(rules))}}
			switch r.IntN(8) {
			case 0, 1:
				rule.Name = words("ab")
			case 2:
				rule.Pattern = "**." + words("ab*")
			case 3:
				rule.Pattern = strings.Repeat("*", 1+r.IntN(3))
			case 4:
			default:
				rule.Pattern = words("ab*")
			}
			if r.IntN(4) == 0 {
				rule.Types = []uint16{1, 28}[:1+r.IntN(2)]
			}
			rules = append(rules, rule)
		}
		index, err := newDNSIndex(rules)
		if err != nil {
			t.Fatal(err)
		}
		for range 40 {
			name := words([]string{"ab", "aB", "ab.", "ab-\\"}[r.IntN(4)])
			if r.IntN(20) == 0 {
				name = "."
			}
			typ := []uint16{1, 16, 28}[r.IntN(3)]
			want := int32(slices.IndexFunc(index.rules, func(m dnsMatcher) bool { return m.match(name) && m.wants(typ) }))
			if got := index.trie.find(index.rules, NormalName(name), typ); got != want {
				t.Fatalf("%q type %d: rule %d, want %d of %+v", name, typ, got, want, rules)
			}
		}
	}
}

func TestDNSTypes(t *testing.T) {
	judge, err := CompileSet(&L7Set{Protocol: ProtocolDNS, DNS: []DNSRule{
		{Pattern: "*.a", Types: []uint16{1, 28}, Ref: Ref{"p", "0"}}, {Name: "x.a", Types: []uint16{16}, Ref: Ref{"p", "1"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		typ  uint16
		want string
	}{
		{"x.a.", 1, "allow 0"}, {"x.a.", 28, "allow 0"}, {"x.a.", 16, "allow 1"},
		{"y.a.", 16, "deny 0 type TXT is not among those of the rule"}, {"b.", 1, `deny 0 name b. does not match *.a`},
	} {
		d := judge.Decide(&DNSRequest{Name: c.name, Type: c.typ})
		got := "allow " + d.Rule.Path
		if d.Verdict != Allow {
			got = "deny " + d.Nearest.Path + " " + d.Reason
		}
		if got != c.want {
			t.Errorf("%s %d: %s, want %s", c.name, c.typ, got, c.want)
		}
	}
	for _, text := range []string{"A", "aaaa", "TYPE65400"} {
		typ, err := ParseDNSType(text)
		if err != nil || DNSTypeName(typ) != strings.ToUpper(text) {
			t.Errorf("%s: %d, %v", text, typ, err)
		}
	}
	for _, bad := range []string{"", "B", "TYPE", "TYPE65536", "TYPE-1"} {
		if _, err := ParseDNSType(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

// BenchmarkDNSRules: what a decision costs with few rules and with many. Few names are
// asked for, as clients do; asked for at random, each of 100,000 costs the way to memory.
func BenchmarkDNSRules(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000} {
		for kind, write := range map[string]func(i int) DNSRule{
			"names":    func(i int) DNSRule { return DNSRule{Name: fmt.Sprintf("host-%d.example.org", i)} },
			"patterns": func(i int) DNSRule { return DNSRule{Pattern: fmt.Sprintf("*.zone-%d.example.org", i)} },
			"stars":    func(i int) DNSRule { return DNSRule{Pattern: fmt.Sprintf("svc-%06d-*.example.org", i)} },
		} {
			b.Run(fmt.Sprintf("%s=%d", kind, n), func(b *testing.B) {
				rules := make([]DNSRule, n)
				for i := range rules {
					rules[i] = write(i)
				}
				judge, err := CompileSet(&L7Set{Protocol: ProtocolDNS, DNS: rules})
				if err != nil {
					b.Fatal(err)
				}
				r := rand.New(rand.NewPCG(1, 2))
				names := make([]string, 16)
				for i := range names {
					k := r.IntN(n)
					names[i] = map[string]string{"names": fmt.Sprintf("host-%d.example.org", k), "patterns": fmt.Sprintf("www.zone-%d.example.org", k), "stars": fmt.Sprintf("svc-%06d-x.example.org", k)}[kind]
				}
				request := &DNSRequest{Type: 1}
				b.ReportAllocs()
				b.ResetTimer()
				for i := range b.N {
					request.Name = names[i%len(names)]
					if judge.Decide(request).Verdict != Allow {
						b.Fatal(request.Name)
					}
				}
			})
		}
	}
}
