package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// fakeShortcut is the datapath, as far as the proxy sees it.
type fakeShortcut struct {
	mu       sync.Mutex
	log      []string // rounds, as they begin
	round    [2]uint64
	onRound  func(which int, round uint64) error
	known    map[knownKey]uint64
	knows    int
	tells    []toldAnswer
	wentOn   map[askedKey]askedValue
	events   chan toldEvent
	lost     atomic.Uint64
	readers  atomic.Int32
	together atomic.Bool // there were two readers at once
}

type knownKey struct {
	egress, ingress uint32
	name            string
	typ             uint16
}

type toldAnswer struct {
	round    uint64
	endpoint uint16
	name     string
	addrs    []netip.Addr
	as       []policy.Identity
	until    time.Duration
}

type askedKey struct {
	client, server netip.AddrPort
	id             uint16
}

type askedValue struct {
	message []byte
	at      time.Duration
}

type toldEvent struct {
	asked, answered time.Duration
	query, answer   []byte
}

func newFakeShortcut() *fakeShortcut {
	return &fakeShortcut{known: map[knownKey]uint64{}, wentOn: map[askedKey]askedValue{}, events: make(chan toldEvent, 1024)}
}

func (f *fakeShortcut) SetKnownRound(round uint64) error { return f.begin(0, round) }
func (f *fakeShortcut) SetToldRound(round uint64) error  { return f.begin(1, round) }

func (f *fakeShortcut) begin(which int, round uint64) error {
	if f.onRound != nil {
		if err := f.onRound(which, round); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round[which] = round
	word := "a round"
	if round == 0 {
		word = "none"
	}
	f.log = append(f.log, [2]string{"known: ", "told: "}[which]+word)
	return nil
}

func (f *fakeShortcut) rounds() (known, told uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.round[0], f.round[1]
}

func (f *fakeShortcut) Longest() int { return 96 }

func (f *fakeShortcut) Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.knows++
	f.known[knownKey{egress, ingress, string(name), typ}] = round
	return nil
}

func (f *fakeShortcut) Tell(round uint64, endpoint uint16, name []byte, _ uint16, addrs []netip.Addr, as []policy.Identity, until, floor time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tells = append(f.tells, toldAnswer{round, endpoint, string(name), cloneAll(addrs), cloneAll(as), until})
	return nil
}

func (f *fakeShortcut) Take(client, server netip.AddrPort, id uint16, b []byte) ([]byte, time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := askedKey{client, server, id}
	v, ok := f.wentOn[k]
	delete(f.wentOn, k)
	return append(b, v.message...), v.at, ok
}

func (f *fakeShortcut) Before(at time.Duration, each func(client, server netip.AddrPort, id uint16)) error {
	f.mu.Lock()
	var keys []askedKey
	for k, v := range f.wentOn {
		if v.at < at {
			keys = append(keys, k)
		}
	}
	f.mu.Unlock()
	for _, k := range keys {
		each(k.client, k.server, k.id)
	}
	return nil
}

func (f *fakeShortcut) Read(ctx context.Context, _, _ time.Duration, each func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte)) error {
	if f.readers.Add(1) > 1 {
		f.together.Store(true)
	}
	defer f.readers.Add(-1)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f.events:
			each(dnsClient, dnsServerAddr, e.asked, e.answered, e.query, e.answer)
		}
	}
}

func (f *fakeShortcut) TakeLost() (uint64, error) { return f.lost.Swap(0), nil }

func (f *fakeShortcut) KnownRound() (uint64, error) {
	known, _ := f.rounds()
	return known, nil
}

// goOn has a question go on without the proxy, so long ago.
func (f *fakeShortcut) goOn(id uint16, message []byte, ago time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wentOn[askedKey{dnsClient, dnsServerAddr, id}] = askedValue{message, monotonic() - ago}
}

func (f *fakeShortcut) under() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.wentOn)
}

// shorter is askedBy with a shortcut, in the midst of a round.
type shorter struct {
	*testing.T
	*dnsWorker
	p *process
	f *fakeShortcut
}

