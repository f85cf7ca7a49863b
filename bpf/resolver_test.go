package bpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// dnsReply is an answer of the DNS; what is behind its records is of the question.
type dnsReply struct {
	dnsQuery
	records []dnsRecord
}

type dnsRecord struct {
	owner      []byte
	typ, class uint16
	ttl        uint32
	length     uint16
	data       []byte
}

const typeAAAA = 28

// answered is the plain answer to a question.
func (q dnsQuery) answered(ttl uint32, addrs ...netip.Addr) dnsReply {
	r := dnsReply{dnsQuery: q}
	r.flags, r.answers, r.adds, r.behind = 0x8180, uint16(len(addrs)), 0, nil
	for _, a := range addrs {
		data := a.AsSlice()
		r.records = append(r.records, dnsRecord{[]byte{0xc0, 12}, q.typ, 1, ttl, uint16(len(data)), data})
	}
	return r
}

func (r dnsReply) bytes() []byte {
	question := r.dnsQuery
	question.behind = nil
	b := question.bytes()
	for _, rec := range r.records {
		b = append(b, rec.owner...)
		b = binary.BigEndian.AppendUint16(b, rec.typ)
		b = binary.BigEndian.AppendUint16(b, rec.class)
		b = binary.BigEndian.AppendUint32(b, rec.ttl)
		b = binary.BigEndian.AppendUint16(b, rec.length)
		b = append(b, rec.data...)
	}
	return append(b, r.behind...)
}

func (q dnsQuery) of(typ uint16) dnsQuery {
	q.typ = typ
	return q
}

// addressesOf are some that a name has, of a type.
func addressesOf(typ uint16, n int) (out []netip.Addr) {
	a := mustAddr("198.18.0.1")
	if typ == typeAAAA {
		a = mustAddr("2001:db8:aaaa::1")
	}
	for range n {
		out, a = append(out, a), a.Next()
	}
	return out
}

// resolver is a lab in which questions are asked of servers here and elsewhere.
type resolver struct {
	*outer
	ports map[bool]uint16 // the proxy's, by family
}

func newResolver(t *testing.T) *resolver {
	o := newOuter(t)
	return &resolver{o, map[bool]uint16{
		false: datagrams(t, "127.0.0.1:0", redirect.MarkFromProxy), true: datagrams(t, "[::1]:0", redirect.MarkFromProxy),
	}}
}

func (o *resolver) in(t testing.TB) *resolver {
	c := *o
	c.outer = o.outer.in(t)
	return &c
}

// begin has a name known, and its addresses told to a, for an hour.
func (o *resolver) begin(v6 bool, q dnsQuery, addrs ...netip.Addr) {
	o.Helper()
	o.rulesOf(v6, setDNS, 0)
	o.must(o.g.Questions().SetKnownRound(round))
	o.must(o.g.Questions().SetToldRound(round))
	o.must(o.g.Questions().Know(round, setDNS, 0, bytes.ToLower(q.name), q.typ))
	o.tell(o.a.id, q, time.Hour, addrs...)
	o.recorded()
}

// rulesOf begins anew with these sets.
func (o *resolver) rulesOf(v6 bool, egress, ingress uint32) {
	o.Helper()
	o.renew(redirecting(egress, ingress))
	for _, m := range []*ebpf.Map{o.g.objs.HgDnsAsked1, o.g.objs.HgDnsKnown1, o.g.objs.HgDnsTold1} {
		o.must(empty(m))
	}
	o.emptyNames()
	o.must(o.g.SetRoute(AnyRoute(policy.ProtocolDNS), o.ports[v6]))
}

// tell says that an endpoint was told of a name, for some time.
func (o *resolver) tell(endpoint uint16, q dnsQuery, long time.Duration, addrs ...netip.Addr) {
	o.Helper()
	until := time.Duration(monotonic()) + long
	o.must(o.g.Questions().Tell(round, endpoint, bytes.ToLower(q.name), q.typ, addrs, make([]policy.Identity, len(addrs)), until, 0))
}

// recordedExchange is what the gate says of an answer that it let go on.
type recordedExchange struct {
	client, server  netip.AddrPort
	asked, answered time.Duration
	query, answer   []byte
}

// recorded are those since it was last called.
func (o *resolver) recorded() (out []recordedExchange) {
	o.Helper()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	o.must(o.g.Questions().Read(over, 1, 1, func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte) {
		out = append(out, recordedExchange{client, server, asked, answered, bytes.Clone(query), bytes.Clone(answer)})
	}))
	return out
}

// way is one between a and its server.
type way struct {
	o        *resolver
	asks     frame          // as a sends it
	server   netip.AddrPort // who has it in the end
	local    bool           // b is the server
	reversed frame          // as the server answers it
}

