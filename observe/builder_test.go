package observe

import (
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares with a file of testdata, or writes it.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs; -update writes it\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

// fakeDirectory knows two endpoints.
type fakeDirectory struct{}

func (fakeDirectory) Endpoint(a netip.Addr) (EndpointInfo, bool) {
	switch a.String() {
	case "10.0.0.1":
		return EndpointInfo{
			ID: 12, Identity: 1234, Namespace: "default", Name: "tiefighter",
			Labels: []string{"k8s:org=empire", "k8s:class=tiefighter"},
		}, true
	case "10.0.0.2":
		return EndpointInfo{
			ID: 34, Identity: 567, Namespace: "default", Name: "deathstar",
			Labels: []string{"k8s:class=deathstar", "k8s:org=empire"},
		}, true
	}
	return EndpointInfo{}, false
}

func (fakeDirectory) Identity(id policy.Identity) []string {
	if id == 600 {
		return []string{"k8s:app=remote", "k8s:io.cilium.k8s.policy.cluster=blue", "k8s:io.kubernetes.pod.namespace=far"}
	}
	return nil
}

func testTime() time.Time { return time.Date(2026, 11, 21, 6, 32, 33, 123456789, time.UTC) }

// base is a connection from tiefighter to deathstar.
func base() Record {
	return Record{
		Time:                testTime(),
		Direction:           policy.Ingress,
		Source:              netip.MustParseAddrPort("10.0.0.1:43210"),
		Destination:         netip.MustParseAddrPort("10.0.0.2:80"),
		SourceIdentity:      1234,
		DestinationIdentity: 567,
		Proto:               policy.ProtoTCP,
	}
}

// record makes a variant of base.
func record(change func(*Record)) *Record {
	r := base()
	change(&r)
	return &r
}

func deniedRequest() *Record {
	return record(func(r *Record) {
		r.Kind, r.Word, r.Reason = KindL7, Dropped, ReasonPolicyDenied
		r.Nearest = policy.Ref{Policy: "default/rule1", Path: "ingress[0].toPorts[0].rules.http[0]"}
		r.Detail = "method PUT is not POST"
		r.HTTP = &HTTP{
			Method: "PUT", URL: "http://deathstar/v1/exhaust-port", Protocol: "HTTP/1.1", Status: 403,
			Headers: [][2]string{{"x-token", "abc"}, {"Authorization", "Bearer s3cret"}},
		}
	})
}

// records is one of each kind, by name.
func records() map[string]*Record {
	rule := policy.Ref{Policy: "default/rule1", Path: "ingress[0].toPorts[0]"}
	return map[string]*Record{
		"request denied": deniedRequest(),
		"request": record(func(r *Record) {
			r.Kind, r.Word, r.Rule = KindL7, Forwarded, rule
			r.HTTP = &HTTP{Method: "POST", URL: "http://deathstar/v1/request-landing", Protocol: "HTTP/1.1"}
		}),
		"answer": record(func(r *Record) {
			r.Kind, r.Word, r.Rule, r.Reply = KindL7, Forwarded, rule, true
			r.HTTP = &HTTP{Method: "POST", URL: "http://deathstar/v1/request-landing", Protocol: "HTTP/1.1", Status: 200, Latency: 3456789}
		}),
		"request malformed": record(func(r *Record) {
			r.Kind, r.Word, r.Detail = KindL7, Errored, "two Content-Length headers"
			r.HTTP = &HTTP{Status: 400}
		}),
		"verdict redirected": record(func(r *Record) {
			r.Kind, r.Word, r.Rule, r.TCPFlags, r.MatchType = KindVerdict, Redirected, rule, flagSYN, 2
			r.SourceMAC, r.DestinationMAC = [6]byte{2, 0, 0, 0, 0, 1}, [6]byte{2, 0, 0, 0, 0, 2}
			r.Interface = 7
		}),
		"verdict audited": record(func(r *Record) {
			r.Kind, r.Word, r.Direction, r.Rule = KindVerdict, Audited, policy.Egress, policy.Ref{Policy: "everywhere", Path: "egressDeny[0]"}
			r.Reason, r.TCPFlags = ReasonPolicyDeny, flagSYN
		}),
		"drop": record(func(r *Record) {
			r.Kind, r.Word, r.Reason, r.TCPFlags = KindDrop, Dropped, ReasonPolicyDenied, flagSYN
			r.Source, r.SourceIdentity = netip.MustParseAddrPort("192.0.2.7:5555"), policy.IdentityWorld
		}),
		"drop by our own reason": record(func(r *Record) {
			r.Kind, r.Word, r.Reason, r.TCPFlags = KindDrop, Dropped, ReasonProxyDown, flagSYN|flagACK
		}),
		"drop of a ping": record(func(r *Record) {
			r.Kind, r.Word, r.Reason, r.Proto, r.ICMPType = KindDrop, Dropped, ReasonPolicyDenied, policy.ProtoICMPv6, 128
			r.Source, r.Destination = netip.MustParseAddrPort("[fd00::1]:0"), netip.MustParseAddrPort("[fd00::2]:0")
			r.SourceIdentity = 600
		}),
		"drop of ARP": {
			Kind: KindDrop, Word: Dropped, Reason: ReasonNeighbour, Time: testTime(), Direction: policy.Egress,
			SourceMAC: [6]byte{2, 0, 0, 0, 0, 1}, DestinationMAC: [6]byte{255, 255, 255, 255, 255, 255},
		},
		"mapped address": record(func(r *Record) {
			r.Kind, r.Word, r.Proto = KindVerdict, Forwarded, policy.ProtoUDP
			r.Source = netip.MustParseAddrPort("[::ffff:10.0.0.1]:53")
		}),
	}
}

func TestBuild(t *testing.T) {
	b := &Builder{Directory: fakeDirectory{}, Node: "n1", PolicyKind: func(r policy.Ref) string {
		if strings.Contains(r.Policy, "/") {
			return "CiliumNetworkPolicy"
		}
		return "CiliumClusterwideNetworkPolicy"
	}}
	flows := make(map[string]*flowpb.Flow)
	for name, r := range records() {
		f := b.Build(r)
		if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(f.GetUuid()) {
			t.Errorf("%s: uuid %q", name, f.GetUuid())
		}
		f.Uuid = ""
		flows[name] = f
	}
	got, err := json.MarshalIndent(flows, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "flows.json", string(got)+"\n")
}

func TestBuildTakesIdentityOfTheVerdict(t *testing.T) {
	f := (&Builder{Directory: fakeDirectory{}}).Build(record(func(r *Record) { r.SourceIdentity = 600 }))
	if got := f.GetSource(); got.GetIdentity() != 600 || got.GetPodName() != "tiefighter" || got.GetLabels()[0] != "k8s:app=remote" {
		t.Errorf("source is %v", got)
	}
	f = (&Builder{Directory: fakeDirectory{}}).Build(record(func(r *Record) { r.SourceIdentity = 0 }))
	if got := f.GetSource().GetIdentity(); got != 1234 {
		t.Errorf("identity is %d, want that of the endpoint", got)
	}
}

// What strangers send must neither break the encoding nor grow without bound.
func TestBuildHostile(t *testing.T) {
	long := strings.Repeat("é\xff\x1b[2J", 100_000)
	f := (&Builder{}).Build(record(func(r *Record) {
		r.Kind, r.Word, r.Detail = KindL7, Dropped, long
		r.HTTP = &HTTP{Method: long, URL: long, Protocol: long, Headers: [][2]string{{"a", "b\xff"}, {long, long}, {"c", "d"}}}
	}))
	wireForm, err := proto.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if len(wireForm) > 5000 {
		t.Errorf("flow has %d bytes", len(wireForm))
	}
	if s := f.GetSummary(); !isPrintable(s) || !utf8.ValidString(s) { //nolint:staticcheck // tested
		t.Errorf("summary %q can act on a terminal", s)
	}
	if n := len(f.GetL7().GetHttp().GetHeaders()); n != 1 {
		t.Errorf("%d headers kept, want the one that fits", n)
	}
}

func TestExplain(t *testing.T) {
	b := &Builder{}
	f := b.Build(deniedRequest())
	want := Explanation{
		Nearest: "default/rule1 ingress[0].toPorts[0].rules.http[0]",
		Detail:  "method PUT is not POST",
		Reason:  "Policy denied",
	}
	if got := Explain(f); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if again := b.Build(deniedRequest()); again.GetExtensions() != f.GetExtensions() {
		t.Error("explanation was encoded twice")
	}
	if got := Explain(&flowpb.Flow{}); got != (Explanation{}) {
		t.Errorf("got %+v of a flow without one", got)
	}
}

func BenchmarkBuild(b *testing.B) {
	builder, r := &Builder{Directory: fakeDirectory{}, Node: "n1"}, deniedRequest()
	b.ReportAllocs()
	for b.Loop() {
		builder.Build(r)
	}
}
