package proxy

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

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
