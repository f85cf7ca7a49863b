package fqdn

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the property tests; 0: a new one each time")

// told is what the world of the property test knows: by endpoint, name and address, until
// when.
type told map[uint16]map[string]map[netip.Addr]time.Time

// TestStoreProperty changes names, policies, endpoints and time at random. After each
// step the kernel has exactly what every rule says of every address by its names.
func TestStoreProperty(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test -run %s -seed %d", t.Name(), seed)
	for round := range uint64(30) {
		// Where prefixes do not change, only what selectors concern is found anew.
		propertyRound(t, rand.New(rand.NewPCG(seed, round)), round%2 == 0)
		if t.Failed() {
			t.Logf("in round %d", round)
			return
		}
	}
}

func propertyRound(t *testing.T, r *rand.Rand, prefixes bool) {
	b := newBench(t)
	defer b.stop()
	names := []string{"a.example.com", "b.example.com", "a.example.org", "x.y.example.org", "example.net"}
	selectors := []string{"a.example.com", "*.example.com", "*", "**.example.org", "b.example.com", "*b*.example.com"}
	known := told{1: {}, 2: {}}
	rules := randomRules(r, selectors, prefixes)
	table := uint32(1)
	snapshot := func() *redirect.Names {
		n := twoEndpoints(rules...)
		n.Tables = map[uint32]*policy.NameTable{}
		if nt := tableOf(rules...); nt != nil {
			n.Tables[table] = nt
		}
		for i := range n.Endpoints {
			if n.Endpoints[i].Table = table; len(n.Tables) == 0 {
				n.Endpoints[i].Table = 0
			}
		}
		n.Prefixes = policy.Prefixes(rules)
		return n
	}
	b.updateOf(t, rules, snapshot)
	for step := range 40 {
		switch r.IntN(6) {
		case 0:
			rules, table = randomRules(r, selectors, prefixes), table+1
			b.updateOf(t, rules, snapshot)
		case 1:
			b.time.add(time.Duration(r.IntN(15)) * time.Second)
			b.clean()
			for _, byName := range known {
				for _, addrs := range byName {
					maps.DeleteFunc(addrs, func(_ netip.Addr, until time.Time) bool {
						return !until.After(b.time.Now().Add(-10 * time.Second))
					})
				}
			}
		default:
			id, name := uint16(1+r.IntN(2)), names[r.IntN(len(names))]
			addr := []string{"192.0.2.1", "192.0.2.200", "198.51.100.1", "2001:db8::1"}[r.IntN(4)]
			b.learns(fmt.Sprintf("10.0.0.%d", id), name, addr)
			if known[id][name] == nil {
				known[id][name] = map[netip.Addr]time.Time{}
			}
			known[id][name][netip.MustParseAddr(addr)] = time.Unix(b.time.Now().Add(20*time.Second).Unix()+1, 0)
		}
		if b.compare(t, known, snapshot(), table); t.Failed() {
			t.Logf("after step %d, rules %+v", step, rules)
			return
		}
	}
}

func (b *bench) updateOf(t *testing.T, rules []policy.Rule, snapshot func() *redirect.Names) {
	t.Helper()
	n := snapshot()
	for i := range rules {
		n.Rules[rules[i].Ref] = uint32(i + 1)
	}
	b.update(n)
}

func randomRules(r *rand.Rand, selectors []string, prefixes bool) []policy.Rule {
	var out []policy.Rule
	for i := range 1 + r.IntN(4) {
		rule := rule(i)
		rule.Deny = prefixes && r.IntN(4) == 0
		for range 1 + r.IntN(2) {
			switch {
			case rule.Deny || prefixes && r.IntN(4) == 0:
				rule.Peers = append(rule.Peers, policy.CIDR{Prefix: netip.MustParsePrefix([]string{"192.0.2.0/24", "192.0.2.128/25", "2001:db8::/32"}[r.IntN(3)])})
			default:
				rule.Peers = append(rule.Peers, mustFQDN(selectors[r.IntN(len(selectors))]))
			}
		}
		if r.IntN(2) == 0 {
			port := []uint16{80, 443}[r.IntN(2)]
			rule.Ports = []policy.PortRule{{Proto: policy.ProtoTCP, First: port, Last: port}}
		}
		out = append(out, rule)
	}
	return out
}

// compare asks the kernel and the rules about every address.
func (b *bench) compare(t *testing.T, known told, n *redirect.Names, table uint32) {
	t.Helper()
	nt := n.Tables[table]
	prefixes := newPrefixes(n.Prefixes)
	for id, byName := range known {
		byAddr := map[netip.Addr][]string{}
		for name, addrs := range byName {
			for addr := range addrs {
				byAddr[addr] = append(byAddr[addr], name)
			}
		}
		for addr, names := range byAddr {
			var picked []policy.FQDN
			if nt != nil {
				for _, f := range nt.Selectors() {
					if slices.ContainsFunc(names, f.MatchesName) {
						picked = append(picked, f)
					}
				}
			}
			for _, port := range []uint16{80, 443, 22} {
				got, found := b.k.lookup(table, id, addr.String(), policy.ProtoTCP, port)
				if found != (len(picked) > 0) {
					t.Errorf("%s of %d, known as %v: found %t, picked by %v", addr, id, names, found, picked)
					return
				}
				if !found {
					continue
				}
				want, _ := nt.Resolve(prefixes.of(addr), picked)
				one := policy.Table{Entries: map[policy.Key]policy.Entry{}}
				for k, e := range want.Entries {
					one.Entries[k] = e.Entry
				}
				if e := one.Lookup(policy.IdentityMinLocal, policy.Egress, policy.ProtoTCP, port); e.Verdict != got.Verdict {
					t.Errorf("%s of %d, known as %v, port %d: %s in the kernel, the rules say %s", addr, id, names, port, got.Verdict, e.Verdict)
					return
				}
			}
		}
	}
	_ = b.do(context.Background(), func() {
		for _, h := range b.hosts {
			unruled := 0
			for _, e := range h.known {
				if e.pick.key != b.pickOf(e.name).key {
					t.Errorf("%s is picked by %v, and should be by %v", e.name, e.pick.selectors, b.pickOf(e.name).selectors)
				}
				if e.pick == b.none {
					unruled++
				}
			}
			if unruled != h.unruled {
				t.Errorf("%d names of endpoint %d have no rule, %d counted", unruled, h.id, h.unruled)
			}
		}
	})
	b.k.mu.Lock()
	defer b.k.mu.Unlock()
	for k := range b.k.addrs {
		if !knows(known[k.Endpoint], k.Addr) {
			t.Errorf("%v is in the kernel, and no name is known for it", k)
		}
	}
}

func knows(byName map[string]map[netip.Addr]time.Time, addr netip.Addr) bool {
	for _, addrs := range byName {
		if _, ok := addrs[addr]; ok {
			return true
		}
	}
	return false
}
