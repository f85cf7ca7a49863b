package xds

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
)

// golden compares a message with testdata. UPDATE_GOLDEN=1 writes it instead.
func golden(t *testing.T, name string, m proto.Message) {
	t.Helper()
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	goldenJSON(t, name, text)
}

func goldenJSON(t *testing.T, name string, text []byte) {
	t.Helper()
	var got bytes.Buffer
	if err := json.Indent(&got, text, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	path := filepath.Join("testdata", name+".json")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s differs; got:\n%s", path, got.Bytes())
	}
}

func TestResources(t *testing.T) {
	p := pair{egress: 0x01000002, ingress: 0x01000005}
	l, err := listenerOf(p, 12345, false)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "listener", l)
	c, err := clusterOf()
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "cluster", c)
	b, err := Bootstrap(BootstrapOptions{NodeID: "node1", Socket: "/run/headgate/envoy", Admin: "/run/headgate/admin"})
	if err != nil {
		t.Fatal(err)
	}
	goldenJSON(t, "bootstrap", b)
}

func TestRoutes(t *testing.T) {
	ref := func(path string) policy.Ref { return policy.Ref{Policy: "default/rule1", Path: path} }
	rules, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{
		{Method: "GET|HEAD", Path: "/v[0-9]+/.*", Host: `(.+\.)?example\.com`, Ref: ref("http[0]")},
		{Headers: []policy.HeaderRule{{Name: "X-Token", Value: "a,b"}, {Name: "X-There"}, {Name: "Host", Value: "h"}}, Ref: ref("http[1]")},
		{Ref: ref("http[2]")},
		{Ref: ref("http[2]")}, // twice: both are kept
	}}, options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]pair{"routes_both": {1, 2}, "routes_ingress": {0, 2}} {
		egress := closed()
		if c.egress == 0 {
			egress = nil
		}
		r, err := routesOf(c, egress, rules)
		if err != nil {
			t.Fatal(err)
		}
		golden(t, name, r)
	}
}

func TestUntranslatable(t *testing.T) {
	for name, set := range map[string]*policy.L7Set{
		"protocol":    {Protocol: policy.ProtocolKafka},
		"expression":  {Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: "("}}},
		"header name": {Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Headers: []policy.HeaderRule{{}}}}},
	} {
		if r, err := programOf(set, options{}); err == nil {
			t.Errorf("%s: translated to %v", name, r)
		}
	}
}

// A set without rules lets nothing through; nor does a missing one. An RBAC filter
// without rules would let everything through.
func TestEmptySetDenies(t *testing.T) {
	r, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP}, options{})
	if err != nil || rulesOf(r.allow, nil, "").GetRules() == nil || len(r.allow.GetPolicies()) != 0 {
		t.Errorf("an empty set became %v, %v", r, err)
	}
}

func TestEqualRulesGiveEqualBytes(t *testing.T) {
	set := &policy.L7Set{Protocol: policy.ProtocolHTTP}
	for range 40 {
		set.HTTP = append(set.HTTP, policy.HTTPRule{Method: "GET"})
	}
	var first []byte
	for range 20 {
		r, err := programOf(set, options{})
		if err != nil {
			t.Fatal(err)
		}
		c, err := routesOf(pair{1, 0}, r, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if first == nil {
			first = b
		}
		if !bytes.Equal(b, first) {
			t.Fatal("the same rules gave different bytes: Envoy would be sent them again")
		}
	}
}

func TestBootstrapWantsItsParts(t *testing.T) {
	for _, o := range []BootstrapOptions{{Socket: "/x"}, {NodeID: "x"}} {
		if _, err := Bootstrap(o); err == nil {
			t.Errorf("%+v gave a bootstrap", o)
		}
	}
	b, err := Bootstrap(BootstrapOptions{NodeID: "n", Socket: "/x"})
	if err != nil || bytes.Contains(b, []byte(`"admin"`)) {
		t.Errorf("without being asked for, an admin interface: %s, %v", b, err)
	}
	args := strings.Join(Args("{}", 2), " ")
	if !regexp.MustCompile(`--concurrency 2 .*--drain-time-s [1-9]`).MatchString(args) {
		t.Errorf("arguments %s", args)
	}
}