func shortcutBy(t *testing.T, learner Learner, limits DNSLimits) *shorter {
	t.Helper()
	w, p := askedBy(t, learner, limits)
	s := &shorter{t, w, p, newFakeShortcut()}
	p.config.Shortcut = s.f
	p.dns.collector, p.dns.recorder = p.dns.newWorker(nil), p.dns.newWorker(nil)
	s.dnsWorker = p.dns.newWorker(nil)
	for _, w := range []*dnsWorker{s.dnsWorker, p.dns.collector} {
		w.own = make([]byte, 0, 64<<10) // or the first reply is not in it
	}
	now := *p.snapshot.Load()
	now.round = newRound()
	p.snapshot.Store(&now)
	must(t, p.setKnown(now.round))
	p.tellFromNow()
	s.now = time.Now()
	return s
}

func (s *shorter) pack(m *oracle.Msg) []byte {
	s.Helper()
	b, err := m.Pack()
	must(s.T, err)
	return b
}

func queryOf(name string, id uint16) *oracle.Msg {
	q := new(oracle.Msg).SetQuestion(name, oracle.TypeA)
	q.Id = id
	return q
}

func reply(q *oracle.Msg, records ...string) *oracle.Msg {
	a := new(oracle.Msg).SetReply(q)
	for _, text := range records {
		rr, err := oracle.NewRR(text)
		if err != nil {
			panic(err)
		}
		a.Answer = append(a.Answer, rr)
	}
	return a
}

// ask and answer give the worker what came by the gate. They say what it answered itself.
func (s *shorter) ask(q *oracle.Msg) *oracle.Msg {
	return s.gives(redirect.Datagram{Source: dnsClient, Destination: dnsServerAddr, Mark: redirect.MarkToProxy, Data: s.pack(q)})
}

func (s *shorter) answer(a *oracle.Msg) *oracle.Msg {
	return s.gives(redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: s.pack(a)})
}

func (s *shorter) gives(g redirect.Datagram) *oracle.Msg {
	s.Helper()
	s.own = s.own[:0]
	s.take(&g)
	s.out.Flush()
	return s.replied(s.dnsWorker)
}

func (s *shorter) replied(w *dnsWorker) *oracle.Msg {
	s.Helper()
	if len(w.own) == 0 {
		return nil
	}
	m := new(oracle.Msg)
	must(s.T, m.Unpack(w.own))
	return m
}

// sent is how many datagrams left since it was asked last.
func (s *shorter) sent() uint64 { return s.p.dns.lost.Swap(0) }

func (s *shorter) records() []observe.Record {
	s.Helper()
	b, _ := s.p.ring.pop()
	var records []observe.Record
	must(s.T, (&scanner{}).batch(b, func(part observe.Batch, _ uint64) {
		for i := range part.Digests {
			records = append(records, part.Records.Record(part.Digests[i].Place))
		}
	}))
	return records
}

// only has a rule allow a pattern from now on, as an agent would say.
func (s *shorter) only(pattern string, names *redirect.Names) error {
	id := policy.SetID{}
	copy(id[:], pattern)
	set := &policy.L7Set{ID: id, Protocol: policy.ProtocolDNS, DNS: []policy.DNSRule{{Pattern: pattern}}}
	_, err := (&api{p: s.p}).Enforce(context.Background(), snapshotToProto(redirect.Snapshot{
		Revision: uint64(time.Now().UnixNano()), Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setDNS, Set: set}}, Names: names,
	}))
	return err
}

