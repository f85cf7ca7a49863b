package nameserver

import (
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/miekg/dns"

	"github.com/headgate/headgate/redirect"
)

// ttl is short: what a name stands for can change at any moment.
const ttl = 5

// zone is a redirect.Zone with what answers need.
type zone struct {
	*redirect.Zone
	domain string                  // "cluster.local."
	names  map[string][]netip.Addr // whole, in lower case, with the last dot
	places map[string][]place      // so are these
	inner  map[string]bool         // names that have others below them
	ptr    map[string][]string     // reverse names
}

func newZone(from *redirect.Zone) *zone {
	z := &zone{
		Zone: from, domain: dns.CanonicalName(from.Domain), names: map[string][]netip.Addr{},
		inner: map[string]bool{}, ptr: map[string][]string{}, places: map[string][]place{},
	}
	z.inner[z.domain] = true
	z.add("ns.dns", from.Listen, false)
	for name, addrs := range from.Names {
		z.add(name, addrs, true)
	}
	for name, addrs := range from.Groups {
		z.add(name, addrs, false)
	}
	for name, places := range from.Places {
		z.addPlaces(name, places)
	}
	return z
}

func (z *zone) add(name string, addrs []netip.Addr, reverse bool) {
	full := dns.CanonicalName(name + "." + z.domain)
	z.names[full] = append(z.names[full], addrs...)
	z.addAbove(full)
	for _, a := range addrs {
		if r, err := dns.ReverseAddr(a.String()); err == nil && reverse {
			z.ptr[r] = append(z.ptr[r], full)
			slices.Sort(z.ptr[r])
		}
	}
}

// addAbove makes the names above one exist.
func (z *zone) addAbove(full string) {
	for up := full; up != z.domain && up != ""; {
		_, up, _ = strings.Cut(up, ".")
		z.inner[up] = true
	}
}

// mayAsk keeps strangers from asking others through this machine.
func (z *zone) mayAsk(from net.Addr) bool {
	at, err := netip.ParseAddrPort(from.String())
	ip := at.Addr().Unmap()
	if err != nil {
		return false
	}
	for _, p := range z.Clients {
		if p.Contains(ip) {
			return true
		}
	}
	return ip.IsLoopback()
}

// answer is what this zone has to say, nil if another is to be asked.
func (z *zone) answer(q *dns.Msg) *dns.Msg {
	asked := q.Question[0]
	name := dns.CanonicalName(asked.Name)
	if hosts := z.ptr[name]; len(hosts) > 0 {
		return z.pointers(q, hosts)
	}
	if !dns.IsSubDomain(z.domain, name) {
		return nil
	}
	a := new(dns.Msg).SetReply(q)
	a.Authoritative, a.RecursionAvailable = true, true
	copyEDNS(a, q)
	addrs, known := z.names[name]
	switch {
	case name == z.domain && asked.Qtype == dns.TypeSOA:
		a.Answer = append(a.Answer, z.soa())
	case name == z.domain && asked.Qtype == dns.TypeNS:
		a.Answer = append(a.Answer, &dns.NS{Hdr: header(asked.Name, dns.TypeNS), Ns: "ns.dns." + z.domain})
	case known:
		a.Answer = append(a.Answer, addresses(asked.Name, asked.Qtype, addrs)...)
	case asked.Qtype == dns.TypeSRV && len(z.places[name]) > 0:
		z.answerPlaces(a, asked.Name, z.places[name])
	case !z.inner[name] && z.places[name] == nil:
		a.Rcode = dns.RcodeNameError
	}
	if len(a.Answer) == 0 {
		a.Ns = append(a.Ns, z.soa()) // for how long to believe it (RFC 2308, 3)
	}
	return a
}

func (z *zone) pointers(q *dns.Msg, hosts []string) *dns.Msg {
	a := new(dns.Msg).SetReply(q)
	a.Authoritative, a.RecursionAvailable = true, true
	copyEDNS(a, q)
	for _, h := range hosts {
		if q.Question[0].Qtype == dns.TypePTR {
			a.Answer = append(a.Answer, &dns.PTR{Hdr: header(q.Question[0].Name, dns.TypePTR), Ptr: h})
		}
	}
	return a
}

func (z *zone) soa() *dns.SOA {
	return &dns.SOA{
		Hdr: header(z.domain, dns.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: ttl,
	}
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ttl}
}

// copyEDNS answers one that speaks EDNS in kind (RFC 6891, 6.1.1).
func copyEDNS(a, q *dns.Msg) {
	if q.IsEdns0() != nil {
		a.SetEdns0(1232, false)
	}
}
