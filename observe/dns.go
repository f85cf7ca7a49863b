package observe

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/miekg/dns"
)

// DNS is what a proxy knows of a question, or of its answer.
type DNS struct {
	Query     string // in normal form: lower case, no dot at the end
	Type      uint16
	Rcode     uint16
	TTL       uint32 // the shortest of the records on the way
	Chain     []string
	Addresses []netip.Addr
	Latency   time.Duration // question to answer
}

// noTTL is what Hubble shows where there is no record.
const noTTL = 1<<32 - 1

// dnsSource is Hubble's word for who saw it.
const dnsSource = "proxy"

func (d *DNS) qtype() string {
	if name, ok := dns.TypeToString[d.Type]; ok {
		return name
	}
	return "TYPE" + strconv.Itoa(int(d.Type))
}

func (d *DNS) query() string { return wire(d.Query, maxShort) + "." }

func (d *DNS) ttl() uint32 {
	if len(d.Addresses) == 0 && len(d.Chain) == 0 {
		return noTTL
	}
	return d.TTL
}

func (d *DNS) ips() []string {
	var all []string
	for _, a := range d.Addresses {
		all = append(all, a.String())
	}
	return all
}

func (d *DNS) cnames() []string {
	var all []string
	for _, c := range d.Chain {
		all = append(all, wire(c, maxShort)+".")
	}
	return all
}

func (d *DNS) record(answer bool) *flowpb.Layer7_Dns {
	r := &flowpb.DNS{Query: d.query(), ObservationSource: dnsSource, Qtypes: []string{d.qtype()}}
	if !answer {
		return &flowpb.Layer7_Dns{Dns: r}
	}
	r.Ips, r.Cnames, r.Rcode, r.Ttl = d.ips(), d.cnames(), uint32(d.Rcode), d.ttl()
	four, six := false, false
	for _, a := range d.Addresses {
		four, six = four || a.Is4(), six || a.Is6()
	}
	for i, there := range [3]bool{len(d.Chain) > 0, four, six} {
		if there {
			r.Rrtypes = append(r.Rrtypes, [3]string{"CNAME", "A", "AAAA"}[i])
		}
	}
	return &flowpb.Layer7_Dns{Dns: r}
}

// summary in Hubble's words: "DNS Query a.example. A", and for the answer
// `DNS Answer "192.0.2.1" TTL: 30 (Proxy a.example. A)`.
func (d *DNS) summary(answer bool) string {
	asked := Printable(d.query()) + " " + d.qtype()
	if !answer {
		return "DNS Query " + asked
	}
	var parts []string
	switch {
	case d.Rcode != 0:
		parts = append(parts, "RCode: "+rcode(d.Rcode))
	default:
		if len(d.Addresses) > 0 {
			parts = append(parts, strconv.Quote(strings.Join(d.ips(), ",")))
		}
		if len(d.Chain) > 0 {
			parts = append(parts, "CNAMEs: "+strconv.Quote(Printable(strings.Join(d.cnames(), ","))))
		}
	}
	return fmt.Sprintf("DNS Answer %s TTL: %d (Proxy %s)", strings.Join(parts, " "), d.ttl(), asked)
}

// rcode in Hubble's words.
func rcode(code uint16) string {
	words := [...]string{
		"No Error", "Format Error", "Server Failure", "Non-Existent Domain", "Not Implemented", "Query Refused",
		"Name Exists when it should not", "RR Set Exists when it should not", "RR Set that should exist does not",
		"Server Not Authoritative for zone", "Name not contained in zone",
	}
	if int(code) < len(words) {
		return words[code]
	}
	return strconv.Itoa(int(code))
}
