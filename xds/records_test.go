package xds

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// logged makes an entry of Envoy's log.
func logged(t testing.TB, status uint32, details string, rbac, script map[string]any) *datav3.HTTPAccessLogEntry {
	t.Helper()
	e := &datav3.HTTPAccessLogEntry{
		CommonProperties: &datav3.AccessLogCommon{
			DownstreamRemoteAddress:       tcpAddress("192.0.2.66", 0), // from X-Forwarded-For
			DownstreamDirectRemoteAddress: tcpAddress("10.0.0.1", 1000), DownstreamLocalAddress: tcpAddress("10.0.0.2", 80),
			Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}},
		},
		Request: &datav3.HTTPRequestProperties{
			RequestMethod: corev3.RequestMethod_GET, Path: "/x", Authority: "h", RequestHeaders: map[string]string{":method": "PURGE"},
		},
		Response: &datav3.HTTPResponseProperties{ResponseCode: wrapperspb.UInt32(status), ResponseCodeDetails: details},
	}
	for name, fields := range map[string]map[string]any{rbacMetadata: rbac, scriptMetadata: script} {
		if fields == nil {
			continue
		}
		s, err := structpb.NewStruct(fields)
		if err != nil {
			t.Fatal(err)
		}
		e.CommonProperties.Metadata.FilterMetadata[name] = s
	}
	return e
}

func tcpAddress(ip string, port uint32) *corev3.Address { return tcp(ip, redirect.ProxyPort(port)) }

// TestNameIsDeniedLater: a request whose connection is under a name that is denied now.
func TestNameIsDeniedLater(t *testing.T) {
	set := httpSet(1, "GET")
	set.Ends, set.TLS = &policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef}, []policy.TLSRule{{ServerName: "a.example", Ref: policy.Ref{Policy: "default/names"}}}
	made, err := programOf(set, options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{}
	b.inUse.Store(&map[redirect.SetNumber]*program{number: made})
	e := logged(t, 403, "rbac_access_denied_matched_policy[ingress]", map[string]any{
		"names_enforced_engine_result": "denied", "names_enforced_effective_policy_id": "ingress",
	}, nil)
	e.CommonProperties.TlsProperties = &datav3.TLSProperties{TlsSniHostname: "b.example"}
	records := b.recordsOf(pair{ingress: number}, e)
	if len(records) != 2 {
		t.Fatalf("%d records", len(records))
	}
	if r := records[0]; r.Word != observe.Dropped || r.Nearest.Policy != "default/names" || !strings.Contains(r.Detail, "server name b.example") || r.HTTP.URL != "https://h/x" {
		t.Errorf("told %+v, %+v", r, r.HTTP)
	}
}

func TestRecords(t *testing.T) {
	allow := map[string]any{"egress_enforced_engine_result": "allowed", "egress_enforced_effective_policy_id": "allow/00000 ns/out egress[0].http[0]",
		"ingress_enforced_engine_result": "allowed", "ingress_enforced_effective_policy_id": "allow/00002 ns/in ingress[0].http[2]"}
	with := func(more map[string]any) map[string]any {
		out := map[string]any{}
		for _, m := range []map[string]any{allow, more} {
			for k, v := range m {
				out[k] = v
			}
		}
		return out
	}
	ref := func(text string) policy.Ref {
		p, path, _ := strings.Cut(text, " ")
		return policy.Ref{Policy: p, Path: path}
	}
	for name, tt := range map[string]struct {
		entry     *datav3.HTTPAccessLogEntry
		word      observe.Word
		direction policy.Direction
		reason    observe.DropReason
		rule      policy.Ref
		detail    string
		records   int
	}{
		"allowed": {logged(t, 200, "via_upstream", allow, map[string]any{"ingress": "header a is missing: added", "egress": "header b is missing"}),
			observe.Forwarded, policy.Ingress, 0, ref("ns/in ingress[0].http[2]"), "header b is missing; header a is missing: added", 2},
		"denied by no rule": {logged(t, 403, "rbac_access_denied", map[string]any{"egress_enforced_engine_result": "denied", "egress_enforced_effective_policy_id": "none"}, nil),
			observe.Dropped, policy.Egress, observe.ReasonPolicyDenied, policy.Ref{}, "no rule allows this request", 2},
		"denied by a rule": {logged(t, 451, "rbac_access_denied", with(map[string]any{"ingress_deny_enforced_engine_result": "denied", "ingress_deny_enforced_effective_policy_id": "deny/00000 ns/no ingressDeny[0]"}), nil),
			observe.Dropped, policy.Ingress, observe.ReasonPolicyDeny, ref("ns/no ingressDeny[0]"), "a rule denies such requests", 2},
		"audited": {logged(t, 200, "via_upstream", with(map[string]any{"egress_shadow_engine_result": "denied", "ingress_shadow_engine_result": "denied"}), nil),
			observe.Audited, policy.Egress, 0, policy.Ref{}, "no rule allows this request", 2},
		"malformed": {logged(t, 400, "path_normalization_failed", nil, nil),
			observe.Errored, policy.Ingress, 0, policy.Ref{}, "path_normalization_failed", 2},
		"no answer": {logged(t, 0, "downstream_remote_disconnect", allow, nil),
			observe.Forwarded, policy.Ingress, 0, ref("ns/in ingress[0].http[2]"), "", 1},
	} {
		t.Run(name, func(t *testing.T) {
			records := (&Backend{}).told(pair{1, 2}, tt.entry)
			if len(records) != tt.records {
				t.Fatalf("%d records, want %d: %+v", len(records), tt.records, records)
			}
			r := records[0]
			if r.Word != tt.word || r.Direction != tt.direction || r.Reason != tt.reason || r.Rule != tt.rule || r.Detail != tt.detail {
				t.Errorf("got %+v", r)
			}
			if r.HTTP.Method != "PURGE" || r.HTTP.URL != "http://h/x" || r.Source != netip.MustParseAddrPort("10.0.0.1:1000") {
				t.Errorf("got %+v of %s", r.HTTP, r.Source)
			}
			if tt.records == 2 && (!records[1].Reply || records[1].HTTP.Status == 0) {
				t.Errorf("the answer is %+v", records[1])
			}
		})
	}
}