// What is asked twice is known, with the sets that judged it, and what is out of the ordinary
// never is.
func TestKnownQuestions(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	q := queryOf("wWw.Example.", 1)
	s.ask(q)
	if s.f.knows != 0 {
		t.Error("a question is known when it comes first")
	}
	s.ask(q)
	s.ask(q)
	want := knownKey{uint32(setDNS), 0, "\x03www\x07example\x00", oracle.TypeA}
	if s.f.knows != 1 || s.f.known[want] != s.p.snapshot.Load().round {
		t.Errorf("told %d times, of %+v", s.f.knows, s.f.known)
	}
	s.now = s.now.Add(knowAgain + time.Millisecond) // it may have been forgotten
	s.ask(q)
	s.ask(q)
	if s.f.knows != 2 {
		t.Errorf("a second later it was told %d times in all, want 2", s.f.knows)
	}
	next := *s.p.snapshot.Load()
	next.round = newRound()
	s.p.snapshot.Store(&next)
	s.ask(q)
	if s.f.known[want] != next.round {
		t.Error("in another round it is not told")
	}
	must(t, s.only("**.example", nil))
	long := strings.Repeat("a23456789.", 9) + "example."
	edns := func(size uint16, version uint8) *oracle.Msg {
		q := queryOf("e.example.", 2).SetEdns0(size, true)
		q.IsEdns0().SetVersion(version)
		return q
	}
	flagged := queryOf("f.example.", 3)
	flagged.Authoritative = true
	class := queryOf("c.example.", 4)
	class.Question[0].Qclass = oracle.ClassCHAOS
	longest := strings.Repeat("a23456789.", 8) + "b23456.example." // 96 bytes on the wire
	for name, c := range map[string]struct {
		q     *oracle.Msg
		known bool
	}{
		"denied": {queryOf("a.other.", 5), false}, "too long": {queryOf(long, 6), false}, "as long as may be": {queryOf(longest, 7), true},
		"takes too much": {edns(4096, 0), false}, "takes what passes": {edns(1232, 0), true}, "a flag": {flagged, false}, "a class": {class, false},
	} {
		before := s.f.knows
		s.ask(c.q)
		s.ask(c.q)
		if (s.f.knows > before) != c.known {
			t.Errorf("%s: told %d times", name, s.f.knows-before)
		}
	}
}

// What would be denied, but for audit, is not known, nor what a snapshot that is no more allows.
func TestQuestionsNobodyIsToKnow(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	s.p.config.Datagrams = knows{Connection{Egress: setDNS, Denied: true}}
	s.ask(queryOf("d.example.", 1))
	s.ask(queryOf("d.example.", 1))
	s.p.config.Datagrams = knows{Connection{Egress: setDNS}}
	clear(s.flows)
	before := s.p.snapshot.Load()
	audit := *before
	audit.audit = true
	s.p.snapshot.Store(&audit)
	for range 3 {
		if a := s.ask(queryOf("a.other.", 2)); a != nil {
			t.Errorf("in audit mode: %v", a)
		}
	}
	m := &s.asked
	must(t, m.ParseQuery(s.pack(queryOf("b.example.", 3))))
	for range 3 {
		s.know(before, &Connection{Egress: setDNS}, m)
	}
	none := audit
	none.round = 0
	s.p.snapshot.Store(&none)
	for range 3 {
		s.know(&none, &Connection{Egress: setDNS}, m)
	}
	if s.f.knows != 0 {
		t.Errorf("known: %+v", s.f.known)
	}
	s.p.snapshot.Store(before)
	for range 3 { // so it would have been
		s.know(before, &Connection{Egress: setDNS}, m)
	}
	if s.f.knows != 1 {
		t.Errorf("known: %+v", s.f.known)
	}
}

// Many questions that share a place do not have all of them told.
func TestSeenQuestionsAreBounded(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	names := make([]*oracle.Msg, 3*len(s.short.seen)*seenWays)
	for i := range names {
		names[i] = queryOf(fmt.Sprintf("n%d.example.", i), 1)
	}
	for range 2 {
		for _, q := range names {
			s.ask(q)
		}
	}
	if most := len(s.short.seen) * seenWays; s.f.knows > most {
		t.Errorf("%d questions are remembered, of at most %d", s.f.knows, most)
	}
}

