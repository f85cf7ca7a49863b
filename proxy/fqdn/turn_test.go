package fqdn

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Work lets others go first only after a while, and not for ever: then answers wait for it in
// the queue.
func TestTurn(t *testing.T) {
	b := newBench(t)
	b.begin()
	defer b.Store.end()
	b.others.Add(1) // somebody waits all the time
	defer b.others.Add(-1)
	turn := turn{since: time.Now().Add(time.Hour)}
	if b.pause(&turn); turn.given != 0 {
		t.Errorf("it gave %s to others at once", turn.given)
	}
	turn.since = time.Time{}
	if b.pause(&turn); turn.given < turnLasts || turn.alone {
		t.Errorf("it gave %s to others, alone: %t", turn.given, turn.alone)
	}
	turn.since, turn.given = time.Time{}, givesWay
	if b.pause(&turn); turn.given != givesWay || !turn.alone || b.long.Load() != 1 {
		t.Errorf("after long it gave %s, alone: %t, long %d", turn.given, turn.alone, b.long.Load())
	}
	if b.endTurn(&turn); b.long.Load() != 0 {
		t.Error("answers wait in the queue for ever")
	}
}

// Changes come to an end while there are always answers, and until then the tables of before
// stay, however long it takes.
func TestUpdateUnderLoad(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	const names = 20000
	for i := range names {
		if err := b.learn("10.0.0.1", fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("198.%d.%d.%d", 51+i>>16, i>>8&255, i&255)); err != nil {
			t.Fatal(err)
		}
	}
	var ended atomic.Bool
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			a := b.answer("10.0.0.2", fmt.Sprintf("w%d.example.com", worker), "192.0.2.1")
			for !ended.Load() {
				_, _ = b.LearnNow(a, nil)
			}
		})
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Update(ctx, twoEndpoints(rule(0, "*.example.com"), rule(1, "*.example.org"))) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-ctx.Done():
		t.Error("a change does not come to its end")
	}
	ended.Store(true)
	wg.Wait()
}

// The tables of before stay while a change is under way, and for a while after it.
func TestOldTablesDuringUpdate(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	tables := func() int {
		count := 0
		_ = b.do(context.Background(), func() { b.dropOldTables(); count = len(b.byAddr[netip.MustParseAddr("10.0.0.1")].tables) })
		return count
	}
	_ = b.do(context.Background(), func() {
		start := b.now()
		b.updating = true
		b.hosts[1].setTable(2, start)
		b.time.add(time.Hour)
		b.dropOldTables()
		if got := len(b.hosts[1].tables); got != 2 {
			t.Errorf("while a change is under way an endpoint has %d tables, want both", got)
		}
		b.updated(start)
	})
	if got := tables(); got != 2 {
		t.Errorf("as it ends an endpoint has %d tables, want both", got)
	}
	b.time.add(tableStays + time.Second)
	if got := tables(); got != 1 {
		t.Errorf("later an endpoint has %d tables, want one", got)
	}
}
