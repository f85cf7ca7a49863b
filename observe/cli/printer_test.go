package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/observe"
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

type names struct{}

func (names) Endpoint(a netip.Addr) (observe.EndpointInfo, bool) {
	switch a.String() {
	case "10.0.0.1":
		return observe.EndpointInfo{Namespace: "default", Name: "tiefighter"}, true
	case "10.0.0.2":
		return observe.EndpointInfo{Namespace: "default", Name: "deathstar"}, true
	}
	return observe.EndpointInfo{}, false
}

func (names) Identity(policy.Identity) []string { return nil }

var testTime = time.Date(2026, 11, 21, 6, 32, 33, 123456789, time.UTC)

func request(word observe.Word, h observe.HTTP) observe.Record {
	return observe.Record{
		Kind: observe.KindL7, Word: word, Proto: policy.ProtoTCP, HTTP: &h,
		Source: netip.MustParseAddrPort("10.0.0.1:43210"), Destination: netip.MustParseAddrPort("10.0.0.2:80"),
		SourceIdentity: 1234, DestinationIdentity: 567,
	}
}

func packet(kind observe.Kind, word observe.Word, reason observe.DropReason) observe.Record {
	r := request(word, observe.HTTP{})
	r.Kind, r.Reason, r.TCPFlags, r.HTTP = kind, reason, 2, nil
	return r
}

// responses is one of each kind of line, hostile ones among them.
func responses() []*observerpb.GetFlowsResponse {
	rule := policy.Ref{Policy: "default/rule1", Path: "ingress[0].toPorts[0].rules.http[0]"}
	denied := request(observe.Dropped, observe.HTTP{Method: "PUT", URL: "http://deathstar/v1/exhaust-port", Protocol: "HTTP/1.1"})
	denied.Reason, denied.Nearest, denied.Detail = observe.ReasonPolicyDenied, rule, "method PUT is not POST"
	allowed := request(observe.Forwarded, observe.HTTP{Method: "POST", URL: "http://deathstar/v1/request-landing", Protocol: "HTTP/1.1"})
	allowed.Rule = rule
	answer := request(observe.Forwarded, observe.HTTP{
		Method: "POST", URL: "http://deathstar/v1/request-landing", Protocol: "HTTP/1.1", Status: 200, Latency: 3 * time.Millisecond,
	})
	malformed := request(observe.Errored, observe.HTTP{})
	malformed.Detail = "two Content-Length headers"
	deny := packet(observe.KindDrop, observe.Dropped, observe.ReasonPolicyDeny)
	deny.Rule = policy.Ref{Policy: "everywhere", Path: "ingressDeny[0]"}
	world := packet(observe.KindDrop, observe.Dropped, observe.ReasonPolicyDenied)
	world.Source, world.SourceIdentity, world.TCPFlags = netip.MustParseAddrPort("[2001:db8::7]:5555"), policy.IdentityWorld, 16
	audited := packet(observe.KindVerdict, observe.Audited, observe.ReasonPolicyDenied)
	audited.Direction = policy.Egress
	redirected := packet(observe.KindVerdict, observe.Redirected, 0)
	redirected.MatchType = 2
	hostile := request(observe.Dropped, observe.HTTP{
		Method: "GET\x1b[2J", URL: "http://h/\r\nNov 21 06:32:33.123: default/fake \x1b]0;title\a\u009b31m\u202e\xff", Protocol: "HTTP/1.1\t",
		Headers: [][2]string{{"x-evil\x1b[31m", "\x00\u0085\U000e0001"}},
	})
	hostile.Nearest, hostile.Detail = policy.Ref{Policy: "default/r\x1b[1m"}, "path \x1b[31m is not"
	arp := observe.Record{
		Kind: observe.KindDrop, Word: observe.Dropped, Reason: observe.ReasonNeighbour,
		SourceMAC: [6]byte{2, 0, 0, 0, 0, 1}, DestinationMAC: [6]byte{2, 0, 0, 0, 0, 2},
	}
	b := &observe.Builder{Directory: names{}, Node: "n1"}
	var out []*observerpb.GetFlowsResponse
	for _, r := range []observe.Record{
		denied, allowed, answer, malformed, deny, world, audited, redirected, hostile, arp,
		packet(observe.KindDrop, observe.Dropped, observe.ReasonProxyDown),
		packet(observe.KindVerdict, observe.Dropped, observe.ReasonNoRoute),
		packet(observe.KindVerdict, observe.Forwarded, 0),
	} {
		r.Time = testTime
		f := b.Build(&r)
		f.Uuid = "some"
		out = append(out, response(f))
	}
	return append(out, &observerpb.GetFlowsResponse{
		NodeName: "n1", Time: timestamppb.New(testTime),
		ResponseTypes: &observerpb.GetFlowsResponse_LostEvents{LostEvents: &flowpb.LostEvent{
			Source: flowpb.LostEventSource_HUBBLE_RING_BUFFER, NumEventsLost: 42,
		}},
	})
}

