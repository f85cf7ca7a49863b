package observe

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

func TestNamesOfFlows(t *testing.T) {
	var n Names
	client, other := netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:4000")
	server := netip.MustParseAddr("192.0.2.1")
	told := func(name string) {
		r := Record{Source: client, DNS: &DNS{Query: name, Addresses: []netip.Addr{server}}}
		n.Learn([]Digest{r.Digest()})
	}
	told("a.example.com")
	told("b.example.com")
	told("a.example.com")
	n.Learn([]Digest{{Source: client}})
	b := &Builder{Names: n.Of}
	flow := b.Build(&Record{Source: client, Destination: netip.AddrPortFrom(server, 80), Direction: policy.Egress, Proto: policy.ProtoTCP})
	if want := []string{"b.example.com", "a.example.com"}; !slices.Equal(flow.DestinationNames, want) {
		t.Errorf("%v, want %v", flow.DestinationNames, want)
	}
	if flow := b.Build(&Record{Source: other, Destination: netip.AddrPortFrom(server, 80), Direction: policy.Egress}); len(flow.DestinationNames) != 0 {
		t.Errorf("who never asked sees %v", flow.DestinationNames)
	}
	for i := range 20 {
		told(fmt.Sprintf("n%d.example.com", i))
	}
	if got := n.Of(client.Addr(), server); len(got) != maxNames || got[0] != "n19.example.com" {
		t.Errorf("%v", got)
	}
	n.Learn([]Digest{{Source: client, Addresses: []netip.Addr{server}, Query: []byte(strings.Repeat("x", longestName+1))}})
	if got := n.Of(client.Addr(), server); got[0] != "n19.example.com" {
		t.Errorf("a name of %d bytes is remembered", len(got[0]))
	}
	for i := range maxAnswered {
		n.add(question{other.Addr(), netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})}, &name{raw: []byte("x")})
	}
	if got := n.Of(client.Addr(), server); got != nil || len(n.known) != maxAnswered || n.order.Len() != maxAnswered {
		t.Errorf("%v, %d and %d remembered", got, len(n.known), n.order.Len())
	}
}
