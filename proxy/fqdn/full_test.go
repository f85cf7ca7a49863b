package fqdn

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// An address that cannot become what it is to be known as is not what it was either: a
// deny by prefix that came since would not bind it.
func TestNothingStaysThatCannotChange(t *testing.T) {
	wide := rule(0, "*.example.com")
	deny := policy.Rule{Direction: policy.Egress, Deny: true, DefaultDeny: true, Ref: policy.Ref{Policy: "p", Path: "egressDeny[0]"},
		Peers: []policy.Peer{policy.CIDR{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}
	b := newBench(t)
	b.update(twoEndpoints(wide))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.learns("10.0.0.1", "b.example.com", "192.0.2.2")
	n := twoEndpoints(wide, deny)
	n.Tables = map[uint32]*policy.NameTable{2: n.Tables[1]}
	n.Endpoints[0].Table, n.Endpoints[1].Table = 2, 2

	b.k.set(func() { b.k.fail, b.k.stuck = errors.New("no room for rules"), errors.New("it does not go") })
	if err := b.Update(context.Background(), n); !errors.Is(err, ErrStale) {
		t.Fatalf("what it was known as stays, and the update says %v", err)
	}
	if err := b.Update(context.Background(), n); !errors.Is(err, ErrStale) {
		t.Fatalf("once more: %v", err)
	}
	b.k.set(func() { b.k.stuck = nil })
	if err := b.Update(context.Background(), n); errors.Is(err, ErrStale) || !errors.Is(err, ErrFull) {
		t.Fatalf("it went, without room for what it is now: %v", err)
	}
	if len(b.k.addrs) != 0 {
		t.Errorf("left in the kernel: %v", b.k.addrs)
	}
	b.k.set(func() { b.k.fail = nil })
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.update(n)
	for _, a := range []string{"192.0.2.1", "192.0.2.2"} {
		if e, ok := b.k.lookup(2, 1, a, policy.ProtoTCP, 80); a == "192.0.2.1" && (!ok || e.Verdict != policy.Deny) || ok && e.Verdict != policy.Deny {
			t.Errorf("%s when there is room again: %+v %t", a, e, ok)
		}
	}
}

// An answer is not done while rules of what its address is known as already are not written.
func TestRulesThatFailedAreWrittenAgain(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Tables = map[uint32]*policy.NameTable{2: n.Tables[1]}
	n.Endpoints = append([]redirect.NamedEndpoint(nil), n.Endpoints...)
	n.Endpoints[0].Table, n.Endpoints[1].Table = 2, 2
	b.k.set(func() { b.k.fail = errors.New("no room for rules") })
	if err := b.Update(context.Background(), n); !errors.Is(err, ErrFull) {
		t.Errorf("rules without room: %v", err)
	}
	if err := b.learn("10.0.0.1", "a.example.com", "192.0.2.1"); !errors.Is(err, ErrFull) {
		t.Errorf("an answer without rules is done: %v", err)
	}
	b.k.set(func() { b.k.fail = nil })
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	if e, ok := b.k.lookup(2, 1, "192.0.2.1", policy.ProtoTCP, 80); !ok || e.Verdict != policy.Allow {
		t.Errorf("when there is room: %+v %t", e, ok)
	}
}