func response(f *flowpb.Flow) *observerpb.GetFlowsResponse {
	return &observerpb.GetFlowsResponse{
		NodeName: f.GetNodeName(), Time: f.GetTime(), ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: f},
	}
}

func printAll(t *testing.T, o Options, list []*observerpb.GetFlowsResponse) string {
	t.Helper()
	var out bytes.Buffer
	p, err := NewPrinter(&out, o)
	if err != nil {
		t.Fatal(err)
	}
	for _, res := range list {
		if err := p.Write(res); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestPrinter(t *testing.T) {
	for name, o := range map[string]Options{
		"compact.txt": {},
		"numeric.txt": {Format: "compact", Numeric: true, NodeName: true, TimeFormat: "RFC3339Nano"},
		"dict.txt":    {Format: "dict", NodeName: true},
		"table.txt":   {Format: "table", Color: true},
		"json.txt":    {Format: "jsonpb"},
		"color.txt":   {Format: "compact", Color: true},
	} {
		got := printAll(t, o, responses())
		for _, r := range got {
			if !unicode.IsPrint(r) && r != '\n' && (r != '\x1b' || name != "color.txt") {
				t.Errorf("%s: %q reaches the terminal", name, r)
			}
		}
		golden(t, name, got)
	}
}

// The formats that are one line a flow stay so.
func TestOneLineEach(t *testing.T) {
	for _, format := range []string{"compact", "json"} {
		if n := strings.Count(printAll(t, Options{Format: format}, responses()), "\n"); n != len(responses()) {
			t.Errorf("%s: %d lines for %d flows", format, n, len(responses()))
		}
	}
}

// What is printed as JSON reads back as what was sent.
func TestJSONIsWhole(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(printAll(t, Options{Format: "json"}, responses())), "\n")
	for i, want := range responses() {
		got := new(observerpb.GetFlowsResponse)
		if err := json.Unmarshal([]byte(lines[i]), got); err != nil {
			t.Fatalf("%s: %v", lines[i], err)
		}
		if observe.Explain(got.GetFlow()) != observe.Explain(want.GetFlow()) {
			t.Errorf("explanation is %+v", observe.Explain(got.GetFlow()))
		}
		if want.GetFlow() != nil { // the explanation's bytes may differ
			got.GetFlow().Extensions, want.GetFlow().Extensions = nil, nil
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestNodeStatusGoesToErrors(t *testing.T) {
	var errs bytes.Buffer
	out := printAll(t, Options{Errors: &errs}, []*observerpb.GetFlowsResponse{{
		NodeName: "relay", Time: timestamppb.New(testTime),
		ResponseTypes: &observerpb.GetFlowsResponse_NodeStatus{NodeStatus: &relaypb.NodeStatusEvent{
			StateChange: relaypb.NodeState_NODE_ERROR, NodeNames: []string{"n1", "n2"}, Message: "gone\x1b[2J",
		}},
	}, {}})
	if want := "Nov 21 06:32:33.123 [relay]: NODE_ERROR: n1, n2 gone\\x1b[2J\n"; out != "" || errs.String() != want {
		t.Errorf("printed %q and %q, want %q", out, errs.String(), want)
	}
}

func TestPrinterRefuses(t *testing.T) {
	for _, o := range []Options{{Format: "xml"}, {TimeFormat: "sundial"}} {
		if _, err := NewPrinter(&bytes.Buffer{}, o); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestTerminal(t *testing.T) {
	if Terminal(&bytes.Buffer{}) {
		t.Error("a buffer is no terminal")
	}
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if Terminal(f) {
		t.Error("a file is no terminal")
	}
	null, err := os.Open(os.DevNull) // a character device, as terminals are
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = null.Close() }()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if Terminal(null) {
		t.Error("NO_COLOR is not heeded")
	}
}
