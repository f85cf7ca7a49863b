package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

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
