package bpf

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// reading calls f with the gate's events until stop.
func (l *lab) reading(f func([]Event)) (events *Events, stop func()) {
	l.Helper()
	l.must(l.events.Close())
	events, err := l.g.Events()
	l.must(err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- events.Run(ctx, f) }()
	return events, func() {
		l.Helper()
		cancel()
		select {
		case err := <-done:
			l.must(err)
		case <-time.After(patience):
			l.Fatal("the reader goes on after its context ended")
		}
	}
}

// A lone event waits for no others.
func TestEventsArriveSoon(t *testing.T) {
	l := newLab(t)
	got := make(chan Event, 100)
	_, stop := l.reading(func(es []Event) {
		for _, e := range es {
			got <- e
		}
	})
	defer stop()
	soon := 0
	for i := 0; soon < 5; i++ {
		time.Sleep(time.Duration(i%5) * 37 * time.Millisecond) // anywhere in the reader's interval
		f := l.tcp(false, 40000, 80, ack)
		start := time.Now()
		l.sends(l.a, f)
		sent := time.Now()
		select {
		case e := <-got:
			// Twice the reader's interval, and some; on a busy machine not every time.
			if took := time.Since(start); took <= 4*pollInterval {
				soon++
			} else if i > 50 {
				t.Fatalf("the event took %v, and so did most before it", took)
			}
			const clocks = 50 * time.Millisecond // may differ
			if e.Time.Before(start.Add(-clocks)) || e.Time.After(sent.Add(clocks)) {
				t.Errorf("the event's time is %v, and not between %v and %v", e.Time, start, sent)
			}
			e.Time = time.Time{}
			want := f.eventOf(l.a.ifindex, EventDrop, policy.Egress, PolicyEntry{}, 163)
			if e != want {
				t.Errorf("event\n%+v, want\n%+v", e, want)
			}
		case <-time.After(patience):
			t.Fatal("no event")
		}
	}
}

// A flush waits for nothing but the reader.
func TestEventsFlush(t *testing.T) {
	l := newLab(t)
	var got atomic.Int64
	events, stop := l.reading(func(es []Event) { got.Add(int64(len(es))) })
	defer stop()
	for i := range 20 {
		l.sends(l.a, l.tcp(false, 40000, 80, ack))
		events.Flush(patience)
		if n := got.Load(); n != int64(i+1) {
			t.Fatalf("%d events after %d flushes", n, i+1)
		}
	}
}

// flood makes n drops, each with an event, or more: a run that a signal interrupts is
// begun anew.
func (l *lab) flood(n int) {
	l.Helper()
	_, err := l.g.objs.HgFromWorkload.Run(&ebpf.RunOptions{
		Data: l.tcp(false, 40000, 80, ack).bytes(), Context: skb{Ifindex: uint32(l.a.ifindex)}, Repeat: uint32(n),
	})
	l.must(err)
}

// Nothing is lost without being counted, and what was lost does not stop the rest.
func TestEventsLost(t *testing.T) {
	l := newLab(t)
	const most = 100_000
	dropped := func() int {
		drops, err := l.g.Drops()
		l.must(err)
		if len(drops) != 1 || drops[0].Reason != 163 {
			t.Fatalf("drop counters: %+v", drops)
		}
		return int(drops[0].Packets)
	}
	l.flood(most) // nobody reads
	lost, err := l.g.Lost()
	l.must(err)
	n := dropped()
	if lost == 0 || int(lost) >= n || n < most {
		t.Fatalf("lost %d of %d; the ring is %d bytes", lost, n, l.g.objs.HgEvents1.MaxEntries())
	}
	count, largest := make(chan int, 4096), 0
	_, stop := l.reading(func(es []Event) {
		largest = max(largest, len(es))
		count <- len(es)
	})
	got := 0
	for end := time.After(patience); got < n-int(lost); {
		select {
		case k := <-count:
			got += k
		case <-end:
			t.Fatalf("read %d, lost %d, of %d", got, lost, n)
		}
	}
	l.flood(10)
	n = dropped()
	for end := time.After(patience); got < n-int(lost); {
		select {
		case k := <-count:
			got += k
		case <-end:
			t.Fatal("no events after the flood")
		}
	}
	stop()
	if largest < 2 || largest > 256 {
		t.Errorf("the largest batch has %d events", largest)
	}
	if now, err := l.g.Lost(); now != lost || err != nil {
		t.Errorf("lost %d, then %d, %v", lost, now, err)
	}
}

// Tables read back as they were written.
func TestTables(t *testing.T) {
	l := newLab(t)
	eps, err := l.g.Endpoints()
	l.must(err)
	for _, e := range eps {
		w := l.a
		if e.Addr == l.b.v4 || e.Addr == l.b.v6 {
			w = l.b
		}
		if (e.Addr != w.v4 && e.Addr != w.v6) || e.ID != w.id || e.Ifindex != w.ifindex || e.Identity != w.identity ||
			e.Subject != w.subject || e.MAC.String() != w.mac.String() || !e.Ready {
			t.Errorf("endpoint %+v, want %+v", e, w)
		}
	}
	if len(eps) != 4 {
		t.Errorf("%d endpoints", len(eps))
	}
	ids, err := l.g.Identities()
	l.must(err)
	for prefix, id := range ids {
		l.must(l.g.DeleteIdentity(prefix))
		l.must(l.g.SetIdentity(prefix, id+7))
	}
	again, err := l.g.Identities()
	l.must(err)
	if len(again) != len(ids) || len(ids) != 8 {
		t.Errorf("identities %v, then %v", ids, again)
	}
	for prefix, id := range ids {
		if again[prefix] != id+7 {
			t.Errorf("%s is %d, want %d", prefix, again[prefix], id+7)
		}
	}
	l.must(l.g.SetRoute(AnyRoute(1), 8000))
	l.must(l.g.SetRoute(Route{1, 2}, 8001))
	l.must(l.g.SetRoute(Route{1, 2}, 0))
	l.must(l.g.SetRoute(Route{1, 2}, 0))
	routes, err := l.g.Routes()
	if len(routes) != 1 || routes[AnyRoute(1)] != 8000 || err != nil {
		t.Errorf("routes %v, %v", routes, err)
	}
	usage := l.usage()
	if usage["endpoints"].Entries != 4 || usage["endpoints"].Limit != 65536 || usage["policy"].Entries != 4 || usage["routes"].Entries != 1 || usage["ipcache"].Entries != 8 {
		t.Errorf("usage %v, %v", usage, err)
	}
	l.must(l.g.DeleteEndpoint(l.a.v4))
	l.must(l.g.DeleteEndpoint(l.a.v4))
}
