package proxy

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/parsers/dns"
)

type asking struct {
	t *testing.T
	q *questions
}

func (a *asking) message(name string, id uint16) (*dns.Message, []byte) {
	a.t.Helper()
	q := new(oracle.Msg).SetQuestion(name, oracle.TypeA)
	q.Id = id
	b, err := q.Pack()
	must(a.t, err)
	m := &dns.Message{}
	must(a.t, m.ParseQuery(b))
	return m, b
}

func (a *asking) key(client, name string, id uint16) (questionKey, *dns.Message, []byte) {
	m, b := a.message(name, id)
	return questionKey{netip.MustParseAddrPort(client), netip.MustParseAddrPort("10.0.0.2:53"), id, a.q.hash(m.Question())}, m, b
}

func (a *asking) add(client, name string, id uint16) (again, ok bool) {
	key, m, b := a.key(client, name, id)
	return a.q.shard(key.client.Addr()).add(a.q, key, m, b, func(q *question) { q.at = time.Now() })
}

func (a *asking) take(client, name string, id uint16) *question {
	key, m, _ := a.key(client, name, id)
	return a.q.shard(key.client.Addr()).take(key, m.Question())
}

// Only the answer to a question takes it, once; and there is room for so many.
func TestQuestions(t *testing.T) {
	limits := DNSLimits{Questions: 5, PerEndpoint: 3, Answer: time.Hour, Deadline: time.Hour}
	a := &asking{t, newQuestions(&limits)}
	const one, two = "10.0.0.1:4000", "10.0.0.3:4000"
	for i := range 3 {
		if again, ok := a.add(one, "a.", uint16(i)); again || !ok {
			t.Fatalf("question %d: %v, %v", i, again, ok)
		}
	}
	if _, ok := a.add(one, "a.", 3); ok {
		t.Error("an endpoint has more than its share")
	}
	if again, ok := a.add(one, "a.", 2); !again || !ok {
		t.Error("a question that is repeated takes room of its own")
	}
	for i := range 3 {
		if _, ok := a.add(two, "a.", uint16(i)); ok != (i < 2) {
			t.Errorf("question %d of another: %v", i, ok)
		}
	}
	for _, other := range []struct {
		client, name string
		id           uint16
	}{{one, "a.", 9}, {one, "A.", 1}, {one, "b.", 1}, {"10.0.0.1:4001", "a.", 1}, {"10.0.0.4:4000", "a.", 1}} {
		if a.take(other.client, other.name, other.id) != nil {
			t.Errorf("%+v is taken for the answer to another question", other)
		}
	}
	x := a.take(one, "a.", 1)
	if x == nil || a.take(one, "a.", 1) != nil {
		t.Fatal("an answer takes its question not once")
	}
	s := a.q.shard(x.key.client.Addr())
	use := s.hold(x)
	if !s.claim(x, use) || s.claim(x, use) {
		t.Error("a held answer is claimed not once")
	}
	s.free(a.q, x)
	if s.claim(x, use) {
		t.Error("who comes late claims what the memory is used for next")
	}
	if _, ok := a.add(one, "a.", 7); !ok {
		t.Error("room is not given back")
	}
}

// Who guesses ends what he guesses at, and nothing of others.
func TestQuestionsGuessed(t *testing.T) {
	limits := DNSLimits{Questions: 100, PerEndpoint: 100, Answer: time.Hour, Deadline: time.Hour}
	a := &asking{t, newQuestions(&limits)}
	const one, two = "10.0.0.1:4000", "10.0.0.1:4001"
	a.add(one, "a.", 1)
	a.add(one, "b.", 2)
	a.add(one, "b.", 2) // whose second answer is no guess
	a.add(two, "a.", 1)
	key, _, _ := a.key(one, "a.", 1)
	s := a.q.shard(key.client.Addr())
	for i := range maxWrong {
		if ended := s.guessed(key.ends(), time.Now()); ended != nil {
			t.Fatalf("%d questions end after %d answers to none", len(ended), i+1)
		}
	}
	ended := s.guessed(key.ends(), time.Now())
	if len(ended) != 2 {
		t.Fatalf("%d questions end, want 2", len(ended))
	}
	for _, x := range ended {
		s.free(a.q, x)
	}
	if a.q.total.Load() != 1 || a.take(one, "a.", 1) != nil || a.take(two, "a.", 1) == nil {
		t.Errorf("%d questions wait", a.q.total.Load())
	}
	for range 3 { // an answer shows that the client is not guessed at alone
		a.add(one, "c.", 3)
		for range maxWrong - 1 {
			if s.guessed(key.ends(), time.Now()) != nil {
				t.Error("a question ends too early")
			}
		}
		if x := a.take(one, "c.", 3); x == nil {
			t.Error("its answer finds no question")
		} else {
			s.free(a.q, x)
		}
	}
}

func TestQuestionsExpire(t *testing.T) {
	limits := DNSLimits{Questions: 100, PerEndpoint: 100, Answer: 10 * time.Second, Deadline: time.Second}
	a := &asking{t, newQuestions(&limits)}
	const client = "[fd00::1]:4000"
	for i := range 10 {
		a.add(client, fmt.Sprintf("a%d.", i), 1)
	}
	s := a.q.shard(netip.MustParseAddr("fd00::1"))
	x := a.take(client, "a3.", 1)
	use := s.hold(x)
	now := time.Now()
	if late, _ := s.overdue(a.q, now); late != nil || s.unanswered(a.q, now) {
		t.Error("something is over too early")
	}
	if late, u := s.overdue(a.q, now.Add(2*time.Second)); late != x || u != use {
		t.Error("a held answer is not over")
	}
	n := 0
	for s.unanswered(a.q, now.Add(11*time.Second)) {
		n++
	}
	s.claim(x, use)
	s.free(a.q, x)
	if n != 9 || a.q.total.Load() != 0 || len(s.of) != 0 || len(s.asked) != 0 || s.waits.first != nil || s.holds.first != nil {
		t.Errorf("%d are over, %d are left", n, a.q.total.Load())
	}
}

// What goes on allocates nothing.
func TestQuestionsDoNotAllocate(t *testing.T) {
	limits := DNSLimits{}.withDefaults()
	a := &asking{t, newQuestions(&limits)}
	key, m, b := a.key("10.0.0.1:4000", "www.example.org.", 7)
	s := a.q.shard(key.client.Addr())
	now := time.Now()
	if n := testing.AllocsPerRun(200, func() {
		if _, ok := s.add(a.q, key, m, b, func(q *question) { q.at = now }); !ok {
			t.Fatal("no room")
		}
		s.free(a.q, s.take(key, m.Question()))
	}); n != 0 {
		t.Errorf("%v allocations a question", n)
	}
}
