package proxy

import (
	"errors"
	"net/netip"
	"sync"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const setDNS = redirect.SetNumber(4<<24 | 1)

// teachable remembers what it is told to learn, and tells when the test says so.
type teachable struct {
	mu   sync.Mutex
	told []func(error)
	seen []Learnt
	now  func(done func(error)) // nil: later
}

func (l *teachable) Learn(a Learnt, done func(error)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.Addresses = cloneAll(a.Addresses)
	l.seen = append(l.seen, a)
	if l.now != nil {
		l.now(done)
		return
	}
	l.told = append(l.told, done)
}

type knows struct{ known Connection }

func (k knows) LookupDatagrams(netip.AddrPort, netip.AddrPort) (Connection, bool) {
	return k.known, true
}

// askedBy is the server of datagrams without sockets: what it sends is lost, and counted.
func askedBy(t *testing.T, learner Learner, limits DNSLimits) (*dnsWorker, *process) {
	t.Helper()
	config := Config{Connections: &fakeConnections{known: Connection{Egress: setDNS}}, Datagrams: knows{Connection{Egress: setDNS}}, Learner: learner, DNS: limits}.withDefaults()
	p, err := newProcess(t.Context(), config)
	must(t, err)
	t.Cleanup(p.loops.Stop)
	id := policy.SetID{1}
	set := &policy.L7Set{ID: id, Protocol: policy.ProtocolDNS, DNS: []policy.DNSRule{{Pattern: "*.example"}}}
	s, err := (*snapshot)(nil).next(redirect.Snapshot{Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setDNS, Set: set}}}, compile)
	must(t, err)
	p.snapshot.Store(s)
	d := &dnsServer{p: p, counts: &p.asked, questions: newQuestions(&p.config.DNS)}
	nowhere := [2]int{-1, -1}
	d.late.sender, d.late.writer.p = redirect.NewSender(nowhere, &d.lost), p
	w := &dnsWorker{d: d, out: redirect.NewSender(nowhere, &d.lost), flows: map[[2]netip.AddrPort]dnsFlow{}}
	w.writer.p = p
	p.dns = d
	return w, p
}

var dnsClient, dnsServerAddr = netip.MustParseAddrPort("10.0.0.1:4000"), netip.MustParseAddrPort("10.0.0.2:53")

// talk gives the worker a question and its answer.
func (w *dnsWorker) talk(t *testing.T, name string) {
	t.Helper()
	q := new(oracle.Msg).SetQuestion(name, oracle.TypeA)
	b, err := q.Pack()
	must(t, err)
	w.now = time.Now()
	w.take(&redirect.Datagram{Source: dnsClient, Destination: dnsServerAddr, Mark: redirect.MarkToProxy, Data: b})
	a := new(oracle.Msg).SetReply(q)
	rr, err := oracle.NewRR(name + " 60 IN A 192.0.2.1")
	must(t, err)
	a.Answer = []oracle.RR{rr}
	b, err = a.Pack()
	must(t, err)
	w.take(&redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: b})
	w.out.Flush()
}

// An answer leaves when its addresses are in force, or SERVFAIL does: never both.
func TestAnswersWaitForTheirAddresses(t *testing.T) {
	l := &teachable{}
	w, p := askedBy(t, l, DNSLimits{Deadline: 50 * time.Millisecond})
	d, c := p.dns, &p.asked
	w.talk(t, "a.example.")
	if len(l.seen) != 1 || l.seen[0].Name != "a.example" || l.seen[0].Addresses[0] != (LearntAddress{Addr: netip.MustParseAddr("192.0.2.1"), TTL: time.Minute}) {
		t.Fatalf("learnt %+v", l.seen)
	}
	if d.lost.Load() != 1 || d.waiting() != 1 { // the question alone was sent
		t.Errorf("%d datagrams were sent, %d questions wait", d.lost.Load(), d.waiting())
	}
	l.told[0](nil)
	l.told[0](nil)
	if d.lost.Load() != 2 || d.waiting() != 0 || c.deadline.Load()+c.unlearnt.Load() != 0 {
		t.Errorf("released: %d datagrams were sent, %d questions wait", d.lost.Load(), d.waiting())
	}
	w.talk(t, "b.example.")
	l.told[1](errors.New("no room"))
	if d.lost.Load() != 4 || d.waiting() != 0 || c.unlearnt.Load() != 1 {
		t.Errorf("not learnt: %d datagrams were sent, %d questions wait", d.lost.Load(), d.waiting())
	}
	w.talk(t, "c.example.")
	go d.sweep(t.Context())
	for deadline := time.Now().Add(10 * time.Second); d.waiting() != 0 && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	w.talk(t, "d.example.") // in the same memory
	l.told[2](nil)          // too late
	if d.lost.Load() != 7 || c.deadline.Load() != 1 {
		t.Errorf("too late: %d datagrams were sent, %d deadlines", d.lost.Load(), c.deadline.Load())
	}
}

