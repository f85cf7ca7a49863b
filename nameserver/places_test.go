package nameserver

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/miekg/dns"

	"github.com/headgate/headgate/redirect"
)

func headlessZone() *redirect.Zone {
	z := testZone()
	ip := netip.MustParseAddr
	z.Names["a.db.shop.svc"] = []netip.Addr{ip("10.210.0.5"), ip("fd00:210::5")}
	z.Names["b.db.shop.svc"] = []netip.Addr{ip("10.210.0.6")}
	z.Groups = map[string][]netip.Addr{"db.shop.svc": {ip("10.210.0.5"), ip("10.210.0.6"), ip("fd00:210::5")}, "none.shop.svc": nil}
	z.Places = map[string][]redirect.Place{
		"_sql._tcp.db.shop.svc":            {{Target: "a.db.shop.svc", Port: 5432}, {Target: "b.db.shop.svc", Port: 5433}},
		"_http._tcp.deathstar.default.svc": {{Target: "deathstar.default.svc", Port: 80}},
	}
	return z
}

// A name that stands for several, where a port of it is found, and the names of each.
func TestHeadless(t *testing.T) {
	s := start(t, headlessZone())
	for _, c := range []struct {
		name  string
		qtype uint16
		code  int
		want  string
		extra int
	}{
		{"db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.210.0.5 10.210.0.6", 0},
		{"DB.shop.svc.cluster.local.", dns.TypeAAAA, dns.RcodeSuccess, "fd00:210::5", 0},
		{"a.db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "10.210.0.5", 0},
		{"c.db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeNameError, "", 0},
		{"none.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "", 0},
		{"_sql._tcp.db.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "0 50 5432 a.db.shop.svc.cluster.local. 0 50 5433 b.db.shop.svc.cluster.local.", 3},
		{"_SQL._TCP.db.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "0 50 5432 a.db.shop.svc.cluster.local. 0 50 5433 b.db.shop.svc.cluster.local.", 3},
		{"_sql._tcp.db.shop.svc.cluster.local.", dns.TypeA, dns.RcodeSuccess, "", 0},
		{"_tcp.db.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "", 0},
		{"_sql._udp.db.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeNameError, "", 0},
		{"db.shop.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "", 0},
		{"_http._tcp.deathstar.default.svc.cluster.local.", dns.TypeSRV, dns.RcodeSuccess, "0 100 80 deathstar.default.svc.cluster.local.", 2},
		{"5.0.210.10.in-addr.arpa.", dns.TypePTR, dns.RcodeSuccess, "a.db.shop.svc.cluster.local.", 0},
	} {
		for _, network := range []string{"udp", "tcp"} {
			a := s.asked(t, network, loopback()[0], new(dns.Msg).SetQuestion(c.name, c.qtype))
			if a.Rcode != c.code || words(a) != c.want || len(a.Extra) != c.extra || a.Truncated {
				t.Errorf("%s %s over %s: %s %q and %d more, want %s %q and %d", c.name, dns.Type(c.qtype), network,
					dns.RcodeToString[a.Rcode], words(a), len(a.Extra), dns.RcodeToString[c.code], c.want, c.extra)
			}
		}
	}
}

// Every one of those behind a name is first now and then; and more than fit into a
// datagram are told over TCP.
func TestHeadlessMany(t *testing.T) {
	z := testZone()
	z.Groups, z.Places = map[string][]netip.Addr{}, map[string][]redirect.Place{}
	for i := range 200 {
		a := netip.AddrFrom4([4]byte{10, 210, 1, byte(i)})
		name := fmt.Sprintf("m%d.many.default.svc", i)
		z.Names[name] = []netip.Addr{a}
		z.Groups["many.default.svc"] = append(z.Groups["many.default.svc"], a)
		z.Places["_x._tcp.many.default.svc"] = append(z.Places["_x._tcp.many.default.svc"], redirect.Place{Target: name, Port: 1})
	}
	s := start(t, z)
	for name, qtype := range map[string]uint16{"many.default.svc.cluster.local.": dns.TypeA, "_x._tcp.many.default.svc.cluster.local.": dns.TypeSRV} {
		q := new(dns.Msg).SetQuestion(name, qtype)
		short := s.asked(t, "udp", loopback()[0], q)
		if !short.Truncated || len(short.Answer) == 200 {
			t.Errorf("%s over UDP: truncated %v, %d answers", name, short.Truncated, len(short.Answer))
		}
		whole := s.asked(t, "tcp", loopback()[0], q)
		if whole.Truncated || len(whole.Answer) != 200 {
			t.Errorf("%s over TCP: truncated %v, %d answers", name, whole.Truncated, len(whole.Answer))
		}
	}
	first := map[string]bool{}
	for range 64 { // the chance that all are the same one is 200⁻⁶³
		a := s.asked(t, "tcp", loopback()[0], new(dns.Msg).SetQuestion("many.default.svc.cluster.local.", dns.TypeA))
		first[a.Answer[0].String()] = true
	}
	if len(first) < 2 {
		t.Errorf("%v always comes first", first)
	}
}
