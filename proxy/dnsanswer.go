package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// answered deals with an answer: it goes on if it is for a question, says nothing that
// cannot be read, and its addresses are in force.
func (w *dnsWorker) answered(g *redirect.Datagram) {
	d := w.d
	client, server := g.Destination, g.Source
	shard := d.questions.shard(client.Addr())
	m := &w.answer
	var err error
	if g.Cut {
		err = m.ParseAnswerHead(g.Data)
	} else if err = m.ParseAnswer(g.Data); err == nil {
		err = m.Find(&w.found)
	}
	if err != nil {
		if !w.unread(g, shard) {
			d.counts.badAnswers.Add(1)
		}
		return
	}
	key := questionKey{client, server, m.ID, d.questions.hash(m.Question())}
	x, handled := shard.take(key, m.Question()), false
	short := x == nil
	if short {
		x, handled = w.wentOn(key, m, shard)
	}
	if handled {
		return
	}
	if x == nil {
		if !w.unread(g, shard) && !w.give(g) {
			d.counts.unmatched.Add(1)
			w.guessed(g, shard)
		}
		return
	}
	d.counts.answers.Add(1)
	if g.Cut || len(g.Data) > x.message.Takes() {
		d.counts.cut.Add(1)
		w.found.Records, w.found.Chain = w.found.Records[:0], w.found.Chain[:0]
		w.reply(&redirect.Datagram{Source: client, Destination: server}, dns.AppendTruncated(w.room(), &x.message))
		w.writer.answer(x, m.Rcode, &w.found, w.now, nil)
		shard.free(d.questions, x)
		return
	}
	if d.p.config.Learner == nil || len(w.found.Records) == 0 || !x.known.learns() {
		w.out.Forward(server, client, g)
		w.writer.answer(x, m.Rcode, &w.found, w.now, nil)
		shard.free(d.questions, x)
		return
	}
	round := d.p.telling.Load()
	now, err := w.learnNow(client.Addr())
	switch {
	case !now:
		w.hold(g, shard, x)
		return
	case err == nil:
		if short && round != 0 {
			w.tell(round, m)
		}
		w.out.Forward(server, client, g)
		w.writer.answer(x, m.Rcode, &w.found, w.now, nil)
	default:
		d.counts.unlearnt.Add(1)
		w.reply(&redirect.Datagram{Source: client, Destination: server}, dns.AppendDenial(w.room(), &x.message, dns.ServFail))
		w.writer.answer(x, dns.ServFail, &dns.Found{}, w.now, err)
	}
	shard.free(d.questions, x)
}

// learnNow has the addresses of an answer put in force within this turn. False: that takes longer.
func (w *dnsWorker) learnNow(client netip.Addr) (now bool, err error) {
	l, ok := w.d.p.config.Learner.(Immediate)
	if !ok {
		return false, nil
	}
	w.learn = appendLearnt(w.learn[:0], &w.found)
	name := w.answer.AppendName(w.name[:0])
	w.short.standing.Endpoint = 0
	return l.LearnNow(Learnt{
		Client: client, Name: unsafe.String(unsafe.SliceData(name), len(name)), Chain: w.found.Chain, Addresses: w.learn, At: w.now,
	}, &w.short.standing)
}

var errGuessed = errors.New("too many answers came that are to no question")

// guessed ends the questions that somebody tries to guess.
func (w *dnsWorker) guessed(g *redirect.Datagram, shard *shard) {
	for _, x := range shard.guessed(twoEnds{g.Destination, g.Source}, w.now) {
		w.d.counts.unanswered.Add(1)
		if x.key.hash != 0 { // else nobody knows what it asks
			w.reply(&redirect.Datagram{Source: x.key.client, Destination: x.key.server}, dns.AppendDenial(w.room(), &x.message, dns.ServFail))
		}
		w.writer.answer(x, dns.ServFail, &dns.Found{}, w.now, errGuessed)
		shard.free(w.d.questions, x)
	}
}