// What is asked by leave of the server's rules alone is not learnt.
func TestOnlyOwnRulesTeach(t *testing.T) {
	l := &teachable{}
	w, p := askedBy(t, l, DNSLimits{Deadline: time.Hour})
	p.config.Datagrams = knows{Connection{Ingress: setDNS}}
	w.talk(t, "a.example.")
	if len(l.seen) != 0 || p.dns.lost.Load() != 2 || p.dns.waiting() != 0 {
		t.Errorf("learnt %+v, %d datagrams were sent, %d questions wait", l.seen, p.dns.lost.Load(), p.dns.waiting())
	}
	p.config.Datagrams = knows{Connection{Egress: setDNS, Ingress: setDNS}}
	clear(w.flows)
	w.talk(t, "a.example.")
	if len(l.seen) != 1 {
		t.Errorf("learnt %+v by rules of both", l.seen)
	}
}

// After some answers to nothing a question ends, and the right answer comes too late.
func TestGuessesEndTheQuestion(t *testing.T) {
	w, p := askedBy(t, nil, DNSLimits{Deadline: time.Hour})
	q := new(oracle.Msg).SetQuestion("a.example.", oracle.TypeA)
	b, err := q.Pack()
	must(t, err)
	w.now = time.Now()
	w.take(&redirect.Datagram{Source: dnsClient, Destination: dnsServerAddr, Mark: redirect.MarkToProxy, Data: b})
	answer := func(id uint16) {
		a := new(oracle.Msg).SetReply(q)
		a.Id = id
		b, err := a.Pack()
		must(t, err)
		w.take(&redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: b})
	}
	for i := range uint16(maxWrong) {
		if p.dns.waiting() != 1 {
			t.Fatalf("%d questions wait after %d guesses", p.dns.waiting(), i)
		}
		answer(q.Id + 1 + i)
	}
	answer(q.Id)
	w.out.Flush()
	if c := &p.asked; p.dns.waiting() != 0 || c.unanswered.Load() != 1 || c.answers.Load() != 0 || p.dns.lost.Load() != 2 {
		t.Errorf("%d questions wait, %d unanswered, %d answers, %d datagrams were sent", p.dns.waiting(), c.unanswered.Load(), c.answers.Load(), p.dns.lost.Load())
	}
}

// A Learner may tell at once, or from elsewhere at the same time; and what is not allowed
// is not learnt.
func TestLearnersTellAtAnyTime(t *testing.T) {
	for name, now := range map[string]func(done func(error)){
		"at once": func(done func(error)) { done(nil) }, "meanwhile": func(done func(error)) { go done(nil) },
	} {
		l := &teachable{now: now}
		w, p := askedBy(t, l, DNSLimits{Deadline: time.Hour})
		for range 300 {
			w.talk(t, "a.example.")
		}
		w.talk(t, "a.other.")
		for deadline := time.Now().Add(10 * time.Second); p.dns.waiting() != 0 && time.Now().Before(deadline); {
			time.Sleep(time.Millisecond)
		}
		if n := p.dns.lost.Load(); n != 601 || len(l.seen) != 300 || p.asked.denied.Load() != 1 || p.asked.unmatched.Load() != 1 {
			t.Errorf("%s: %d datagrams were sent, %d names learnt, %d denied", name, n, len(l.seen), p.asked.denied.Load())
		}
	}
}
