package observe

import (
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestHelloFlows: a hello is a flow without a record of its own, which its summary and a
// filter tell.
func TestHelloFlows(t *testing.T) {
	b := &Builder{Node: "n1"}
	filter, err := protocolFilter([]string{"TLS"})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"www.example.com": "TLS server name www.example.com", "": "TLS without a server name", "a\x1b[31m": `TLS server name a\x1b[31m`,
	} {
		r := &Record{
			Kind: KindL7, Word: Dropped, Reason: ReasonPolicyDenied, Direction: policy.Egress, Proto: policy.ProtoTCP,
			Source: netip.MustParseAddrPort("10.0.0.1:1234"), Destination: netip.MustParseAddrPort("192.0.2.1:443"), TLS: &TLS{ServerName: name},
		}
		f := b.Build(r)
		if got := f.GetSummary(); got != want || f.GetL7() == nil { //nolint:staticcheck // what is shown
			t.Errorf("%q: %q", name, got)
		}
		if !filter(f) {
			t.Errorf("%q is not found by its protocol", name)
		}
		r.TLS, r.HTTP = nil, &HTTP{Method: "GET", URL: "https://TLS/"}
		if filter(b.Build(r)) {
			t.Error("a request is found too")
		}
	}
}
