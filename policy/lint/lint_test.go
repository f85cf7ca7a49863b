package lint

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers/http"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/verdict"
)

// spec writes a random policy of few words, so that rules often meet.
func spec(r *rand.Rand, name string) string {
	pick := func(words ...string) string { return words[r.IntN(len(words))] }
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: %s}\nspec:\n  endpointSelector: %s\n", name,
		pick("{}", "{matchLabels: {app: a}}", "{matchLabels: {app: a, tier: x}}"))
	for _, list := range []string{"ingress", "ingressDeny"} {
		if list == "ingressDeny" && r.IntN(3) > 0 {
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", list)
		for range 1 + r.IntN(3) {
			fmt.Fprintf(&b, "  - %s\n", pick("fromEntities: [all]", "fromEntities: [world]", "fromCIDR: [192.0.2.0/24]",
				"fromCIDRSet: [{cidr: 192.0.0.0/16, except: [192.0.2.128/25]}]", "fromEndpoints: [{}]", "fromEndpoints: [{matchLabels: {app: b}}]",
				"fromEndpoints: [{matchExpressions: [{key: app, operator: In, values: [a, b]}]}]", "fromEndpoints: [{matchExpressions: [{key: app, operator: Exists}]}]"))
			ports := pick("", "{port: \"80\", protocol: TCP}", "{port: \"80\", endPort: 90, protocol: TCP}", "{port: \"80\"}", "{port: web, protocol: TCP}")
			if ports == "" {
				continue
			}
			fmt.Fprintf(&b, "    toPorts:\n    - ports: [%s]\n", ports)
			if list == "ingress" && strings.Contains(ports, "TCP") && r.IntN(2) == 0 {
				fmt.Fprintf(&b, "      rules: {http: [{method: %s}]}\n", pick("GET", "PUT"))
			}
		}
	}
	return b.String()
}

// world has somebody for every word.
func world() *verdict.World {
	return &verdict.World{Endpoints: []verdict.Endpoint{
		{Name: "a", Labels: map[string]string{"app": "a"}, NamedPorts: map[string]string{"web": "80/TCP"}},
		{Name: "ax", Labels: map[string]string{"app": "a", "tier": "x"}, NamedPorts: map[string]string{"web": "90/TCP"}},
		{Name: "b", Labels: map[string]string{"app": "b"}},
		{Name: "none", Labels: map[string]string{}},
	}}
}

// verdicts answers every question that tells such policies apart.
func verdicts(t *testing.T, policies []policy.Policy) string {
	t.Helper()
	judge, err := verdict.New(world(), policies, http.NormalPath)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, to := range []string{"a", "ax", "b", "none"} {
		for _, from := range []verdict.End{{Endpoint: "a"}, {Endpoint: "b"}, {Endpoint: "none"}, {Entity: "host"}, {IP: "192.0.2.1"}, {IP: "192.0.2.200"}, {IP: "192.0.9.1"}, {IP: "203.0.113.1"}} {
			for _, port := range []string{"80/TCP", "85/TCP", "90/TCP", "80/UDP", "99/TCP"} {
				number, proto, _ := strings.Cut(port, "/")
				for _, method := range []string{"GET", "PUT", "POST"} {
					q := verdict.Question{Direction: "ingress", From: from, To: verdict.End{Endpoint: to}, Port: number, Protocol: proto, L7: &verdict.L7{HTTP: &verdict.HTTP{Method: method, Path: "/"}}}
					a, err := judge.Decide(&q)
					if err != nil {
						t.Fatal(err)
					}
					fmt.Fprintf(&b, "%v %s %s %s %s\n", from, to, port, method, a.Verdict)
				}
			}
		}
	}
	return b.String()
}

// without takes out of the policies what a warning says has no effect.
func without(policies []policy.Policy, w Warning) []policy.Policy {
	changed := slices.Clone(policies)
	p := &changed[w.Policy]
	p.Rules = slices.Clone(p.Rules)
	for i := range p.Rules {
		r := &p.Rules[i]
		if r.Ref.Path == w.Path { // it still makes deny the default
			r.Peers, r.AnyPeer = nil, false
		}
		r.Ports = slices.Clone(r.Ports)
		for j := range r.Ports {
			if r.Ports[j].Ref.Path+".rules" == w.Path {
				r.Ports[j].L7 = nil
			}
		}
	}
	return changed
}

// TestTrue takes out what is said to have no effect, and wants no verdict to
// change.
func TestTrue(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	kinds := map[string]int{}
	for range 300 {
		text := spec(r, "one") + "---\n" + spec(r, "two")
		policies, err := decode.Decode("random", []byte(text))
		if err != nil {
			continue // two kinds of rules that do not go together
		}
		before := ""
		for _, w := range Check(policies, nil) {
			kind := ""
			for _, k := range []string{"adds nothing", "allows nothing", "limit nothing, as"} {
				if strings.Contains(w.Message, k) && !strings.Contains(w.Path, ".http[") {
					kind = k
				}
			}
			if kind == "" || strings.Contains(w.Message, "allows 80-90/TCP") { // which may add to rules for fewer ports
				continue
			}
			if before == "" {
				before = verdicts(t, policies)
			}
			if verdicts(t, without(policies, w)) != before {
				t.Fatalf("not true: %s: %s\n%s", w.Path, w.Message, text)
			}
			kinds[kind]++
		}
	}
	if len(kinds) < 3 {
		t.Errorf("only %v came up", kinds)
	}
	t.Logf("%v", kinds)
}

// TestEscapeDots escapes dots between labels only.
func TestEscapeDots(t *testing.T) {
	for expr, want := range map[string]string{
		"api.example.com": `api\.example\.com`, `api\.example\.com`: `api\.example\.com`, ".*": ".*", "a.*": "a.*", "a.+b": "a.+b",
		"[a.b]c": "[a.b]c", `(a|b).example.com:80`: `(a|b)\.example\.com:80`, "": "",
	} {
		if got := escapeDots(expr); got != want {
			t.Errorf("%q: %q, want %q", expr, got, want)
		}
	}
}
