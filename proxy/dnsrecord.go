package proxy

import (
	"net/netip"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
)

// Field numbers of DNSRecord in proxy.proto, and of it in Record.
const (
	fieldDNS = 41

	dnsQuery   = 1
	dnsType    = 2
	dnsUDP     = 3
	dnsRcode   = 4
	dnsTTL     = 5
	dnsChain   = 6
	dnsAddress = 7

	// maxShown bounds the addresses and aliases of one record.
	maxShown = 32
)

// dnsExchange is what a record tells of a question.
type dnsExchange struct {
	client, server netip.AddrPort
	known          Connection
	udp            bool
	at             time.Time
	name           []byte
	typ            uint16
	word           observe.Word
	reason         observe.DropReason
	shown          policy.Decision
	direction      policy.Direction
	detail         string
}

// decide takes what became of the question.
func (x *dnsExchange) decide(d *policy.Decision, direction policy.Direction) {
	x.shown, x.direction, x.word, x.reason = *d, direction, observe.Forwarded, observe.ReasonNone
	switch {
	case d.Verdict != policy.Allow:
		x.word, x.reason = observe.Dropped, observe.ReasonPolicyDenied
		if d.Rule != (policy.Ref{}) {
			x.reason = observe.ReasonPolicyDeny
		}
	case d.Audit != nil:
		x.word, x.shown = observe.Audited, *d.Audit
	}
}

// dnsWriter makes records, in memory that it keeps.
type dnsWriter struct {
	p *process
	// shared and asked are in both records of a question: what stands for its ends and who
	// decided, and what of the DNS itself.
	shared, asked       []byte
	verdict, head, rest []byte
}

// question records a question. What of it belongs to its answer's record too is in shared and
// asked until the next.
func (w *dnsWriter) question(x *dnsExchange) {
	w.share(x)
	w.verdict = appendVerdict(w.verdict[:0], x.at, x.word, x.reason)
	w.verdict = appendCleanText(w.verdict, fieldDetail, x.detail)
	w.add(w.shared, w.asked, nil)
}

func (w *dnsWriter) share(x *dnsExchange) {
	w.shared = appendEnds(w.shared[:0], x.client, x.server, x.known.SourceIdentity, x.known.DestinationIdentity)
	w.shared = appendDecision(w.shared, &x.shown, x.direction)
	w.asked = appendAsked(w.asked[:0], x.name, x.typ, x.udp)
}

func appendAsked(b, name []byte, typ uint16, udp bool) []byte {
	b = protowire.AppendTag(b, dnsQuery, protowire.BytesType)
	b = protowire.AppendBytes(b, name)
	b = appendUint(b, dnsType, uint64(typ))
	if udp {
		b = appendUint(b, dnsUDP, 1)
	}
	return b
}

// add puts a record together, of verdict besides.
func (w *dnsWriter) add(shared, asked, rest []byte) {
	w.head = protowire.AppendTag(w.head[:0], fieldDNS, protowire.BytesType)
	w.head = protowire.AppendVarint(w.head, uint64(len(asked)+len(rest)))
	w.p.ring.add(shared, w.verdict, w.head, asked, rest)
}

// answer records the answer to a question that came by UDP.
func (w *dnsWriter) answer(x *question, rcode uint16, f *dns.Found, now time.Time, err error) {
	if x.key.hash == 0 {
		return // of which nothing is known
	}
	w.outcome(x.at, rcode, f, now, err)
	w.add(x.shared, x.asked, w.rest)
}

// reply records an answer of whose question nothing is kept.
func (w *dnsWriter) reply(x *dnsExchange, rcode uint16, f *dns.Found, now time.Time, err error) {
	w.share(x)
	w.outcome(x.at, rcode, f, now, err)
	w.add(w.shared, w.asked, w.rest)
}

// outcome is what an answer's record says besides.
func (w *dnsWriter) outcome(at time.Time, rcode uint16, f *dns.Found, now time.Time, err error) {
	word, detail := observe.Forwarded, ""
	if err != nil {
		word, detail = observe.Errored, err.Error()
	}
	w.verdict = appendVerdict(w.verdict[:0], now, word, observe.ReasonNone)
	w.verdict = appendUint(w.verdict, fieldReply, 1)
	w.verdict = appendUint(w.verdict, fieldLatency, uint64(max(now.Sub(at), 1)))
	w.verdict = appendCleanText(w.verdict, fieldDetail, detail)
	w.rest = appendUint(w.rest[:0], dnsRcode, uint64(rcode))
	if len(f.Records) > 0 || len(f.Chain) > 0 {
		w.rest = appendUint(w.rest, dnsTTL, uint64(f.TTL))
	}
	for _, alias := range f.Chain[:min(len(f.Chain), maxShown)] {
		w.rest = appendString(w.rest, dnsChain, alias)
	}
	for _, r := range f.Records[:min(len(f.Records), maxShown)] {
		w.rest = appendAddr(w.rest, dnsAddress, r.Addr)
	}
}

func dnsRecordFromProto(r *proxyv1.Record) *observe.DNS {
	d := &observe.DNS{
		Query: r.Dns.Query, Type: uint16(r.Dns.Type), Rcode: uint16(r.Dns.Rcode), TTL: r.Dns.Ttl, Chain: r.Dns.Chain[:min(len(r.Dns.Chain), maxShown)],
		Latency: time.Duration(r.LatencyNs),
	}
	for _, b := range r.Dns.Addresses {
		if a, ok := netip.AddrFromSlice(b); ok && len(d.Addresses) < maxShown {
			d.Addresses = append(d.Addresses, a)
		}
	}
	return d
}

func dnsToProto(r policy.DNSRule) *proxyv1.DNSRule {
	return &proxyv1.DNSRule{Name: r.Name, Pattern: r.Pattern, Types: each(r.Types, func(t uint16) uint32 { return uint32(t) }), Ref: refToProto(r.Ref)}
}

func dnsFromProto(p *proxyv1.DNSRule) policy.DNSRule {
	return policy.DNSRule{Name: p.Name, Pattern: p.Pattern, Types: each(p.Types, func(t uint32) uint16 { return uint16(min(t, 0xffff)) }), Ref: refFromProto(p.Ref)}
}
