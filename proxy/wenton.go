package proxy

import (
	"net/netip"
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// wentOn finds the question of an answer among those that went on without us. handled: there
// is nothing left to do about the answer.
func (w *dnsWorker) wentOn(key questionKey, m *dns.Message, s *shard) (x *question, handled bool) {
	if w.d.p.config.Shortcut == nil {
		return nil, false
	}
	e, asked, ok := w.fetch(key.client, key.server, key.id)
	if !ok {
		w.d.moving.Lock() // it may be on its way to those that came here, or have come there since
		defer w.d.moving.Unlock()
		return s.take(key, m.Question()), false
	}
	if !w.admits(e, asked) {
		return nil, true
	}
	if s.bars(key.ends(), w.now) { // it may be right, and nobody knows
		w.ends(e, asked, errGuessed)
		return nil, true
	}
	own := key
	own.hash = w.d.questions.hash(asked.Question())
	if own.hash != key.hash || string(asked.Question()) != string(m.Question()) {
		w.wait(own, asked, e, s) // for its own
		return nil, false
	}
	s.trust(key.ends())
	if x = s.adopt(w.d.questions, key, asked, w.short.query, func(q *question) { w.fill(q, e) }); x == nil {
		w.tooMany(e, asked)
		return nil, true
	}
	return x, false
}

// fetch takes a question out of the datapath, as if it had come here. It and what was read of
// it are of the worker, until the next.
func (w *dnsWorker) fetch(client, server netip.AddrPort, id uint16) (e *dnsExchange, m *dns.Message, ok bool) {
	d, m := w.d, &w.asked
	raw, at, ok := d.p.config.Shortcut.Take(client, server, id, w.short.query[:0])
	w.short.query = raw
	if !ok {
		return nil, nil, false
	}
	d.counts.queries.Add(1)
	d.counts.shortcut.Add(1)
	known, ok := w.lookup(client, server)
	if !ok { // its connection is gone, or no rule of ours is about it any more
		d.counts.unknown.Add(1)
		d.p.ring.lose(1)
		return nil, nil, false
	}
	if err := m.ParseQuery(raw); err != nil { // the datapath reads more strictly
		d.counts.malformed.Add(1)
		return nil, nil, false
	}
	w.exchange = dnsExchange{client: client, server: server, known: known, udp: true, at: w.wall(at), word: observe.Forwarded}
	w.exchange.name, w.exchange.typ = m.AppendName(w.name[:0]), m.Type
	return &w.exchange, m, true
}

// admits judges a question that went on by what holds now, and records it. What is not allowed
// any more gets no answer but ours.
func (w *dnsWorker) admits(x *dnsExchange, m *dns.Message) bool {
	decision, direction := w.judge(x)
	x.decide(&decision, direction)
	w.writer.question(x)
	if decision.Verdict == policy.Allow {
		return true
	}
	w.d.counts.denied.Add(1)
	w.reply(x.datagram(), dns.AppendDenial(w.room(), m, w.d.p.config.DNS.denial()))
	return false
}

// datagram is what the question came in, as far as an answer of ours needs it.
func (x *dnsExchange) datagram() *redirect.Datagram {
	return &redirect.Datagram{Source: x.client, Destination: x.server}
}

// wait lets a question that went on wait for its answer among those that came here.
func (w *dnsWorker) wait(key questionKey, m *dns.Message, x *dnsExchange, s *shard) {
	again, ok := s.add(w.d.questions, key, m, w.short.query, func(q *question) { w.fill(q, x) })
	if !ok {
		w.tooMany(x, m)
	}
	if again {
		w.d.counts.again.Add(1)
	}
}

// ends ends a question that went on and was recorded, without its answer.
func (w *dnsWorker) ends(x *dnsExchange, m *dns.Message, why error) {
	w.d.counts.unanswered.Add(1)
	w.reply(x.datagram(), dns.AppendDenial(w.room(), m, dns.ServFail))
	w.writer.reply(x, dns.ServFail, &dns.Found{}, w.now, why)
}

func (w *dnsWorker) tooMany(x *dnsExchange, m *dns.Message) {
	w.d.counts.full.Add(1)
	w.reply(x.datagram(), dns.AppendDenial(w.room(), m, dns.Refused))
}

// fill notes what is known of a question that was recorded just now.
func (w *dnsWorker) fill(q *question, x *dnsExchange) {
	q.known, q.at, q.word = x.known, x.at, x.word
	q.shared, q.asked = append(q.shared[:0], w.writer.shared...), append(q.asked[:0], w.writer.asked...)
}

// collect takes in the questions that went on some time ago and have no answer yet.
func (w *dnsWorker) collect() {
	err := w.d.p.config.Shortcut.Before(monotonic()-shortcutLooks, func(client, server netip.AddrPort, id uint16) {
		w.d.moving.Lock()
		defer w.d.moving.Unlock()
		defer w.survive(client, server)
		x, m, ok := w.fetch(client, server, id)
		if !ok || !w.admits(x, m) {
			return
		}
		w.wait(questionKey{client, server, id, w.d.questions.hash(m.Question())}, m, x, w.d.questions.shard(client.Addr()))
	})
	if err != nil {
		w.d.p.log.Warn("look for questions without an answer", "error", err)
	}
}

// collects does so again and again, while this process serves: not before there are rules, when
// the one before it does, and not after another has taken its place.
func (w *dnsWorker) collects(done <-chan struct{}) {
	if w.d.p.config.Shortcut == nil {
		return
	}
	tick := time.NewTicker(shortcutLooks)
	defer tick.Stop()
	for waited := 0; ; {
		select {
		case <-done:
			return
		case w.now = <-tick.C:
			if w.d.p.snapshot.Load() == nil || w.d.p.draining.Load() || !w.d.p.serves() { // answers go to another, and so do their questions
				continue
			}
			if waited++; !w.d.served.Load() && waited < beginsAfter {
				continue
			}
			if w.clock() { // what was told lasts by another clock than what is remembered
				w.d.p.tellAnew()
			}
			w.out.Forget(w.now)
			w.own = w.own[:0]
			w.collect()
			w.out.Flush()
		}
	}
}
