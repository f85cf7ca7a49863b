package fqdn

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"testing"
	"time"

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

// What clients can make the process remember is bounded: names of an address, and names
// that no rule is about.
func TestNamesAreBounded(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	for i := range maxNames {
		b.learns("10.0.0.1", fmt.Sprintf("n%d.example.com", i), "192.0.2.1")
	}
	if err := b.learn("10.0.0.1", "more.example.com", "192.0.2.1"); !errors.Is(err, ErrShare) {
		t.Errorf("another name of an address that has %d: %v", maxNames, err)
	}
	b.learns("10.0.0.1", "other.example.net", "192.0.2.1") // which nothing is to hold for
	b.learns("10.0.0.1", "n1.example.com", "192.0.2.1")
	for i := range maxUnruled + 10 {
		b.learns("10.0.0.1", fmt.Sprintf("n%d.example.net", i), fmt.Sprintf("198.51.%d.%d", i>>8, i&255))
	}
	if s, err := b.Stats(context.Background()); err != nil || s.Names != maxNames+maxUnruled {
		t.Errorf("%+v, %v: want %d names", s, err, maxNames+maxUnruled)
	}
	b.learns("10.0.0.1", "a.example.com", "192.0.2.2")
	b.verdict("of a rule", 1, "192.0.2.2", 80, "allow")
	b.time.add(time.Minute)
	b.clean()
	if err := b.do(context.Background(), func() {
		if h := b.hosts[1]; b.pairs != 0 || h.pairs != 0 || h.unruled != 0 || b.addresses != 0 || len(h.known) != 0 {
			t.Errorf("when all has run out there are %d pairs, %d of the endpoint, %d names without rules, %d addresses", b.pairs, h.pairs, h.unruled, b.addresses)
		}
	}); err != nil {
		t.Error(err)
	}
}

// Many names that share few addresses take no more than their share.
func TestPairsAreBounded(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Limits.PerEndpoint = 10
	b.update(n)
	var refused int
	for i := range 30 {
		if err := b.learn("10.0.0.1", fmt.Sprintf("n%d.example.com", i), "192.0.2.1"); errors.Is(err, ErrShare) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	if refused != 30-pairs*10 {
		t.Errorf("%d of 30 refused", refused)
	}
}

// A name that no rule is about is answered where it finds no room, as there is nothing to
// be in force.
func TestUnruledNamesNeedNoRoom(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Limits.PerEndpoint = 3
	b.update(n)
	for i := range 10 {
		b.learns("10.0.0.1", fmt.Sprintf("n%d.example.net", i), fmt.Sprintf("198.51.100.%d", i))
	}
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1", "192.0.2.2", "192.0.2.3") // which they make room for
	b.learns("10.0.0.1", "a.example.net", "198.51.100.1")
	if err := b.learn("10.0.0.1", "b.example.com", "192.0.2.4"); !errors.Is(err, ErrShare) {
		t.Errorf("a name of a rule without room: %v", err)
	}
}

// A name that leads to the machine itself, or to many, opens nothing.
func TestAddressesOfNobody(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*")))
	nobody := []string{"127.0.0.1", "127.8.8.8", "0.0.0.0", "0.1.2.3", "255.255.255.255", "224.0.0.1", "::", "::1", "ff02::1", "::ffff:127.0.0.1"}
	b.learns("10.0.0.1", "rebound.example.com", append(nobody, "192.0.2.1")...)
	b.verdict("of somebody", 1, "192.0.2.1", 80, "allow")
	for _, a := range nobody {
		b.verdict("of nobody", 1, a, 80, "nothing")
	}
	if len(b.k.addrs) != 1 {
		t.Errorf("in the kernel: %v", b.k.addrs)
	}
}

// A process uses no identity that an earlier one may have left in the kernel.
func TestPartsOfItsOwn(t *testing.T) {
	addr := func(p int) policy.NameKey {
		return policy.NameKey{Endpoint: 7, Addr: netip.AddrFrom4([4]byte{192, 0, 2, byte(p)})}
	}
	for _, all := range []bool{false, true} {
		k := newKernel()
		for p := range parts {
			id := firstIdentity + policy.Identity(p)*part
			switch {
			case p%2 == 0:
				k.addrs[addr(p)] = id
				k.addrs[policy.NameKey{Endpoint: 8, Addr: addr(p).Addr}] = id + 1
			case p != 5 || all:
				k.rules[policy.NameRulesKey{Table: 1, Identity: id}] = policy.NameRules{{Direction: policy.Egress}: {}}
			}
		}
		s, err := New(Config{Maps: k, Gate: k})
		if err != nil {
			t.Fatal(err)
		}
		ours, ok := partOf(s.first)
		if !ok || !all && ours != 5 {
			t.Errorf("part %d, where 5 is free", ours)
		}
		for key := range k.rules {
			if p, _ := partOf(key.Identity); p == ours {
				t.Errorf("part %d has rules of an earlier process: %v", ours, key)
			}
		}
		if want := parts/2 - 1; len(k.rules) != want {
			t.Errorf("all %t: %d rules stay, want %d", all, len(k.rules), want)
		}
	}
}

// The sweep also corrects rules that are ours.
func TestSweepCorrectsRules(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.k.set(func() {
		for key := range b.k.rules {
			b.k.rules[key] = maps.Clone(b.k.rules[key])
			b.k.rules[key][policy.Key{Direction: policy.Egress, Proto: policy.ProtoTCP, Port: 22, PrefixBits: 16}] = policy.NumberedEntry{Verdict: policy.Deny}
		}
	})
	b.verdict("before", 1, "192.0.2.1", 22, "deny")
	b.time.add(sweepAfter + time.Second)
	b.clean()
	b.verdict("after", 1, "192.0.2.1", 22, "allow")
}
