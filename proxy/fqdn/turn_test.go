package fqdn

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Work lets others go first only after a while, and not for ever: then answers wait for it in
// the queue, and have their turns less often.
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
	turn.since = time.Now().Add(-aloneLasts / 2)
	if b.pause(&turn); turn.given != givesWay {
		t.Errorf("soon after that it gave %s to others", turn.given-givesWay)
	}
	turn.since = time.Now().Add(-aloneLasts)
	if b.pause(&turn); turn.given == givesWay || b.long.Load() != 1 {
		t.Errorf("later it gave nothing to what waits in the queue, long %d", b.long.Load())
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