// An answer to a question that went on is learnt, released and recorded as any other, and told
// as it stands.
func TestAnswerToWhatWentOn(t *testing.T) {
	l := &immediate{standing: Standing{Endpoint: 7, As: []policy.Identity{9}, Until: time.Now().Add(time.Minute)}}
	s := shortcutBy(t, l, DNSLimits{})
	q := queryOf("A.example.", 5)
	s.f.goOn(5, s.pack(q), 3*time.Millisecond)
	if a := s.answer(reply(q, "A.example. 60 IN A 192.0.2.1")); a != nil || s.sent() != 1 || s.p.dns.waiting() != 0 {
		t.Fatalf("answered by us: %v; %d wait", a, s.p.dns.waiting())
	}
	if l.n != 1 {
		t.Errorf("learnt %d times", l.n)
	}
	_, round := s.f.rounds()
	if len(s.f.tells) != 1 || s.f.tells[0].round != round || s.f.tells[0].endpoint != 7 || s.f.tells[0].name != "\x01a\x07example\x00" ||
		s.f.tells[0].addrs[0] != netip.MustParseAddr("192.0.2.1") || s.f.tells[0].as[0] != 9 {
		t.Errorf("told %+v", s.f.tells)
	}
	if left := s.f.tells[0].until - monotonic(); left > time.Minute || left < 30*time.Second {
		t.Errorf("for %s", left)
	}
	r := s.records()
	if len(r) != 2 || r[0].Reply || !r[1].Reply || r[1].DNS.Query != "a.example" || r[1].DNS.Addresses[0] != netip.MustParseAddr("192.0.2.1") ||
		r[1].DNS.Latency < 2*time.Millisecond || r[1].DNS.Latency > 10*time.Second {
		t.Errorf("recorded %+v", r)
	}
	c := &s.p.asked
	if c.queries.Load() != 1 || c.shortcut.Load() != 1 || c.answers.Load() != 1 || c.told.Load() != 0 {
		t.Errorf("counted %v queries, %v shortcut, %v answers", c.queries.Load(), c.shortcut.Load(), c.answers.Load())
	}
	s.f.tells = nil
	for name, c := range map[string]struct {
		typ     uint16
		records []string
		err     error
	}{
		"an alias":       {oracle.TypeA, []string{"B.example. 60 IN CNAME c.example.", "c.example. 60 IN A 192.0.2.1"}, nil},
		"no address":     {oracle.TypeA, nil, nil},
		"another type":   {oracle.TypeTXT, []string{"B.example. 60 IN TXT x"}, nil},
		"what is denied": {oracle.TypeA, []string{"B.example. 60 IN A 192.0.2.2"}, errors.New("no room")},
	} {
		l.err = c.err
		q := new(oracle.Msg).SetQuestion("B.example.", c.typ)
		s.f.goOn(q.Id, s.pack(q), 0)
		a := s.answer(reply(q, c.records...))
		if len(s.f.tells) != 0 {
			t.Errorf("%s is told: %+v", name, s.f.tells)
		}
		if s.sent() != 1 || (a != nil) != (c.err != nil) || a != nil && a.Rcode != oracle.RcodeServerFailure {
			t.Errorf("%s: %v", name, a)
		}
	}
	l.err = nil
	must(t, s.p.beginTelling()) // rules change
	s.f.goOn(6, s.pack(queryOf("A.example.", 6)), 0)
	s.answer(reply(queryOf("A.example.", 6), "A.example. 60 IN A 192.0.2.1"))
	if len(s.f.tells) != 0 || s.sent() != 1 {
		t.Errorf("told while rules change: %+v", s.f.tells)
	}
}

// immediate learns at once.
type immediate struct {
	teachable
	n        int
	err      error
	standing Standing
}

func (l *immediate) LearnNow(_ Learnt, s *Standing) (bool, error) {
	l.n++
	if l.err == nil {
		*s = l.standing
	}
	return true, l.err
}

