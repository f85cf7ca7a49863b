package xds

import (
	"net/netip"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	datav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const tlsNumber = redirect.SetNumber(uint32(policy.ProtocolTLS)<<24 | 1)

// tlsEntry is what Envoy tells of a connection.
func tlsEntry(kind datav3.AccessLogType, name string, tags ...string) *datav3.TCPAccessLogEntry {
	at := func(a string) *corev3.Address {
		x := netip.MustParseAddrPort(a)
		return tcp(x.Addr().String(), redirect.ProxyPort(x.Port()))
	}
	c := &datav3.AccessLogCommon{
		DownstreamDirectRemoteAddress: at("10.0.0.1:1000"), DownstreamLocalAddress: at("10.0.0.2:443"), StartTime: timestamppb.Now(),
		TlsProperties: &datav3.TLSProperties{TlsSniHostname: name}, AccessLogType: kind, CustomTags: map[string]string{},
	}
	for i := 0; i < len(tags); i += 2 {
		c.CustomTags[tags[i]] = tags[i+1]
	}
	return &datav3.TCPAccessLogEntry{CommonProperties: c}
}

func TestConnectionRecords(t *testing.T) {
	ref := policy.Ref{Policy: "default/names", Path: "serverNames[0]"}
	set := &policy.L7Set{Protocol: policy.ProtocolTLS, TLS: []policy.TLSRule{{ServerName: "a.example", Ref: ref}}}
	audited := &policy.L7Set{Protocol: policy.ProtocolTLS, Observed: true, TLS: []policy.TLSRule{{Ref: policy.Ref{Policy: "default/all"}}}, Audit: set}
	http := httpSet(1, "GET")
	http.Ends, http.TLS = &policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef}, set.TLS
	const over, began = datav3.AccessLogType_NotSet, datav3.AccessLogType_TcpUpstreamConnected
	broken := tlsEntry(over, "", chainTag, chainClosed, brokenTag, "end TLS: there is no tls.key in secret default/proxy")
	failed := tlsEntry(over, "a.example", chainTag, chainCarried)
	failed.CommonProperties.DownstreamTransportFailureReason = "TLS_error"
	unreachable := tlsEntry(datav3.AccessLogType_TcpConnectionEnd, "a.example", carriedTag, "yes")
	unreachable.CommonProperties.ResponseFlags = &datav3.ResponseFlags{UpstreamConnectionFailure: true}
	probe := tlsEntry(over, "", chainTag, "-")
	probe.CommonProperties.DownstreamLocalAddress = tcp(loopback4, 443)
	for name, tt := range map[string]struct {
		set   *policy.L7Set
		audit bool
		entry *datav3.TCPAccessLogEntry
		word  observe.Word // 0: nothing is told
		rule  string
		near  string
		says  string
	}{
		"refused":             {set, false, tlsEntry(over, "b.example", chainTag, chainRefused), observe.Dropped, "", ref.Policy, "b.example does not match a.example"},
		"refused, no name":    {set, false, tlsEntry(over, "", chainTag, chainRefused), observe.Dropped, "", ref.Policy, "names no server"},
		"refused, then again": {set, false, tlsEntry(over, "a.example", chainTag, chainRefused), observe.Dropped, "", "", "no rule allows"},
		"carried":             {set, false, tlsEntry(began, "A.example", carriedTag, "yes"), observe.Forwarded, ref.Policy, "", ""},
		"carried and over":    {set, false, tlsEntry(datav3.AccessLogType_TcpConnectionEnd, "a.example", carriedTag, "yes"), 0, "", "", ""},
		"carried, still":      {set, false, tlsEntry(datav3.AccessLogType_TcpPeriodic, "a.example", carriedTag, "yes"), 0, "", "", ""},
		"unreachable":         {set, false, unreachable, observe.Errored, "", "", "could not be reached"},
		"audited":             {audited, false, tlsEntry(began, "b.example", carriedTag, "yes"), observe.Audited, "", ref.Policy, "does not match"},
		"audit":               {set, true, tlsEntry(began, "b.example", carriedTag, "yes"), observe.Audited, "", ref.Policy, "does not match"},
		"unread":              {set, false, tlsEntry(over, "", chainTag, chainUnread), 0, "", "", ""},
		"passed":              {audited, false, tlsEntry(over, "", passedTag, "yes"), observe.Forwarded, "", "", "unread"},
		"no hello":            {set, false, tlsEntry(over, "", chainTag, "-"), observe.Errored, "", "", "before a hello"},
		"no hello, no tag":    {set, false, tlsEntry(over, ""), observe.Errored, "", "", "before a hello"},
		"no hello, requests":  {http, false, tlsEntry(over, "", chainTag, "-"), observe.Errored, "", "", "before a hello"},
		"our own probe":       {set, false, probe, 0, "", "", ""},
		"carried, denied now": {set, false, tlsEntry(began, "b.example", carriedTag, "yes"), observe.Dropped, "", ref.Policy, "does not match"},
		"no TLS":              {set, false, tlsEntry(over, "", chainTag, chainClosed), observe.Errored, "", "", "not TLS"},
		"broken":              {set, false, broken, observe.Errored, "", "", "there is no tls.key"},
		"handshake":           {http, false, failed, observe.Errored, "", "", "TLS_error"},
		"before requests":     {http, false, tlsEntry(over, "a.example", chainTag, chainCarried), observe.Forwarded, ref.Policy, "", ""},
	} {
		made, err := programOf(tt.set, options{audit: tt.audit})
		if err != nil {
			t.Fatal(err)
		}
		p := pair{egress: tlsNumber}
		if tt.set == http {
			p.egress = number
		}
		b := &Backend{}
		b.inUse.Store(&map[redirect.SetNumber]*program{p.egress: made})
		records := b.connection(p, tt.entry)
		if tt.word == 0 {
			if len(records) != 0 {
				t.Errorf("%s: told %+v", name, records)
			}
			continue
		}
		if len(records) != 1 {
			t.Errorf("%s: %d records", name, len(records))
			continue
		}
		r := records[0]
		if r.Word != tt.word || r.Rule.Policy != tt.rule || r.Nearest.Policy != tt.near || !strings.Contains(r.Detail, tt.says) || (r.TLS == nil) != (name == "passed") || r.Word != observe.Errored && r.Direction != policy.Egress {
			t.Errorf("%s: told %+v", name, r)
		}
	}
}
