package fqdn

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

func (b *bench) learns(client, name string, addrs ...string) {
	b.Helper()
	if err := b.learn(client, name, addrs...); err != nil {
		b.Errorf("learn %s: %v", name, err)
	}
}

func TestLearn(t *testing.T) {
	b := newBench(t)
	if err := b.learn("10.0.0.1", "api.example.com", "192.0.2.1"); !errors.Is(err, ErrNotYet) {
		t.Errorf("before any policy: %v", err)
	}
	b.update(twoEndpoints(rule(0, "api.example.com", "*.example.org")))
	b.learns("10.0.0.1", "API.example.com.", "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1")
	for _, a := range []string{"192.0.2.1", "192.0.2.2", "2001:db8::1"} {
		b.verdict("asked", 1, a, 443, "allow")
		b.verdict("another asked", 2, a, 443, "nothing")
	}
	b.learns("fd00::1", "www.example.org", "192.0.2.9")
	b.verdict("asked by its other address", 1, "192.0.2.9", 80, "allow")
	b.learns("10.0.0.1", "example.net", "192.0.2.10")
	b.verdict("no rule", 1, "192.0.2.10", 80, "nothing")
	b.learns("10.9.9.9", "api.example.com", "192.0.2.11")
	if stats, err := b.Stats(context.Background()); err != nil || stats.Addresses != 5 || stats.InKernel != 4 || stats.Names != 3 || stats.Identities != 3 {
		t.Errorf("%+v, %v", stats, err) // two prefixes with one selector, one with another
	}
}

// Everybody who asks is told when it holds, and not before.
func TestManyAtOnce(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	var wg sync.WaitGroup
	for i := range 2000 {
		wg.Add(1)
		client, id := "10.0.0.1", uint16(1)
		if i%2 == 1 {
			client, id = "10.0.0.2", 2
		}
		addr := fmt.Sprintf("192.0.%d.%d", i/200, i%100)
		b.Learn(b.answer(client, fmt.Sprintf("n%d.example.com", i%7), addr), func(err error) {
			defer wg.Done()
			if err != nil {
				t.Error(err)
			}
			if e, ok := b.k.lookup(1, id, addr, policy.ProtoTCP, 443); !ok || e.Verdict != policy.Allow {
				t.Errorf("%s of %d is not in force though it was said to be", addr, id)
			}
		})
	}
	wg.Wait()
}

func TestRunsOut(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com"), rule(1, "www.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.learns("10.0.0.1", "www.example.com", "192.0.2.1")
	b.learns("10.0.0.2", "a.example.com", "192.0.2.1")
	b.time.add(25 * time.Second) // TTL 20 s, grace 10 s
	b.clean()
	b.verdict("in its grace", 1, "192.0.2.1", 80, "allow")
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.open.set("10.0.0.2", "192.0.2.1")
	b.time.add(10 * time.Second)
	b.clean()
	b.verdict("learnt again by one of its names", 1, "192.0.2.1", 80, "allow")
	b.verdict("in use", 2, "192.0.2.1", 80, "allow")
	b.time.add(40 * time.Second)
	b.clean()
	b.verdict("run out", 1, "192.0.2.1", 80, "nothing")
	b.verdict("still in use", 2, "192.0.2.1", 80, "allow")
	if s, _ := b.Stats(context.Background()); s.Held != 1 {
		t.Errorf("%+v: want one held by a connection", s)
	}
	b.open.set()
	b.time.add(time.Second)
	b.clean()
	b.verdict("a moment after", 2, "192.0.2.1", 80, "allow")
	b.time.add(20 * time.Second)
	b.clean()
	b.verdict("no longer in use", 2, "192.0.2.1", 80, "nothing")
	b.time.add(dropEvery * 2)
	b.clean()
	if len(b.k.rules) != 0 || len(b.k.addrs) != 0 {
		t.Errorf("left in the kernel: %v %v", b.k.rules, b.k.addrs)
	}
}

func TestPolicyChanges(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "a.example.com")))
	b.learns("10.0.0.1", "b.example.com", "192.0.2.2")
	b.verdict("before there is a rule", 1, "192.0.2.2", 80, "nothing")
	n := twoEndpoints(rule(0, "a.example.com"), rule(1, "b.example.com"))
	n.Tables[2] = n.Tables[1]
	delete(n.Tables, 1)
	n.Endpoints[0].Table, n.Endpoints[1].Table = 2, 2
	b.update(n)
	if e, ok := b.k.lookup(2, 1, "192.0.2.2", policy.ProtoTCP, 80); !ok || e.Verdict != policy.Allow || e.Rule == 0 {
		t.Errorf("a rule added later: %+v %v", e, ok)
	}
	b.verdict("by the table of before", 1, "192.0.2.2", 80, "nothing")
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.verdict("learnt now, by the table that the gate may still have", 1, "192.0.2.1", 80, "allow")

	// An endpoint's number that another has now brings nothing of the first's.
	n.Endpoints[0].Name = "default/c"
	b.update(n)
	if e, ok := b.k.lookup(2, 1, "192.0.2.2", policy.ProtoTCP, 80); ok {
		t.Errorf("another endpoint inherits %+v", e)
	}
	b.update(nil)
	if len(b.k.addrs) != 0 {
		t.Errorf("left in the kernel: %v", b.k.addrs)
	}
}

