package proxy

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/observe"
)

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