// What was allowed when it was asked, and is not now, gets no answer but ours.
func TestDeniedWhileUnderWay(t *testing.T) {
	l := &immediate{}
	s := shortcutBy(t, l, DNSLimits{})
	q := queryOf("a.example.", 5)
	s.f.goOn(5, s.pack(q), 0)
	must(t, s.only("*.other", nil))
	if a := s.answer(reply(q, "a.example. 60 IN A 192.0.2.1")); a == nil || a.Rcode != oracle.RcodeRefused || len(a.Answer) != 0 || s.sent() != 1 {
		t.Errorf("%v", a)
	}
	if l.n != 0 || s.f.under() != 0 || s.p.dns.waiting() != 0 || s.p.asked.denied.Load() != 1 {
		t.Errorf("learnt %d times, %d under way", l.n, s.f.under())
	}
	if r := s.records(); len(r) != 1 || r[0].Word != observe.Dropped || r[0].DNS.Query != "a.example" {
		t.Errorf("recorded %+v", r)
	}
	s.p.dns.collector.now = time.Now()
	s.f.goOn(6, s.pack(queryOf("a.example.", 6)), time.Second)
	s.p.dns.collector.collect()
	if a := s.replied(s.p.dns.collector); a == nil || a.Rcode != oracle.RcodeRefused || s.p.dns.waiting() != 0 {
		t.Errorf("collected: %v, %d wait", a, s.p.dns.waiting())
	}
}

// An answer to another question than that with its number goes nowhere, and the question waits.
func TestAnotherQuestionWaits(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	q := queryOf("a.example.", 5)
	s.f.goOn(5, s.pack(q), 0)
	for range maxWrong - 1 {
		if a := s.answer(reply(queryOf("b.example.", 5), "b.example. 60 IN A 192.0.2.66")); a != nil || s.sent() != 0 || s.p.dns.waiting() != 1 {
			t.Fatalf("%v, %d wait", a, s.p.dns.waiting())
		}
	}
	if a := s.answer(reply(q, "a.example. 60 IN A 192.0.2.1")); a != nil || s.sent() != 1 || s.p.dns.waiting() != 0 {
		t.Errorf("its own: %v, %d wait", a, s.p.dns.waiting())
	}
	if n := len(s.records()); n != 2 {
		t.Errorf("%d records, want a question and an answer", n)
	}
}

// Who has no room is refused.
func TestNoRoomForWhatWentOn(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{PerEndpoint: 1})
	s.ask(queryOf("first.example.", 1))
	s.sent()
	q := queryOf("a.example.", 5)
	s.f.goOn(5, s.pack(q), 0)
	if a := s.answer(reply(q, "a.example. 60 IN A 192.0.2.1")); a == nil || a.Rcode != oracle.RcodeRefused || s.sent() != 1 {
		t.Errorf("an answer: %v", a)
	}
	s.f.goOn(6, s.pack(q), time.Second)
	s.p.dns.collector.now = time.Now()
	s.p.dns.collector.collect()
	if a := s.replied(s.p.dns.collector); a == nil || a.Rcode != oracle.RcodeRefused || s.p.asked.full.Load() != 2 || s.p.dns.waiting() != 1 {
		t.Errorf("collected: %v, %d wait", a, s.p.dns.waiting())
	}
}

// After some guesses no answer is taken for one to what went on, for a while that ends also
// if there are always more questions and right answers.
func TestGuessesBarTheShortcut(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	for i := range uint16(maxWrong) {
		s.answer(reply(queryOf("a.example.", 100+i)))
	}
	passed, id := false, uint16(1000)
	start := s.now
	for ; !passed && s.now.Sub(start) < 10*barsFor; s.now = s.now.Add(time.Millisecond) {
		id++
		q := queryOf("a.example.", id)
		s.f.goOn(id, s.pack(q), 0)
		s.sent()
		s.answer(reply(q, "a.example. 60 IN A 192.0.2.1"))
		passed = s.sent() == 1 && s.p.asked.answers.Load() == 1
	}
	if took := s.now.Sub(start); took < barsFor || took > barsFor+100*time.Millisecond {
		t.Errorf("barred for %s, want %s", took, barsFor)
	}
	if d := s.p.dns; len(d.questions.shard(dnsClient.Addr()).barred) != 1 {
		t.Errorf("%d ends are barred", len(d.questions.shard(dnsClient.Addr()).barred))
	}
}

