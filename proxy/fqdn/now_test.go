package fqdn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"testing"
)

// What is put in force at once is there when that is said, and nothing of what was given
// is kept: its memory is the caller's.
func TestLearnNow(t *testing.T) {
	b := newBench(t)
	if now, err := b.LearnNow(b.answer("10.0.0.1", "a.example.com", "192.0.2.1"), nil); !now || !errors.Is(err, ErrNotYet) {
		t.Errorf("without policy: %v, %v", now, err)
	}
	b.update(twoEndpoints(rule(0, "*.example.com")))
	name := []byte("a.example.com")
	a := b.answer("10.0.0.1", string(name), "192.0.2.1")
	if now, err := b.LearnNow(a, nil); !now || err != nil {
		t.Fatalf("%v, %v", now, err)
	}
	a.Addresses[0].Addr = netip.MustParseAddr("192.0.2.9")
	b.verdict("at once", 1, "192.0.2.1", 80, "allow")
	b.verdict("of another endpoint", 2, "192.0.2.1", 80, "nothing")
	b.verdict("what came into the memory later", 1, "192.0.2.9", 80, "nothing")
	b.lock()
	now, err := b.LearnNow(b.answer("10.0.0.1", "b.example.com", "192.0.2.2"), nil)
	b.unlock()
	if now || err != nil {
		t.Errorf("while somebody works on what is known: %v, %v", now, err)
	}
	b.verdict("which had to wait", 1, "192.0.2.2", 80, "nothing")
	b.stop()
	if now, err := b.LearnNow(b.answer("10.0.0.1", "b.example.com", "192.0.2.2"), nil); now {
		t.Errorf("after the end: %v", err)
	}
}

// Answers that come in the midst of changes are in force when that is said, and in the end
// everything is as the last change has it.
func TestAnswersDuringChanges(t *testing.T) {
	b := newBench(t)
	always := rule(0, "*.example.com")
	b.update(twoEndpoints(always))
	const names = 300
	var wg sync.WaitGroup
	for worker := range 3 {
		wg.Go(func() {
			for i := worker; i < names; i += 3 {
				name, addr := fmt.Sprintf("n%d.example.com", i), fmt.Sprintf("198.51.%d.%d", i>>8, i&255)
				if err := b.learn("10.0.0.1", name, addr); err != nil {
					t.Errorf("%s: %v", name, err)
				}
				b.verdict(name, 1, addr, 80, "allow")
				if err := b.learn("10.0.0.1", fmt.Sprintf("n%d.example.org", i), fmt.Sprintf("203.0.%d.%d", i>>8, i&255)); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	for change := 0; ; change++ {
		select {
		case <-done:
			b.update(twoEndpoints(always))
			if s, err := b.Stats(context.Background()); err != nil || s.Names != 2*names || s.InKernel != names {
				t.Errorf("in the end: %+v, %v", s, err)
			}
			_ = b.do(context.Background(), func() {
				h, unruled := b.hosts[1], 0
				for _, e := range h.known {
					if e.pick == b.none {
						unruled++
					}
				}
				if unruled != names || h.unruled != names {
					t.Errorf("%d names that no rule is about, %d counted, want %d", unruled, h.unruled, names)
				}
			})
			return
		default:
		}
		if change%2 == 0 {
			b.update(twoEndpoints(always, rule(1, "*.example.org")))
		} else {
			b.update(twoEndpoints(always))
		}
	}
}