// TestForgedClient: a tunnel is known by who connected, whatever the request says of that.
func TestForgedClient(t *testing.T) {
	e := logged(t, 101, "via_upstream", nil, map[string]any{"head": []any{":method=GET", ":path=/chat", ":authority=h", "x-forwarded-for=192.0.2.66"}})
	e.CommonProperties.AccessLogType = datav3.AccessLogType_DownstreamTunnelSuccessfullyEstablished
	made, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: "/chat"}}}, options{})
	if err != nil {
		t.Fatal(err)
	}
	b := &Backend{}
	b.inUse.Store(&map[redirect.SetNumber]*program{number: made})
	b.told(pair{ingress: number}, e)
	for key := range b.underway.all {
		if key.source == netip.MustParseAddrPort("10.0.0.1:1000") {
			return
		}
	}
	t.Errorf("tunnels are %v", b.underway.all)
}

// TestTunnelOutlives: a socket that is not found belongs to a tunnel that has ended, unless
// Envoy tells of the tunnel after that.
func TestTunnelOutlives(t *testing.T) {
	var tn exchange
	now := time.Now()
	missing := fmt.Errorf("destroy: %w", unix.ENOENT)
	if tn.outlives(missing, now) {
		t.Error("the end may be on its way")
	}
	if !tn.outlives(missing, now.Add(lateMost)) {
		t.Error("it stands, and nobody is told")
	}
	if !tn.outlives(unix.EPERM, now) {
		t.Error("a socket that cannot be destroyed is not told of")
	}
	if tn.outlives(nil, now) || tn.outlives(missing, now.Add(2*lateMost)) {
		t.Error("a socket that was destroyed is told of")
	}
}

// TestTunnelIsJudgedAgain: by the head that the script kept; what is not in force denies.
func TestTunnelIsJudgedAgain(t *testing.T) {
	e := logged(t, 101, "via_upstream", nil, map[string]any{"head": []any{":method=GET", ":path=/chat", ":authority=h", "x-token=a%FF"}})
	r := headOf(e)
	if r == nil || string(r.Path) != "/chat" || string(r.Headers[0].Value) != "a\xff" || !opened(r, e) {
		t.Fatalf("the head is %v", r)
	}
	b := &Backend{}
	p := pair{ingress: number}
	for _, tt := range []struct {
		rule policy.HTTPRule
		want policy.Verdict
	}{
		{policy.HTTPRule{Path: "/chat", Headers: []policy.HeaderRule{{Name: "X-Token", Value: "a\xff"}}}, policy.Allow},
		{policy.HTTPRule{Path: "/talk"}, policy.Deny},
	} {
		made, err := programOf(&policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{tt.rule}}, options{})
		if err != nil {
			t.Fatal(err)
		}
		b.inUse.Store(&map[redirect.SetNumber]*program{number: made})
		if d, _ := b.judge(p, r, false); d.Verdict != tt.want {
			t.Errorf("by %+v: %+v", tt.rule, d)
		}
	}
	if d, _ := b.judge(pair{egress: number + 1, ingress: number}, r, false); d.Verdict == policy.Allow {
		t.Error("a set that is not in force lets a tunnel stand")
	}
}
