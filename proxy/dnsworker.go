package proxy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// dnsWorker is the turn of one socket.
type dnsWorker struct {
	d      *dnsServer
	in     *redirect.Receiver
	out    *redirect.Sender
	flows  map[[2]netip.AddrPort]dnsFlow
	now    time.Time
	asked  dns.Message
	answer dns.Message
	found  dns.Found
	name   [4 * 256]byte
	learn  []LearntAddress
	own    []byte // answers of ours in this turn
	given  []byte // to the proxy before
	writer dnsWriter
	before time.Time // the last turn began

	request  policy.DNSRequest
	exchange dnsExchange // that took the shortcut
	short    shortcut
}

// dnsFlow is what the datapath said of two ends.
type dnsFlow struct {
	known Connection
	at    time.Time
}

const (
	maxFlows = 8192
	// flowLasts bounds how long what the datapath said is believed without a new revision:
	// an address may have become somebody else's.
	flowLasts = time.Second
)

func (w *dnsWorker) run() error {
	for {
		batch, err := w.in.Read()
		switch {
		case errors.Is(err, net.ErrClosed) || w.d.p.life.Err() != nil:
			return nil
		case err != nil && !passes(err) && !errors.Is(err, unix.ECONNREFUSED):
			return fmt.Errorf("read questions: %w", err)
		}
		w.now = time.Now()
		w.out.Forget(w.now)
		w.own = w.own[:0]
		for i := range batch {
			w.guarded(&batch[i])
		}
		w.out.Flush()
		w.gather(len(batch))
	}
}

// guarded keeps a mistake of ours that one datagram meets from ending those of others.
func (w *dnsWorker) guarded(g *redirect.Datagram) {
	defer w.survive(g.Source, g.Destination)
	w.take(g)
}

func (w *dnsWorker) survive(source, destination netip.AddrPort) {
	if r := recover(); r != nil {
		w.d.p.log.Error("datagram failed", "source", source, "destination", destination, "panic", r, "stack", string(debug.Stack()))
	}
}

// take deals with one datagram. What the gate did not hand over, or not to us, is somebody's
// on this machine who knows the port.
func (w *dnsWorker) take(g *redirect.Datagram) {
	switch g.Mark &^ redirect.MarkAnswer {
	case redirect.MarkFromProxy: // the one that takes our place has an answer to what we asked
		if given, ok := taken(g); ok {
			w.answered(&given)
		}
	case redirect.MarkToProxy:
		if !w.d.served.Load() {
			w.d.served.Store(true)
		}
		if g.Mark&redirect.MarkAnswer != 0 {
			w.answered(g)
		} else {
			w.asks(g)
		}
	default:
		w.d.counts.stray.Add(1)
	}
}

// lookup asks the datapath who asks whom, by which rules. It has judged this datagram just
// now, so what it says is not older than that.
func (w *dnsWorker) lookup(client, server netip.AddrPort) (Connection, bool) {
	key := [2]netip.AddrPort{client, server}
	if f, ok := w.flows[key]; ok && f.known.Revision == w.d.p.config.Connections.Revision() && w.now.Sub(f.at) < flowLasts {
		return f.known, true
	}
	known, ok := w.d.p.config.Datagrams.LookupDatagrams(client, server)
	if !ok {
		delete(w.flows, key)
		return known, false
	}
	if len(w.flows) >= maxFlows {
		clear(w.flows)
	}
	w.flows[key] = dnsFlow{known, w.now}
	return known, true
}

// asks deals with a question.
func (w *dnsWorker) asks(g *redirect.Datagram) {
	d := w.d
	known, ok := w.lookup(g.Source, g.Destination)
	if !ok {
		d.counts.unknown.Add(1)
		return
	}
	d.counts.queries.Add(1)
	x := dnsExchange{client: g.Source, server: g.Destination, known: known, udp: true, at: w.now, word: observe.Forwarded}
	err := w.asked.ParseQuery(g.Data)
	if g.Cut {
		err = errLongQuestion
	}
	if err != nil {
		w.unreadable(g, &x, err)
		return
	}
	x.name, x.typ = w.asked.AppendName(w.name[:0]), w.asked.Type
	snapshot := d.p.snapshot.Load()
	decision, direction := w.judge(&x)
	x.decide(&decision, direction)
	if decision.Verdict != policy.Allow {
		d.counts.denied.Add(1)
		w.reply(g, dns.AppendDenial(w.room(), &w.asked, d.p.config.DNS.denial()))
		w.writer.question(&x)
		return
	}
	if decision.Audit == nil {
		w.know(snapshot, &known, &w.asked)
	}
	w.asked.Clamp()
	w.writer.question(&x)
	key := questionKey{g.Source, g.Destination, w.asked.ID, d.questions.hash(w.asked.Question())}
	if w.forward(g, key, &w.asked, &x) {
		return
	}
	w.reply(g, dns.AppendDenial(w.room(), &w.asked, dns.Refused))
}