// give hands an answer to the proxy before, unless it came from another.
func (w *dnsWorker) give(g *redirect.Datagram) (given bool) {
	if g.Mark&redirect.MarkMask == redirect.MarkToProxy {
		w.given, given = w.d.before.give(g, w.in, w.given, w.now)
	}
	return given
}

// unread lets pass what may be the answer to a question that could not be read.
func (w *dnsWorker) unread(g *redirect.Datagram, shard *shard) bool {
	id, ok := dns.ID(g.Data)
	if !ok || g.Cut {
		return false
	}
	x := shard.take(questionKey{g.Destination, g.Source, id, 0}, nil)
	if x == nil {
		return false
	}
	w.out.Forward(g.Source, g.Destination, g)
	shard.free(w.d.questions, x)
	return true
}

// learns reports whether answers are learnt from: those that a client's own rules about the
// DNS let it ask. With rules of the server alone, nothing of the client's says whom to believe.
func (k *Connection) learns() bool {
	return k.Egress != 0 && k.Egress.Protocol() == policy.ProtocolDNS
}

// Whether an answer may go, seen from its two sides: who asked the Learner, and whom that
// tells. The second to come acts.
const (
	learning int32 = iota
	holding
	told
)

// hold keeps an answer until its addresses are in force.
func (w *dnsWorker) hold(g *redirect.Datagram, shard *shard, x *question) {
	d := w.d
	x.answer, x.found = bytes.Clone(g.Data), answered{w.answer.Rcode, dns.Found{Chain: cloneAll(w.found.Chain), Records: cloneAll(w.found.Records), TTL: w.found.TTL}}
	w.learn = appendLearnt(w.learn[:0], &w.found)
	use := shard.hold(x)
	name := string(w.answer.AppendName(w.name[:0]))
	state := new(struct {
		atomic.Int32
		err error
	})
	d.p.config.Learner.Learn(Learnt{Client: g.Destination.Addr(), Name: name, Chain: w.found.Chain, Addresses: w.learn, At: w.now}, func(err error) {
		state.err = err
		if state.Swap(told) == holding {
			d.release(x, use, err)
		}
	})
	if state.CompareAndSwap(learning, holding) || !shard.claim(x, use) {
		return
	}
	d.finish(x, state.err, w.out, &w.writer, &w.own, w.now)
	shard.free(d.questions, x)
}

func appendLearnt(to []LearntAddress, f *dns.Found) []LearntAddress {
	for _, r := range f.Records {
		to = append(to, LearntAddress{Addr: r.Addr, TTL: time.Duration(r.TTL) * time.Second})
	}
	return to
}

// answered is what a held answer says.
type answered struct {
	rcode uint16
	dns.Found
}

func cloneAll[T any](s []T) []T { return append([]T(nil), s...) }

// release ends a held answer from outside the turn of its worker.
func (d *dnsServer) release(x *question, use uint64, err error) {
	shard := d.questions.shard(x.key.client.Addr())
	if !shard.claim(x, use) {
		return
	}
	d.late.Lock()
	var own []byte
	now := time.Now()
	d.late.sender.Forget(now)
	d.finish(x, err, d.late.sender, &d.late.writer, &own, now)
	d.late.sender.Flush()
	d.late.Unlock()
	shard.free(d.questions, x)
}

// finish sends a held answer, or why there is none.
func (d *dnsServer) finish(x *question, err error, out *redirect.Sender, writer *dnsWriter, own *[]byte, now time.Time) {
	if err == nil {
		out.Queue(x.key.server, x.key.client, x.answer)
		writer.answer(x, x.found.rcode, &x.found.Found, now, nil)
		return
	}
	if err == errDeadline {
		d.counts.deadline.Add(1)
	} else {
		d.counts.unlearnt.Add(1)
	}
	from := len(*own)
	*own = dns.AppendDenial(*own, &x.message, dns.ServFail)
	out.Queue(x.key.server, x.key.client, (*own)[from:])
	writer.answer(x, dns.ServFail, &dns.Found{}, now, err)
}
