package nameserver

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/miekg/dns"

	"github.com/headgate/headgate/redirect"
)

// place is where a service is found; the target is whole, as names are.
type place struct {
	target string
	port   uint16
}

func (z *zone) addPlaces(name string, places []redirect.Place) {
	full := dns.CanonicalName(name + "." + z.domain)
	for _, p := range places {
		z.places[full] = append(z.places[full], place{dns.CanonicalName(p.Target + "." + z.domain), p.Port})
	}
	z.addAbove(full)
}

// answerPlaces says where a service is found: all are as good as one another. Their
// addresses come with it, as far as there is room.
func (z *zone) answerPlaces(a *dns.Msg, name string, places []place) {
	places = shuffled(places)
	weight := uint16(max(1, 100/len(places)))
	told := map[string]bool{}
	for _, p := range places {
		a.Answer = append(a.Answer, &dns.SRV{Hdr: header(name, dns.TypeSRV), Weight: weight, Port: p.port, Target: p.target})
		if !told[p.target] {
			told[p.target] = true
			a.Extra = append(a.Extra, addresses(p.target, dns.TypeA, z.names[p.target])...)
			a.Extra = append(a.Extra, addresses(p.target, dns.TypeAAAA, z.names[p.target])...)
		}
	}
}

// addresses are the records of a name, in another order each time: many a client takes
// the first.
func addresses(name string, qtype uint16, addrs []netip.Addr) []dns.RR {
	var out []dns.RR
	for _, ip := range shuffled(addrs) {
		if ip.Is4() && qtype == dns.TypeA {
			out = append(out, &dns.A{Hdr: header(name, dns.TypeA), A: ip.AsSlice()})
		}
		if ip.Is6() && qtype == dns.TypeAAAA {
			out = append(out, &dns.AAAA{Hdr: header(name, dns.TypeAAAA), AAAA: ip.AsSlice()})
		}
	}
	return out
}

func shuffled[T any](all []T) []T {
	if len(all) < 2 {
		return all
	}
	out := slices.Clone(all)
	rand.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}
