package proxy

import (
	"context"
	"errors"
	"hash/maphash"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Shortcut is how the datapath lets questions go on without the proxy: those that it was told
// are allowed, by their name and type and the sets that judge them. And their answers, if they
// say to the letter what the same endpoint was told before and all of it stands as it did then.
// Every other answer comes here, where its question is taken out. Both are recorded here, later.
// It is used from several goroutines.
type Shortcut interface {
	// SetKnownRound and SetToldRound say which round's Know and Tell hold from now on; 0: none.
	SetKnownRound(round uint64) error
	SetToldRound(round uint64) error
	// KnownRound is the one that holds, whoever has set it.
	KnownRound() (uint64, error)
	// Longest is that of the names on the wire that can be known.
	Longest() int
	// Know says that a question is allowed by two sets, in one round. The name is as on the
	// wire, in small letters.
	Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error
	// Tell says what an endpoint was told of a name: all the addresses, as what the datapath
	// has each, and until when, by CLOCK_MONOTONIC, they are sure to stay. Whoever is told them
	// may use them for floor at least.
	Tell(round uint64, endpoint uint16, name []byte, typ uint16, addrs []netip.Addr, as []policy.Identity, until, floor time.Duration) error
	// Take takes out a question that went on, and appends its message to b; at is by
	// CLOCK_MONOTONIC. False: there is none.
	Take(client, server netip.AddrPort, id uint16, b []byte) (message []byte, at time.Duration, ok bool)
	// Before calls f for each question that went on before a time and was not taken yet.
	Before(at time.Duration, f func(client, server netip.AddrPort, id uint16)) error
	// Read calls f for each question whose answer went on too, until the context ends.
	Read(ctx context.Context, least, most time.Duration,
		f func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte)) error
	// TakeLost is how many of these found no room, since a process has asked last.
	TakeLost() (uint64, error)
}

// shortcut is a worker's part in it.
type shortcut struct {
	seed maphash.Seed
	// seen are questions that came here, so that what is asked once takes no room in the
	// datapath. Several questions share a place: the last has it.
	seen  *[2048][seenWays]seenQuestion
	name  []byte
	query []byte
	// standing is how the addresses of the last answer stand.
	standing Standing
	addrs    []netip.Addr
	// boot is when the datapath's clock began, as seen when that was looked at last.
	boot, looked time.Time
}

type seenQuestion struct {
	hash, round uint64 // round: in which the datapath was told; 0: not yet
	at          time.Time
}

// seenWays is how many questions that share a place have room there.
const seenWays = 4

// find is where a question is or may be: the first of those that share its place was seen last.
func (c *shortcut) find(hash uint64) (s *seenQuestion, known bool) {
	row := &c.seen[hash%uint64(len(c.seen))]
	i := 0
	for ; i < seenWays-1 && row[i].hash != hash; i++ {
	}
	known = row[i].hash == hash
	if !known {
		row[i] = seenQuestion{hash: hash}
	}
	if i > 0 {
		row[i], row[i-1] = row[i-1], row[i]
		i--
	}
	return &row[i], known
}

const (
	// knowAgain is when the datapath, which forgets what it has no room for, is told once more.
	knowAgain = time.Second
	// shortcutLooks is how long a question may be under way unseen: who waits for an answer
	// in vain is to see at least that it was asked.
	shortcutLooks = 100 * time.Millisecond
	// beginsAfter is how many looks a process waits that has rules but got no datagram yet: the
	// datapath may not have turned to it.
	beginsAfter = 10
)

// newRound is a number for the judgements of one snapshot.
func newRound() uint64 { return rand.Uint64() | 1 }

// beginShortcut has the datapath forget what another process has told it.
func (p *process) beginShortcut() error { return p.closeShortcut() }

// rounds are this process's until another has taken its place: one that drains is still told
// of new rules, and would void what the other says.
type rounds struct {
	sync.Mutex
	left  bool
	known uint64 // the last that we have set; 0: none yet
}

// serves reports whether this process is the one that questions and answers come to, as far as
// the datapath can tell: another has begun no round of its own since.
func (p *process) serves() bool {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	return p.servesLocked()
}

func (p *process) servesLocked() bool {
	if r := &p.rounds; !r.left && r.known != 0 {
		now, err := p.config.Shortcut.KnownRound()
		r.left = err == nil && now != 0 && now != r.known
	}
	return !p.rounds.left
}

// setRound begins a round in the datapath, if that is ours to do.
func (p *process) setRound(set func(uint64) error, round uint64) (ours bool, err error) {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	if !p.servesLocked() {
		return false, nil
	}
	return true, set(round)
}

// leaveShortcut has another process say what holds.
func (p *process) leaveShortcut() {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	p.rounds.left = true
}

// setKnown says which judgements of questions hold in the datapath; 0: none.
func (p *process) setKnown(round uint64) error {
	if p.config.Shortcut == nil {
		return nil
	}
	_, err := p.setRound(func(round uint64) error {
		err := p.config.Shortcut.SetKnownRound(round)
		if err == nil && round != 0 {
			p.rounds.known = round
		}
		return err
	}, round)
	return err
}

// beginTelling has no answer go on without us, until tellFromNow.
func (p *process) beginTelling() error {
	if p.config.Shortcut == nil {
		return nil
	}
	p.telling.Store(0)
	_, err := p.setRound(p.config.Shortcut.SetToldRound, 0)
	return err
}

