// Package names remembers which addresses were seen under which DNS names: what
// toFQDNs rules select from. It is plain data without a clock; whoever sees the
// answers says what time it is.
package names

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
)

// MaxAddresses is how many addresses of one name are remembered. Of more, those
// that run out first are forgotten, so that no name fills the table.
const MaxAddresses = 1000

// Answer is one answer that was seen.
type Answer struct {
	Name      string
	Addresses []netip.Addr
	Expires   time.Time
	Asker     string // the endpoint that asked
}

// Entry is what is known of one address under one name.
type Entry struct {
	Name    string
	Address netip.Addr
	Expires time.Time // the latest of all answers
	Askers  []string  // in order
}

// Table remembers answers. The zero Table is empty. It is not safe for
// concurrent use.
type Table struct {
	byName    map[string]map[netip.Addr]*entry
	byAddress map[netip.Addr]map[string]struct{}
}

type entry struct {
	expires time.Time
	askers  map[string]struct{}
}

// Learn adds an answer. It returns the addresses that got a name which they did
// not have, and those that lost one for want of room.
func (t *Table) Learn(a Answer) (changed []netip.Addr) {
	if t.byName == nil {
		t.byName, t.byAddress = map[string]map[netip.Addr]*entry{}, map[netip.Addr]map[string]struct{}{}
	}
	name := policy.NormalName(a.Name)
	if policy.ValidateDNSName(name) != nil {
		return nil // no rule can select it
	}
	for _, addr := range a.Addresses {
		if addr = addr.Unmap().WithZone(""); !addr.IsValid() {
			continue
		}
		e := t.byName[name][addr]
		if e == nil {
			e = &entry{askers: map[string]struct{}{}}
			add(t.byName, name, addr, e)
			add(t.byAddress, addr, name, struct{}{})
			changed = append(changed, addr)
		}
		if a.Expires.After(e.expires) {
			e.expires = a.Expires
		}
		e.askers[a.Asker] = struct{}{}
	}
	changed = append(changed, t.shrink(name)...)
	return unique(changed)
}

// shrink forgets what a name has too much.
func (t *Table) shrink(name string) []netip.Addr {
	over := len(t.byName[name]) - MaxAddresses
	if over <= 0 {
		return nil
	}
	addrs := slices.SortedFunc(maps.Keys(t.byName[name]), func(a, b netip.Addr) int {
		return cmp.Or(t.byName[name][a].expires.Compare(t.byName[name][b].expires), a.Compare(b))
	})
	for _, addr := range addrs[:over] {
		t.forget(name, addr)
	}
	return addrs[:over]
}

// Expire forgets what has run out, except addresses that are still in use. It
// returns the addresses that lost a name.
func (t *Table) Expire(now time.Time, inUse func(netip.Addr) bool) (changed []netip.Addr) {
	for name, addrs := range t.byName {
		for addr, e := range addrs {
			if !e.expires.After(now) && (inUse == nil || !inUse(addr)) {
				t.forget(name, addr)
				changed = append(changed, addr)
			}
		}
	}
	return unique(changed)
}

func (t *Table) forget(name string, addr netip.Addr) {
	remove(t.byName, name, addr)
	remove(t.byAddress, addr, name)
}

// Names returns the names of an address, in order.
func (t *Table) Names(addr netip.Addr) []string { return slices.Sorted(maps.Keys(t.byAddress[addr])) }

// Addresses returns every address that has a name, in order.
func (t *Table) Addresses() []netip.Addr {
	return slices.SortedFunc(maps.Keys(t.byAddress), netip.Addr.Compare)
}

// Select returns the addresses that a peer of a rule picks, in order.
func (t *Table) Select(peer policy.FQDN) []netip.Addr {
	var picked []netip.Addr
	if peer.Name != "" {
		picked = slices.Collect(maps.Keys(t.byName[peer.Name]))
	} else {
		for name, addrs := range t.byName {
			if peer.MatchesName(name) {
				picked = slices.AppendSeq(picked, maps.Keys(addrs))
			}
		}
	}
	return unique(picked)
}

// Identity returns what the identity of an address is made of.
func (t *Table) Identity(addr netip.Addr) (netip.Prefix, policy.Labels) {
	prefix := netip.PrefixFrom(addr, addr.BitLen())
	return prefix, policy.NamedLabels(prefix, t.Names(addr)...)
}

// Entries returns everything that is known, by name and address.
func (t *Table) Entries() []Entry {
	var list []Entry
	for name, addrs := range t.byName {
		for addr, e := range addrs {
			list = append(list, Entry{name, addr, e.expires, slices.Sorted(maps.Keys(e.askers))})
		}
	}
	slices.SortFunc(list, func(a, b Entry) int { return cmp.Or(cmp.Compare(a.Name, b.Name), a.Address.Compare(b.Address)) })
	return list
}

func unique(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

func add[K, L comparable, V any](m map[K]map[L]V, k K, l L, v V) {
	if m[k] == nil {
		m[k] = map[L]V{}
	}
	m[k][l] = v
}

func remove[K, L comparable, V any](m map[K]map[L]V, k K, l L) {
	delete(m[k], l)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
