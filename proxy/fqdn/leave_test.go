package fqdn

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// What is in the kernel once another process has taken over may be that one's: it stays,
// whether it is none of ours, runs out, or is of an endpoint that is gone.
func TestLeavingRemovesNothing(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	theirs := policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("192.0.2.9")}
	b.k.set(func() { b.k.addrs[theirs] = firstIdentity + part*parts - 1 })
	if err := b.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	_ = b.do(context.Background(), b.sweep)
	b.time.add(time.Hour)
	b.clean()
	left := twoEndpoints(rule(0, "*.example.com"))
	left.Endpoints = left.Endpoints[1:]
	b.update(left)
	b.k.set(func() {
		if len(b.k.addrs) != 2 {
			t.Errorf("the kernel has %v, want what it had", b.k.addrs)
		}
	})
}

// Rules that nobody uses at the moment get new numbers too.
func TestLingeringRulesAreRenewed(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	b.update(n)
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	_ = b.do(context.Background(), func() { clear(b.hosts[1].numbers) })
	again := twoEndpoints(rule(0, "*.example.com"))
	for ref := range again.Rules {
		again.Rules[ref] += 41
	}
	b.update(again)
	if e, ok := b.k.lookup(1, 1, "192.0.2.1", policy.ProtoTCP, 80); !ok || e.Rule != 42 {
		t.Errorf("it is rule %d, %t, want 42", e.Rule, ok)
	}
}