// tellFromNow begins a round in which answers may go on without us. One that was learnt from
// before is of no round.
func (p *process) tellFromNow() {
	if p.config.Shortcut == nil {
		return
	}
	round := newRound()
	ours, err := p.setRound(p.config.Shortcut.SetToldRound, round)
	if err != nil { // slower, and no less right
		p.log.Warn("answers of the DNS take the long way", "error", err)
	}
	if ours && err == nil {
		p.telling.Store(round)
	}
}

// tellAnew begins another round if there is one: what was told is void.
func (p *process) tellAnew() {
	if p.config.Shortcut != nil && p.telling.Load() != 0 {
		p.tellFromNow()
	}
}

// closeShortcut has everything come here until rules change.
func (p *process) closeShortcut() error { return errors.Join(p.setKnown(0), p.beginTelling()) }

// judgesAs reports whether every question that s allows, n allows too and for the same reason.
func (s *snapshot) judgesAs(n *snapshot) bool {
	if s == nil || s.audit != n.audit {
		return false
	}
	for number, set := range s.sets {
		if other, ok := n.sets[number]; number.Protocol() == policy.ProtocolDNS && (!ok || other.id != set.id || (other.err == nil) != (set.err == nil)) {
			return false
		}
	}
	return true
}

// know tells the datapath of a question that s has just allowed, the second time it comes.
func (w *dnsWorker) know(s *snapshot, known *Connection, m *dns.Message) {
	c, cut := w.d.p.config.Shortcut, &w.short
	if c == nil || s == nil || s.round == 0 || known.Egress == 0 && known.Ingress == 0 || w.d.p.snapshot.Load() != s || known.Denied || !m.Plain() {
		return
	}
	if known.Egress == 0 && known.Ingress == 0 { // its rules are gone since: no set says that others may ask it
		return
	}
	asked := m.Question()
	name := asked[:len(asked)-4]
	if len(name) > c.Longest() {
		return
	}
	if cut.seen == nil {
		cut.seen = new([2048][seenWays]seenQuestion)
	}
	cut.name = appendSmall(cut.name[:0], name)
	var h maphash.Hash
	h.SetSeed(cut.seed)
	_, _ = h.Write(cut.name)
	_, _ = h.Write([]byte{byte(m.Type), byte(m.Type >> 8), byte(known.Egress), byte(known.Egress >> 8), byte(known.Ingress), byte(known.Ingress >> 8)})
	sum := h.Sum64()
	seen, before := cut.find(sum)
	if !before {
		return
	}
	if seen.round == s.round && w.now.Sub(seen.at) < knowAgain {
		return
	}
	if err := c.Know(s.round, uint32(known.Egress), uint32(known.Ingress), cut.name, m.Type); err != nil {
		w.d.p.log.Debug("a question takes the long way", "error", err)
	}
	seen.round, seen.at = s.round, w.now
}

// appendSmall appends a name in small letters. Lengths of labels are less than any letter.
func appendSmall(b, name []byte) []byte {
	for _, c := range name {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// tell tells the datapath of an answer that is in force, to a question that took the shortcut,
// so that the same may take it too.
func (w *dnsWorker) tell(round uint64, m *dns.Message) {
	cut, st := &w.short, &w.short.standing
	if st.Endpoint == 0 || m.Answers != len(w.found.Records) || m.Type != dns.TypeA && m.Type != dns.TypeAAAA {
		return
	}
	cut.addrs = cut.addrs[:0]
	for _, r := range w.found.Records {
		cut.addrs = append(cut.addrs, r.Addr)
	}
	asked := m.Question()
	cut.name = appendSmall(cut.name[:0], asked[:len(asked)-4])
	until := monotonic() // before the other clock is read: rather too early than too late
	until += time.Until(st.Until)
	if err := w.d.p.config.Shortcut.Tell(round, st.Endpoint, cut.name, m.Type, cut.addrs, st.As, until, st.Floor); err != nil {
		w.d.p.log.Debug("an answer takes the long way", "error", err)
	}
}

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

// clockHolds is how long the two clocks are taken to be as far apart as they were: asking costs
// a system call.
const clockHolds = 100 * time.Millisecond

// wall is what the clock on the wall showed when the datapath's showed at.
func (w *dnsWorker) wall(at time.Duration) time.Time {
	w.clock()
	return w.short.boot.Add(at)
}

// clock looks at both clocks now and then, and reports whether the one on the wall was set.
func (w *dnsWorker) clock() (set bool) {
	c := &w.short
	if w.now.Sub(c.looked) < clockHolds && !w.now.Before(c.looked) {
		return false
	}
	before := c.boot
	c.looked = w.now
	c.boot = time.Now().Round(0).Add(-monotonic())
	return !before.IsZero() && c.boot.Sub(before).Abs() > clockStep
}

// clockStep is by how much the clock on the wall may go astray until what lasts by it and what
// lasts by the datapath's are no longer the same.
const clockStep = time.Second / 2

// monotonic is the time that the datapath's clock shows.
func monotonic() time.Duration {
	var now unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &now) != nil {
		return 0
	}
	return time.Duration(now.Nano())
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
