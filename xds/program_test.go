package xds

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

// everySet has all that a set can say of HTTP.
func everySet() *policy.L7Set {
	ref := func(path string) policy.Ref { return policy.Ref{Policy: "default/all", Path: path} }
	secret := policy.SecretRef{Namespace: "default", Name: "token"}
	return &policy.L7Set{
		ID: policy.SetID{1}, Protocol: policy.ProtocolHTTP,
		HTTP: []policy.HTTPRule{
			{Method: "GET|CONNECT", Path: "/a.*", Headers: []policy.HeaderRule{{Name: "X-Forwarded-Proto", Value: "https"}}, Edits: []policy.HeaderEdit{
				{HeaderRule: policy.HeaderRule{Name: "X-Key"}, Action: policy.HeaderReplace, Secret: &secret},
				{HeaderRule: policy.HeaderRule{Name: "X-Old"}, Action: policy.HeaderDelete},
			}, Ref: ref("http[0]")},
			{Secrets: []policy.SecretHeader{{Name: "X-Hidden", Secret: policy.SecretRef{Namespace: "default", Name: "gone"}}}, Ref: ref("http[1]")},
		},
		GRPC: []policy.GRPCRule{{Service: "a.B*", Method: "Get", Ref: ref("grpc[0]")}},
		Deny: &policy.L7Rules{Protocol: policy.ProtocolHTTP,
			HTTP: []policy.HTTPRule{{Path: "/admin", Host: "h", Headers: []policy.HeaderRule{{Name: "X_Bad", Value: "ü%"}, {Name: "Host"}}, Ref: ref("deny[0]")}},
			GRPC: []policy.GRPCRule{{Method: "Set", Ref: ref("deny[1]")}},
		},
		DenyResponse: &policy.DenyResponse{Status: 451, Body: "Not 100%"},
		Audit:        &policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Method: "GET", Ref: ref("audit[0]")}}},
	}
}

func everyProgram(t *testing.T, o options) *program {
	t.Helper()
	p, err := programOf(everySet().Reveal(map[policy.SecretRef]string{{Namespace: "default", Name: "token"}: "s3cret"}), o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestEverythingIsTranslated(t *testing.T) {
	p := everyProgram(t, options{})
	r, err := routesOf(pair{1, 2}, p, everyProgram(t, options{audit: true}))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "routes_everything", r)
	l, err := listenerOf(pair{1, 2}, 12345, true)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "listener_unread", l)
	if len(p.connect.GetPolicies()) != 1 {
		t.Errorf("tunnels are allowed by %v, want by the rule that names CONNECT", p.connect.GetPolicies())
	}
	if audit := everyProgram(t, options{audit: true}); audit.deny != nil || audit.allow != nil || !audit.raw || audit.shadowAllow == nil {
		t.Errorf("where the node audits, %v and %v are enforced", audit.deny, audit.allow)
	}
}

// TestLeftOutRulesStayClosed: a rule that Envoy refuses allows nothing, and if it denies,
// denies everything.
func TestLeftOutRulesStayClosed(t *testing.T) {
	p := everyProgram(t, options{})
	for _, out := range p.rules {
		var names []string
		for _, n := range p.rules {
			if n != out {
				names = append(names, n)
			}
		}
		less, err := p.only(names)
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case strings.HasPrefix(out, "allow/") && less.allow.GetPolicies()[out] != nil:
			t.Errorf("%s is left out and allows", out)
		case strings.HasPrefix(out, "deny/") && !less.deny.GetPolicies()[out].GetPermissions()[0].GetAny():
			t.Errorf("%s is left out and does not deny everything", out)
		case out == "allow/00000 default/all http[0]" && len(less.edits) > 0:
			t.Error("a rule that is left out changes headers")
		case less.equal(p) && !strings.Contains(out, "http[1]"): // whose secret is not known
			t.Errorf("without %s nothing is different", out)
		}
	}
	if again := everyProgram(t, options{}); !again.equal(p) {
		t.Error("the same rules give another program")
	}
}

func TestEscapedValuesComeBack(t *testing.T) {
	for _, value := range []string{"", "plain", "a%b", "ü", "\x00\x7f\xff%%41", "a=b", "%4"} {
		text := escaped(value)
		for i := range len(text) {
			if text[i] < ' ' || text[i] > '~' {
				t.Errorf("%q was escaped to %q", value, text)
			}
		}
		if got := string(unescaped(text)); got != value {
			t.Errorf("%q came back as %q", value, got)
		}
	}
}

func TestPairNames(t *testing.T) {
	for _, p := range []pair{{}, {1, 2}, {0, 0x01000007}, {0xffffffff, 1}} {
		if got := pairNamed(p.name()); got != p {
			t.Errorf("%v came back as %v", p, got)
		}
	}
	if got := pairNamed("other"); got != (pair{}) {
		t.Errorf("another name is the pair %v", got)
	}
}