func TestCIDRDenyBinds(t *testing.T) {
	b := newBench(t)
	deny := policy.Rule{Direction: policy.Egress, Deny: true, DefaultDeny: true, Ref: policy.Ref{Policy: "p", Path: "egressDeny[0]"},
		Peers: []policy.Peer{policy.CIDR{Prefix: netip.MustParsePrefix("192.0.2.0/24")}}}
	narrow := rule(0, "*")
	narrow.Ports = []policy.PortRule{{Proto: policy.ProtoTCP, First: 443, Last: 443}}
	b.update(twoEndpoints(narrow, deny))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1", "198.51.100.1")
	b.verdict("denied by its prefix", 1, "192.0.2.1", 443, "deny")
	b.verdict("another prefix", 1, "198.51.100.1", 443, "allow")
	b.verdict("another port", 1, "198.51.100.1", 80, "deny")
}

func httpRule(i int, path string, names ...string) policy.Rule {
	r := rule(i, names...)
	ref := policy.Ref{Policy: "p", Path: fmt.Sprintf("egress[%d].toPorts[0]", i)}
	r.Ports = []policy.PortRule{{Proto: policy.ProtoTCP, First: 80, Last: 80, Ref: ref, L7: &policy.L7Rules{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{{Path: path, Ref: ref}}}}}
	return r
}

// What only names bring together has no set until the agent makes it: the answer waits.
func TestMissingSets(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(httpRule(0, "/a", "a.example.com"), httpRule(1, "/b", "*.example.com"))
	number := func(names ...string) {
		var picked []policy.FQDN
		for _, s := range names {
			picked = append(picked, mustFQDN(s))
		}
		_, sets := n.Tables[1].Resolve(netip.MustParsePrefix("0.0.0.0/0"), picked)
		for id := range sets {
			n.Sets[id] = redirect.SetNumber(uint32(policy.ProtocolHTTP)<<24 | uint32(len(n.Sets)+1))
		}
	}
	number("*.example.com")
	b.update(n)
	b.learns("10.0.0.1", "b.example.com", "192.0.2.2")
	b.verdict("one set", 1, "192.0.2.2", 80, "redirect")
	done := make(chan error, 1)
	b.Learn(b.answer("10.0.0.1", "a.example.com", "192.0.2.1"), func(err error) { done <- err })
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	missing, err := b.Missing(ctx)
	if err != nil || len(missing) != 1 || len(missing[0].Picked) != 2 || missing[0].Table != 1 {
		t.Fatalf("missing %+v, %v", missing, err)
	}
	select {
	case err := <-done:
		t.Fatalf("done without its set: %v", err)
	default:
	}
	if e, _ := b.k.lookup(1, 1, "192.0.2.1", policy.ProtoTCP, 80); e.Verdict != policy.Redirect || e.Set != 0 {
		t.Errorf("without its set: %+v, want what the gate refuses", e)
	}
	next := *n
	n = &next
	sets := n.Sets
	n.Sets = map[policy.SetID]redirect.SetNumber{}
	for id, number := range sets {
		n.Sets[id] = number
	}
	number("*.example.com", "a.example.com")
	b.update(n)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if e, _ := b.k.lookup(1, 1, "192.0.2.1", policy.ProtoTCP, 80); e.Verdict != policy.Redirect || e.Set == 0 {
		t.Errorf("with its set: %+v", e)
	}
}

func TestFull(t *testing.T) {
	b := newBench(t, func(b *bench) { b.k.room = 100 })
	b.update(twoEndpoints(rule(0, "*.example.com")))
	for i := range 90 {
		b.learns("10.0.0.1", fmt.Sprintf("n%d.example.net", i), fmt.Sprintf("198.51.100.%d", i)) // of no rule
	}
	var refused int
	for i := range 110 {
		if err := b.learn("10.0.0.1", "a.example.com", fmt.Sprintf("192.0.2.%d", i)); errors.Is(err, ErrFull) {
			refused++
		} else if err != nil {
			t.Error(err)
		} else {
			b.verdict("in force", 1, fmt.Sprintf("192.0.2.%d", i), 80, "allow")
		}
	}
	if refused < 10 || refused > 20 {
		t.Errorf("%d of 110 refused where there is room for about 98", refused)
	}
	b.verdict("of before", 1, "192.0.2.0", 80, "allow")
	if s, _ := b.Stats(context.Background()); s.Refused != uint64(refused) {
		t.Errorf("%+v: want %d refused", s, refused)
	}
	b.k.fail = errors.New("no room for rules")
	if err := b.learn("10.0.0.2", "www.example.com", "192.0.2.1"); err == nil {
		b.verdict("known already", 2, "192.0.2.1", 80, "allow")
	}
	n := twoEndpoints(rule(0, "*.example.com"), rule(1, "new.example.com"))
	if err := b.Update(context.Background(), n); err != nil {
		t.Log("as it should be, or nothing had to be written:", err)
	}
	if err := b.learn("10.0.0.2", "new.example.com", "192.0.2.1"); err == nil {
		t.Error("no error though rules could not be written")
	}
	b.k.fail = nil
	if err := b.learn("10.0.0.2", "new.example.com", "192.0.2.1"); err != nil && !errors.Is(err, ErrFull) {
		t.Error(err)
	}
}