// judge judges a question. Its name is only looked at until the judgement is there.
func (w *dnsWorker) judge(x *dnsExchange) (policy.Decision, policy.Direction) {
	w.d.p.requests.Add(1)
	decision, direction := w.decide(x)
	if decision.Verdict != policy.Allow {
		w.d.p.denied.Add(1)
	}
	return decision, direction
}

// decide is judge without the count.
func (w *dnsWorker) decide(x *dnsExchange) (policy.Decision, policy.Direction) {
	w.request = policy.DNSRequest{Name: unsafe.String(unsafe.SliceData(x.name), len(x.name)), Type: x.typ}
	defer func() { w.request.Name = "" }()
	return w.d.p.decideDNS(x.known, &w.request)
}

// forward sends a question, which was recorded just now, on and remembers it. False: there is
// no room.
func (w *dnsWorker) forward(g *redirect.Datagram, key questionKey, m *dns.Message, x *dnsExchange) bool {
	d := w.d
	again, ok := d.questions.shard(g.Source.Addr()).add(d.questions, key, m, g.Data, func(q *question) { w.fill(q, x) })
	if !ok {
		d.counts.full.Add(1)
		return false
	}
	if again {
		d.counts.again.Add(1)
	}
	w.out.Forward(g.Source, g.Destination, g)
	return true
}

var errLongQuestion = errors.New("the question is longer than any")

// unreadable deals with a question that cannot be read: it is refused, unless nothing is
// enforced here.
func (w *dnsWorker) unreadable(g *redirect.Datagram, x *dnsExchange, err error) {
	d := w.d
	d.counts.malformed.Add(1)
	d.p.malformed.Add(1)
	pass, audited := false, false
	if s := d.p.snapshot.Load(); s != nil && !x.known.Denied {
		pass, audited = s.passes(route{x.known.Egress, x.known.Ingress})
	}
	x.word, x.detail = observe.Errored, err.Error()
	if id, ok := dns.ID(g.Data); pass && ok && !g.Cut {
		x.word = observe.Forwarded
		if audited {
			x.word = observe.Audited
		}
		x.detail += "; passed on unread, as no policy that enforces applies"
		w.writer.question(x)
		if !w.forward(g, questionKey{g.Source, g.Destination, id, 0}, &dns.Message{ID: id}, x) {
			w.d.counts.full.Add(1)
		}
		return
	}
	w.writer.question(x)
	w.reply(g, dns.AppendRefusal(w.room(), g.Data, dns.Refused))
}

// room is where an answer of ours is appended.
func (w *dnsWorker) room() []byte { return w.own[len(w.own):] }

// reply answers a question itself.
func (w *dnsWorker) reply(g *redirect.Datagram, answer []byte) {
	if len(answer) == 0 {
		return
	}
	if cap(w.own)-len(w.own) >= len(answer) { // it stands in own
		w.own = w.own[:len(w.own)+len(answer)]
	} else {
		w.own = make([]byte, 0, 64<<10)
	}
	w.out.Queue(g.Destination, g.Source, answer)
}

func (l *DNSLimits) denial() uint16 {
	if l.NXDomain {
		return dns.NXDomain
	}
	return dns.Refused
}

// decideDNS judges a question by the sets in force.
func (p *process) decideDNS(known Connection, r *policy.DNSRequest) (policy.Decision, policy.Direction) {
	snapshot := p.snapshot.Load()
	rt := route{known.Egress, known.Ingress}
	decision, direction := policy.Decision{}, policy.Egress
	switch {
	case snapshot == nil:
		decision.Reason = "no policy is in force here yet"
	case known.Denied:
		decision.Reason = "the connection is no longer allowed"
	default:
		if protocol, ok := rt.protocol(); !ok || protocol != policy.ProtocolDNS && protocol != policy.ProtocolNone {
			decision.Reason = "the port is now under rules of another protocol"
		} else {
			decision, direction = snapshot.decide(rt, r)
		}
	}
	return decision, direction
}