// ways are those that questions and answers of the shortcut go.
var ways = []string{"workload", "service of a workload", "outside", "outside, own address", "service outside"}

// way begins one: the question is sent, and asked.
func (o *resolver) way(name string, v6 bool, port uint16) *way {
	o.Helper()
	w := &way{o: o, asks: o.asks(v6, nil)}
	w.asks.sport = port
	switch name {
	case "workload":
		w.local = true
	case "service of a workload":
		w.local = true
		o.serve(v6, nil, o.b.backend(v6))
		w.asks = w.asks.asked()
	case "service outside":
		o.serve(v6, nil, netip.AddrPortFrom(o.remote(v6), 53))
		w.asks = w.asks.asked()
	default:
		w.asks = o.world(w.asks)
	}
	w.server = w.asks.target()
	switch name {
	case "service of a workload":
		w.server = o.b.backend(v6)
	case "service outside":
		w.server = netip.AddrPortFrom(o.remote(v6), 53)
	}
	left := w.asks.at(w.server)
	if !w.local && name != "outside, own address" {
		left = left.asNode(port)
	}
	w.reversed = left.reversed(0)
	if w.local {
		w.reversed.srcMAC, w.reversed.dstMAC = o.b.mac, gatewayMAC
	}
	return w
}

// ask sends a question, which goes on.
func (w *way) ask(q dnsQuery) {
	w.o.Helper()
	f := w.asks
	f.payload = q.bytes()
	if r := w.o.sends(w.o.a, f); r.action != actionSend {
		w.o.Fatalf("question: action %d, counted %q", r.action, w.o.counted())
	}
	if w.local || w.reversed.dst == w.asks.src {
		return
	}
	r := w.o.leaves(w.o.a, f.at(w.server), 0)
	if r.action != actionNext {
		w.o.Fatalf("question leaves: action %d, counted %q", r.action, w.o.counted())
	}
	w.reversed.dport = nodePort(f, r.data) // another one if the host has its own
}

// comes is what becomes of a packet from the server.
func (w *way) comes(f frame) result {
	w.o.Helper()
	if w.local {
		return w.o.sends(w.o.b, f)
	}
	return w.o.enters(f)
}

// answer is what becomes of a message from the server.
func (w *way) answer(message []byte) result {
	w.o.Helper()
	f := w.reversed
	f.payload = message
	return w.comes(f)
}

func (w *way) direction() policy.Direction {
	if w.local {
		return policy.Egress
	}
	return policy.Ingress
}

// passes asks, and wants the answer to reach the client as if there were no proxy, once, and
// both to be recorded.
func (w *way) passes(what string, q dnsQuery, message []byte) {
	o := w.o
	o.Helper()
	began := time.Duration(monotonic())
	w.ask(q)
	o.forget()
	r := w.answer(message)
	o.expect(what, r, actionSend, 0, w.direction())
	want := w.asks.reversed(0)
	want.dstMAC, want.srcMAC, want.payload = o.a.mac, gatewayMAC, message
	want.ttl--
	if !bytes.Equal(r.data, want.bytes()) {
		o.Errorf("%s: the client gets\n%x, want\n%x", what, r.data, want.bytes())
	}
	got := o.recorded()
	if len(got) != 1 || got[0].client != w.asks.source() || got[0].server != w.server ||
		!bytes.Equal(got[0].query, q.bytes()) || !bytes.Equal(got[0].answer, message) {
		o.Errorf("%s: recorded %+v", what, got)
	} else if e := got[0]; e.asked < began || e.answered < e.asked || time.Duration(monotonic()) < e.answered {
		o.Errorf("%s: begun at %v, asked at %v, answered at %v, now %v", what, began, e.asked, e.answered, time.Duration(monotonic()))
	}
	if n := o.waiting(1 << 62); n != 0 {
		o.Errorf("%s: %d questions wait still", what, n)
	}
}

// isProxys wants a packet from the server to be the proxy's, with the question of it.
func (w *way) isProxys(what string, f frame) { w.refused(what, f, 179, 1) }

// refused wants one not to reach the client, for a reason, and so many questions to wait.
func (w *way) refused(what string, f frame, reason uint8, waiting int) {
	o := w.o
	o.Helper()
	o.forget()
	r := w.comes(f)
	if got, want := o.counted(), fmt.Sprintf("0 %s, %d %[1]s", w.direction(), reason); r.action != actionShot || got != want {
		o.Errorf("%s: action %d, counted %q, want %q", what, r.action, got, want)
	}
	if n := o.waiting(1 << 62); n != waiting {
		o.Errorf("%s: %d questions wait, want %d", what, n, waiting)
	}
	if got := o.recorded(); len(got) != 0 {
		o.Errorf("%s: recorded %+v", what, got)
	}
}

func (w *way) with(message []byte) frame {
	f := w.reversed
	f.payload = message
	return f
}