func TestOneNameHasItsShare(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	n.Limits.PerName = 10
	b.update(n)
	var refused error
	for i := range 30 {
		b.time.add(time.Second)
		refused = b.learn("10.0.0.1", "a.example.com", fmt.Sprintf("192.0.2.%d", i))
	}
	if !errors.Is(refused, ErrShare) {
		t.Errorf("the 30th address of a name that may have 10: %v", refused)
	}
	b.open.set("10.0.0.1", "192.0.2.0")
	b.time.add(time.Minute)
	b.clean()
	b.verdict("in use", 1, "192.0.2.0", 80, "allow")
}

func TestRestart(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	b.update(n)
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1", "2001:db8::7")
	b.learns("10.0.0.2", "b.example.com", "192.0.2.2")
	b.stop()
	before := b.k.addrs[policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("192.0.2.1")}]
	b.time.add(time.Hour)
	b.start()
	b.verdict("while nobody is there", 1, "192.0.2.1", 80, "allow")
	n.Endpoints[1].Name = "default/other"
	b.update(n)
	b.verdict("after", 1, "192.0.2.1", 80, "allow")
	b.verdict("after", 1, "2001:db8::7", 80, "allow")
	k := policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("2001:db8::7")}
	if _, err := b.k.Put([]policy.NameKey{k}, []policy.Identity{before}); err != nil { // as one does that is on its way out
		t.Fatal(err)
	}
	if after := b.k.addrs[policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("192.0.2.1")}]; after == before {
		t.Error("two processes use the same numbers")
	}
	b.time.add(sweepAfter + time.Second)
	b.clean()
	b.verdict("of an endpoint that is another now", 2, "192.0.2.2", 80, "nothing")
	if got := b.k.addrs[k]; got < b.first || got >= b.first+part {
		t.Errorf("what the process before wrote last is %d still", got)
	}
	for k := range b.k.rules {
		if k.Identity < b.first || k.Identity >= b.first+part {
			t.Errorf("rules of the process before stay: %v", k)
		}
	}

	// A machine that was started anew has an empty kernel.
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.stop()
	b.k.addrs, b.k.rules = map[policy.NameKey]policy.Identity{}, map[policy.NameRulesKey]policy.NameRules{}
	b.start()
	b.update(n)
	b.verdict("after a reboot", 1, "192.0.2.1", 80, "allow")
}

func TestDamagedFile(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.stop()
	good, _ := b.disk.Load()
	if _, err := decode(good); err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][]byte{{}, good[:len(good)-1], []byte(magic), append([]byte(strings.Repeat("x", 80)), good...), append([]byte{}, good[:40]...)} {
		if _, err := decode(bad); !errors.Is(err, errCorrupt) {
			t.Errorf("%d bytes of %d: %v", len(bad), len(good), err)
		}
	}
	for i := range good {
		flipped := append([]byte{}, good...)
		flipped[i] ^= 1
		if _, err := decode(flipped); !errors.Is(err, errCorrupt) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	b.disk.data = good[:20]
	b.start()
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	b.verdict("after it was empty", 1, "192.0.2.1", 80, "allow")
}

// What the process before learns on its way out comes with its last file.
func TestCatchUp(t *testing.T) {
	b := newBench(t)
	n := twoEndpoints(rule(0, "*.example.com"))
	b.update(n)
	old := *b
	b.start()
	b.update(n)
	if err := old.Leave(context.Background()); err != nil {
		t.Fatal(err)
	}
	old.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	if err := old.HandOver(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.time.add(sweepAfter + time.Second)
	b.clean()
	b.verdict("learnt by the one before", 1, "192.0.2.1", 80, "allow")
	if id := b.k.addrs[policy.NameKey{Endpoint: 1, Addr: netip.MustParseAddr("192.0.2.1")}]; id < b.first || id >= b.first+part {
		t.Errorf("it has identity %d, which is not one of ours", id)
	}
	old.stop()
}

func TestHandOver(t *testing.T) {
	b := newBench(t)
	b.update(twoEndpoints(rule(0, "*.example.com")))
	b.learns("10.0.0.1", "a.example.com", "192.0.2.1")
	if err := b.HandOver(context.Background()); err != nil {
		t.Fatal(err)
	}
	if err := b.learn("10.0.0.1", "b.example.com", "192.0.2.2"); !errors.Is(err, ErrEnded) {
		t.Errorf("learnt after it was handed over: %v", err)
	}
	if hosts, err := decode(b.disk.data); err != nil || len(hosts) != 2 {
		t.Errorf("%+v, %v", hosts, err)
	}
	b.disk.data = []byte("another's")
	b.stop()
	if string(b.disk.data) != "another's" {
		t.Error("who has handed over writes the file of another")
	}
}
