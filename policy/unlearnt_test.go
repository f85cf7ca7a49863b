package policy

import (
	"strings"
	"testing"
)

func TestUnlearnt(t *testing.T) {
	by := &Policy{Kind: "CiliumNetworkPolicy", Namespace: "x", Name: "p", Rules: []Rule{{Peers: []Peer{EntityWorld}}, {Peers: []Peer{mustFQDN("a.example.com", ""), mustFQDN("", "*")}, Ref: Ref{"x/p", "egress[1]"}}}}
	dns := &Policy{Rules: []Rule{{Ports: []PortRule{{L7: &L7Rules{Protocol: ProtocolDNS, DNS: []DNSRule{{}}}}}}}}
	got := Unlearnt([]*Policy{by})
	if len(got) != 1 || !strings.HasPrefix(got[0], "CiliumNetworkPolicy x/p: egress[1].toFQDNs: ") {
		t.Errorf("%q", got)
	}
	if got := Unlearnt([]*Policy{by, dns}); got != nil {
		t.Errorf("with a rule for DNS elsewhere: %q", got)
	}
	if got := Unlearnt([]*Policy{dns}); got != nil {
		t.Errorf("without names: %q", got)
	}
}
