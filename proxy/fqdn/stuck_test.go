package fqdn

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

func (b *bench) stuckNow() []uint16 {
	b.Helper()
	s, err := b.Stats(context.Background())
	if err != nil {
		b.Fatal(err)
	}
	if (s.Stuck > 0) != (len(s.StuckEndpoints) > 0) {
		b.Errorf("%d addresses of the endpoints %v are stuck", s.Stuck, s.StuckEndpoints)
	}
	return s.StuckEndpoints
}

// retry is what the janitor does once a second.
func (b *bench) retry(after time.Duration) {
	b.time.add(after)
	_ = b.do(context.Background(), b.removeStuck)
}

// Who gets the number of an endpoint that is gone does not inherit what that one knew,
// though the kernel refuses to forget it.
func TestStuckAddresses(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.learns("10.0.0.2", "a.example.com", "192.0.2.1") // so that its rules stay
	b.verdict("before", 1, "192.0.2.1", 443, "allow")

	b.k.set(func() { b.k.stuck = errors.New("it does not go") })
	left := twoEndpoints(rule(0, "*.example.com"))
	left.Endpoints = left.Endpoints[1:]
	if err := b.Update(context.Background(), left); err == nil {
		t.Error("nobody is told that an address stays")
	}
	if got := b.stuckNow(); !slices.Equal(got, []uint16{1}) {
		t.Errorf("endpoints %v are stuck, want the first", got)
	}
	b.verdict("of who is gone", 1, "192.0.2.1", 443, "nothing") // by names: its prefix judges
	b.verdict("of who is there", 2, "192.0.2.1", 443, "allow")
	heir := twoEndpoints(rule(0, "*.example.com"))
	heir.Endpoints[0].Name = "default/heir"
	if err := b.Update(context.Background(), heir); !errors.Is(err, ErrStale) {
		t.Errorf("another gets the number: %v", err)
	}
	b.verdict("of the heir", 1, "192.0.2.1", 443, "nothing")

	b.retry(time.Millisecond) // too early
	b.retry(2 * time.Second)
	b.k.set(func() { b.k.stuck = nil })
	b.retry(time.Second) // the second pause is longer
	if len(b.stuckNow()) == 0 {
		t.Error("it is tried again as often as before")
	}
	b.retry(stuckPauseMost)
	if got := b.stuckNow(); len(got) > 0 {
		t.Errorf("endpoints %v are stuck though the kernel forgets again", got)
	}
	if _, there := b.k.addrs[policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("192.0.2.1")}]; there {
		t.Error("the address is in the kernel still")
	}
	b.update(heir)
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.verdict("what the heir learns itself", 1, "192.0.2.1", 443, "allow")
}

// An address that runs out and does not leave is tried again, and one that is learnt again
// meanwhile is not taken away for it.
func TestStuckIsLearntAgain(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.k.set(func() { b.k.stuck = errors.New("it does not go") })
	b.time.add(time.Hour)
	b.clean()
	if got := b.stuckNow(); !slices.Equal(got, []uint16{1}) {
		t.Fatalf("endpoints %v are stuck, want the first", got)
	}
	b.k.set(func() { b.k.stuck = nil })
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.retry(time.Hour)
	if got := b.stuckNow(); len(got) > 0 {
		t.Errorf("endpoints %v are stuck", got)
	}
	b.verdict("learnt again", 1, "192.0.2.1", 443, "allow")
}

// A process that ends between the end of an endpoint and its next life leaves to its
// successor what that one knew: whoever has the number by then does not get it.
func TestNumberOfAnotherAfterRestart(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.learns("10.0.0.2", "a.example.com", "192.0.2.1")
	b.stop()
	b.start()
	heir := twoEndpoints(rule(0, "*.example.com"))
	heir.Endpoints[0].Name = "default/heir"
	b.update(heir)
	b.verdict("of the heir", 1, "192.0.2.1", 443, "nothing")
	b.verdict("of who was there before", 2, "192.0.2.1", 443, "allow")
}