func TestBarsAreBounded(t *testing.T) {
	limits := DNSLimits{}.withDefaults()
	sh, now := &newQuestions(&limits).shards[0], time.Now()
	client := netip.MustParseAddr("10.0.0.1")
	end := func(port int) twoEnds { return twoEnds{netip.AddrPortFrom(client, uint16(port)), dnsServerAddr} }
	for i := range 2 * maxEnds {
		sh.bar(end(1+i), now)
	}
	if len(sh.barred) > maxEnds+1 || !sh.bars(end(1), now) || !sh.bars(end(2*maxEnds), now) || !sh.bars(end(60000), now) {
		t.Errorf("%d ends are barred", len(sh.barred))
	}
	if other := (twoEnds{netip.MustParseAddrPort("10.0.0.2:1"), dnsServerAddr}); sh.bars(other, now) {
		t.Error("and another client")
	}
	now = now.Add(barsFor + time.Millisecond)
	if sh.bars(end(1), now) {
		t.Error("for ever")
	}
	sh.bar(end(1), now)
	if len(sh.barred) != 1 {
		t.Errorf("%d are kept", len(sh.barred))
	}
}

// What waits too long is seen, and ends as any other question; not before there are rules, and
// not by who leaves.
func TestCollect(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{Answer: time.Hour})
	s.f.goOn(1, s.pack(queryOf("a.example.", 1)), time.Minute)
	s.f.goOn(2, s.pack(queryOf("b.example.", 2)), 0)
	s.f.goOn(3, s.pack(queryOf("c.example.", 3)), 2*time.Hour)
	now := s.p.snapshot.Load()
	w, done := s.p.dns.collector, make(chan struct{})
	w.now = time.Now()
	w.collect()
	if s.p.dns.waiting() != 2 || s.f.under() != 1 {
		t.Fatalf("%d wait here, %d elsewhere", s.p.dns.waiting(), s.f.under())
	}
	seen := map[string]bool{}
	for _, r := range s.records() {
		if !r.Reply {
			seen[r.DNS.Query] = true
		}
	}
	if len(seen) != 2 || !seen["a.example"] || !seen["c.example"] {
		t.Errorf("recorded %v", seen)
	}
	if sh := s.p.dns.questions.shard(dnsClient.Addr()); sh.unanswered(s.p.dns.questions, time.Now()) {
		if sh.unanswered(s.p.dns.questions, time.Now()) {
			t.Error("a question ends too early")
		}
	} else if sh.waits.first.since.After(time.Now().Add(-30 * time.Second)) {
		t.Errorf("the patience of a question began at %s, when it was collected", sh.waits.first.since)
	}
	a := queryOf("a.example.", 1)
	if s.answer(reply(a, "a.example. 60 IN A 192.0.2.1")); s.p.asked.answers.Load() != 1 {
		t.Error("its answer finds it not")
	}
	s.f.goOn(4, s.pack(queryOf("d.example.", 4)), time.Minute)
	s.p.snapshot.Store(nil)
	ended := make(chan struct{})
	go func() { w.collects(done); close(ended) }()
	time.Sleep(3 * shortcutLooks)
	if s.f.under() != 2 || s.p.asked.denied.Load() != 0 {
		t.Errorf("without rules: %d are left, %d denied", s.f.under(), s.p.asked.denied.Load())
	}
	s.p.draining.Store(true)
	s.p.snapshot.Store(now)
	time.Sleep(3 * shortcutLooks)
	if s.f.under() != 2 {
		t.Errorf("who leaves has taken %d", 2-s.f.under())
	}
	s.p.draining.Store(false)
	eventually(t, "the rest is collected", func() bool { return s.f.under() == 0 })
	close(done)
	<-ended
}

