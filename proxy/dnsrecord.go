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
	p                              *process
	common, decided, verdict, body []byte
	message                        []byte
}

// question records a question, and returns what of it belongs to its answer's record too,
// until it is called again.
func (w *dnsWriter) question(x *dnsExchange) (decided []byte) {
	w.common = appendEnds(w.common[:0], x.client, x.server, x.known.SourceIdentity, x.known.DestinationIdentity)
	w.decided = appendDecision(w.decided[:0], &x.shown, x.direction)
	w.verdict = appendVerdict(w.verdict[:0], x.at, x.word, x.reason)
	w.verdict = appendCleanText(w.verdict, fieldDetail, x.detail)
	w.body = appendAsked(w.body[:0], x.name, x.typ, x.udp)
	w.add()
	return w.decided
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

func (w *dnsWriter) add() {
	w.message = protowire.AppendTag(w.message[:0], fieldDNS, protowire.BytesType)
	w.message = protowire.AppendBytes(w.message, w.body)
	w.p.ring.add(w.common, w.decided, w.verdict, w.message)
}

// answer records the answer to a question that came by UDP.
func (w *dnsWriter) answer(x *question, rcode uint16, f *dns.Found, now time.Time, err error) {
	if x.key.hash == 0 {
		return // of which nothing is known
	}
	var name [4 * 256]byte
	w.decided = append(w.decided[:0], x.decided...)
	w.reply(&dnsExchange{
		client: x.key.client, server: x.key.server, known: x.known, udp: true, at: x.at,
		name: x.message.AppendName(name[:0]), typ: x.message.Type,
	}, rcode, f, now, err)
}

// reply records an answer; decided is as question returned it.
func (w *dnsWriter) reply(x *dnsExchange, rcode uint16, f *dns.Found, now time.Time, err error) {
	word, detail := observe.Forwarded, ""
	if err != nil {
		word, detail = observe.Errored, err.Error()
	}
	w.common = appendEnds(w.common[:0], x.client, x.server, x.known.SourceIdentity, x.known.DestinationIdentity)
	w.verdict = appendVerdict(w.verdict[:0], now, word, observe.ReasonNone)
	w.verdict = appendUint(w.verdict, fieldReply, 1)
	w.verdict = appendUint(w.verdict, fieldLatency, uint64(max(now.Sub(x.at), 1)))
	w.verdict = appendCleanText(w.verdict, fieldDetail, detail)
	w.body = appendAsked(w.body[:0], x.name, x.typ, x.udp)
	w.body = appendUint(w.body, dnsRcode, uint64(rcode))
	if len(f.Records) > 0 || len(f.Chain) > 0 {
		w.body = appendUint(w.body, dnsTTL, uint64(f.TTL))
	}
	for _, alias := range f.Chain[:min(len(f.Chain), maxShown)] {
		w.body = appendString(w.body, dnsChain, alias)
	}
	for _, r := range f.Records[:min(len(f.Records), maxShown)] {
		w.body = appendAddr(w.body, dnsAddress, r.Addr)
	}
	w.add()
}

func dnsRecordFromProto(r *proxyv1.Record) *observe.DNS {
	d := &observe.DNS{
		Query: r.Dns.Query, Type: uint16(r.Dns.Type), Rcode: uint16(r.Dns.Rcode), TTL: r.Dns.Ttl, Chain: r.Dns.Chain,
		Latency: time.Duration(r.LatencyNs),
	}
	for _, b := range r.Dns.Addresses {
		if a, ok := netip.AddrFromSlice(b); ok {
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
