package observe

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// Texts and fields are Hubble's.
func TestDNS(t *testing.T) {
	for _, c := range []struct {
		dns     DNS
		answer  bool
		summary string
		rrtypes []string
	}{
		{DNS{Query: "a.example", Type: 28}, false, "DNS Query a.example. AAAA", nil},
		{DNS{Query: "", Type: 2}, false, "DNS Query . NS", nil},
		{DNS{Query: "a", Type: 65400}, false, "DNS Query a. TYPE65400", nil},
		{DNS{Query: "a", Type: 1, TTL: 30, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")}, Latency: time.Millisecond},
			true, `DNS Answer "192.0.2.1,192.0.2.2" TTL: 30 (Proxy a. A)`, []string{"A"}},
		{DNS{Query: "a", Type: 28, TTL: 5, Chain: []string{"b", "c"}, Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}},
			true, `DNS Answer "2001:db8::1" CNAMEs: "b.,c." TTL: 5 (Proxy a. AAAA)`, []string{"CNAME", "AAAA"}},
		{DNS{Query: "a", Type: 1, Rcode: 3}, true, "DNS Answer RCode: Non-Existent Domain TTL: 4294967295 (Proxy a. A)", nil},
		{DNS{Query: "a", Type: 1, Rcode: 23}, true, "DNS Answer RCode: 23 TTL: 4294967295 (Proxy a. A)", nil},
	} {
		r := &Record{Kind: KindL7, Word: Forwarded, Proto: policy.ProtoUDP, DNS: &c.dns, Reply: c.answer,
			Source: netip.MustParseAddrPort("10.0.0.1:4000"), Destination: netip.MustParseAddrPort("10.0.0.2:53")}
		f := (&Builder{}).Build(r)
		if got := l7Summary(r, c.answer); got != c.summary {
			t.Errorf("%s, want %s", got, c.summary)
		}
		d := f.GetL7().GetDns()
		if d.GetQuery() != c.dns.Query+"." || len(d.GetQtypes()) != 1 || !slices.Equal(d.GetRrtypes(), c.rrtypes) || f.GetL4().GetUDP() == nil ||
			d.GetRcode() != uint32(c.dns.Rcode) || f.GetL7().GetLatencyNs() != uint64(c.dns.Latency) {
			t.Errorf("%s: %v", c.summary, f)
		}
	}
}