// An answer finds its question wherever that is just then.
func TestMovingQuestionsAreFound(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	done := make(chan struct{})
	var moving sync.WaitGroup
	moving.Go(func() {
		w := s.p.dns.collector
		for {
			select {
			case <-done:
				return
			default:
				w.now, w.own = time.Now(), w.own[:0]
				w.collect()
			}
		}
	})
	q := queryOf("a.example.", 5)
	asked, answer := s.pack(q), s.pack(reply(q, "a.example. 60 IN A 192.0.2.1"))
	const rounds = 20000
	for range rounds {
		s.f.goOn(5, asked, time.Second)
		s.now = time.Now()
		s.take(&redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: bytes.Clone(answer)})
	}
	close(done)
	moving.Wait()
	if c := &s.p.asked; c.answers.Load() != rounds || c.unmatched.Load() != 0 {
		t.Errorf("%d answers of %d found their questions", c.answers.Load(), rounds)
	}
}

// Both are recorded, at the times of the gate, as they were judged.
func TestRecordsOfTheGate(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	q := queryOf("a.example.", 5)
	now := monotonic()
	event := toldEvent{now - 50*time.Millisecond, now - 43*time.Millisecond, s.pack(q), s.pack(reply(q, "a.example. 60 IN A 192.0.2.1", "a.example. 50 IN A 192.0.2.2"))}
	s.p.dns.recorder.record(dnsClient, dnsServerAddr, event.asked, event.answered, event.query, event.answer)
	r := s.records()
	if len(r) != 2 || r[0].Reply || !r[1].Reply {
		t.Fatalf("recorded %+v", r)
	}
	for i, x := range r {
		if x.Source != dnsClient && x.Source != dnsServerAddr || x.Word != observe.Forwarded || x.DNS.Query != "a.example" {
			t.Errorf("record %d: %+v", i, x)
		}
	}
	if d := r[1].DNS; len(d.Addresses) != 2 || d.Latency != 7*time.Millisecond || d.TTL != 50 {
		t.Errorf("answer %+v", d)
	}
	if gap := r[1].Time.Sub(r[0].Time); gap < 6*time.Millisecond || gap > 8*time.Millisecond || time.Since(r[0].Time) < 50*time.Millisecond {
		t.Errorf("asked at %s, answered %s later", r[0].Time, gap)
	}
	must(t, s.only("*.other", nil)) // since
	s.p.dns.recorder.record(dnsClient, dnsServerAddr, event.asked, event.answered, event.query, event.answer)
	if r := s.records(); len(r) != 2 || r[0].Word != observe.Forwarded || s.p.denied.Load() != 0 {
		t.Errorf("after a change of rules: %+v", r)
	}
	s.p.dns.recorder.record(dnsClient, dnsServerAddr, now, now, []byte("what is no question"), event.answer)
	s.p.dns.recorder.record(dnsClient, dnsServerAddr, now, now, event.query, nil)
	if c := &s.p.asked; c.told.Load() != 2 || c.shortcut.Load() != 4 || c.malformed.Load() != 2 {
		t.Errorf("counted %d told of %d, %d malformed", c.told.Load(), c.shortcut.Load(), c.malformed.Load())
	}
}

// What found no room in the datapath is lost to those who look on, both records of it; and who
// is to end leaves the rest to the next.
func TestRecordsAreLost(t *testing.T) {
	s := shortcutBy(t, nil, DNSLimits{})
	s.f.lost.Store(5) // before our time, and nobody has told of them
	ctx, end := context.WithCancel(t.Context())
	defer end()
	ended := make(chan struct{})
	go func() { s.p.dns.records(ctx); close(ended) }()
	eventually(t, "it reads", func() bool { return s.f.readers.Load() == 1 })
	eventually(t, "it counts", func() bool { return s.p.ring.lostTotal() == 10 })
	s.f.lost.Store(3)
	eventually(t, "it goes on counting", func() bool { return s.p.ring.lostTotal() == 16 })
	s.p.draining.Store(true)
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("it reads while it is to end")
	}
}

// Two processes read one after the other: the second when the first leaves, or is gone.
func TestTurn(t *testing.T) {
	dir := openDir(t)
	first, err := OpenTurn(dir, "turn")
	must(t, err)
	second, err := OpenTurn(dir, "turn")
	must(t, err)
	if !first.Take() || second.Take() {
		t.Fatal("the turn is not one's alone")
	}
	first.Leave()
	if !second.Take() || first.Take() {
		t.Fatal("the turn is not left")
	}
	must(t, second.(fileTurn).file.Close()) // as at the end of a process
	if !first.Take() {
		t.Fatal("the turn of who is gone is nobody's")
	}
	if _, err := OpenTurn(dir, "no/such"); err == nil {
		t.Error("a turn without a file")
	}
}

func TestOneReadsAtATime(t *testing.T) {
	dir, f := openDir(t), newFakeShortcut()
	var all []*shorter
	for range 2 {
		s := shortcutBy(t, nil, DNSLimits{})
		turn, err := OpenTurn(dir, "turn")
		must(t, err)
		s.p.config.Shortcut, s.p.config.ShortcutTurn = f, turn
		all = append(all, s)
	}
	q := queryOf("a.example.", 5)
	event := toldEvent{monotonic(), monotonic(), all[0].pack(q), all[0].pack(reply(q, "a.example. 60 IN A 192.0.2.1"))}
	told := func(s *shorter) uint64 { return s.p.asked.told.Load() }
	var running sync.WaitGroup
	defer running.Wait()
	ctx, end := context.WithCancel(t.Context())
	defer end()
	left := make(chan struct{})
	running.Go(func() { all[0].p.dns.records(ctx); close(left) })
	eventually(t, "the first reads", func() bool { return f.readers.Load() == 1 })
	running.Go(func() { all[1].p.dns.records(ctx) })
	time.Sleep(3 * turnEvery)
	f.events <- event
	eventually(t, "the first records", func() bool { return told(all[0]) == 1 })
	all[0].p.draining.Store(true)
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("the first does not leave")
	}
	f.events <- event
	eventually(t, "the second records", func() bool { return told(all[1]) == 1 })
	if f.together.Load() {
		t.Error("both read at once")
	}
}

// The ways that most questions take allocate nothing.
func TestShortcutDoesNotAllocate(t *testing.T) {
	l := &immediate{standing: Standing{Endpoint: 7, Until: time.Now().Add(time.Hour)}}
	s := shortcutBy(t, l, DNSLimits{})
	m := &s.asked
	q := queryOf("a.example.", 5)
	asked, answered := s.pack(q), s.pack(reply(q, "a.example. 60 IN A 192.0.2.1"))
	must(t, m.ParseQuery(asked))
	snapshot, known := s.p.snapshot.Load(), &Connection{Egress: setDNS}
	s.know(snapshot, known, m)
	no := quiet{s.f}
	s.p.config.Shortcut = no
	g := &redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: answered}
	now := monotonic()
	for name, f := range map[string]func(){
		"a question that is known": func() { s.know(snapshot, known, m) },
		"told again":               func() { s.now = s.now.Add(2 * knowAgain); s.know(snapshot, known, m) },
		"an answer": func() {
			s.f.goOn(5, asked, 0)
			s.take(g)
			s.out.Forget(s.now)
		},
		"what the gate has told": func() { s.p.dns.recorder.record(dnsClient, dnsServerAddr, now, now, asked, answered) },
	} {
		f()
		if n := testing.AllocsPerRun(500, f); n >= 1 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if s.p.asked.answers.Load() < 1000 {
		t.Errorf("%d answers", s.p.asked.answers.Load())
	}
}

// quiet is the datapath without the memory of the test's.
type quiet struct{ *fakeShortcut }

func (quiet) Know(uint64, uint32, uint32, []byte, uint16) error { return nil }
func (quiet) Tell(uint64, uint16, []byte, uint16, []netip.Addr, []policy.Identity, time.Duration, time.Duration) error {
	return nil
}
