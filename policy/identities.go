package policy

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// NamedPort is what a workload means by a port's name.
type NamedPort struct {
	Proto Proto
	Port  uint16
}

// NamedPorts maps names to ports. Workloads of one identity may mean different
// ports by one name, hence a list.
type NamedPorts map[string][]NamedPort

// IdentityInfo is an identity and what it stands for.
type IdentityInfo struct {
	ID         Identity
	Labels     Labels
	Prefix     netip.Prefix // of a CIDR identity; invalid for others
	NamedPorts NamedPorts   // of a workload, for egress rules that name ports
	Picked     []FQDN       // of addresses that have names: what picks them, besides their labels
}

// Identities is what is known of identities; selectors pick from it. The
// reserved ones are always in it. It is not safe for concurrent change.
type Identities struct {
	byID     map[Identity]*IdentityInfo
	byKey    map[string]idSet          // label key, whatever its source
	byValue  map[[2]string]idSet       // key and value, whatever their source
	prefixes map[netip.Prefix]Identity // CIDR identities
	under    map[netip.Prefix]idSet    // the same, by some of the prefixes that hold theirs
	names    map[string]idSet          // port names
}

type idSet map[Identity]struct{}

// NewIdentities returns a collection with the reserved identities.
func NewIdentities() *Identities {
	ids := &Identities{
		byID:     map[Identity]*IdentityInfo{},
		byKey:    map[string]idSet{},
		byValue:  map[[2]string]idSet{},
		prefixes: map[netip.Prefix]Identity{},
		under:    map[netip.Prefix]idSet{},
		names:    map[string]idSet{},
	}
	for id := IdentityHost; id <= IdentityWorldIPv6; id++ {
		labels, _ := ReservedLabels(id)
		ids.insert(&IdentityInfo{ID: id, Labels: labels})
	}
	return ids
}

var errIdentity = errors.New("cannot be added")

// Add makes an identity known, or replaces what was known of it.
func (ids *Identities) Add(info IdentityInfo) error {
	if info.ID < IdentityMinWorkload {
		return fmt.Errorf("identity %d %w: numbers below %d are reserved", info.ID, errIdentity, IdentityMinWorkload)
	}
	if info.Prefix.IsValid() {
		if info.Prefix != info.Prefix.Masked() {
			return fmt.Errorf("identity %d %w: %s has bits behind its mask", info.ID, errIdentity, info.Prefix)
		}
		if other, ok := ids.prefixes[info.Prefix]; ok && other != info.ID {
			return fmt.Errorf("identity %d %w: %s already is %d", info.ID, errIdentity, info.Prefix, other)
		}
		if info.Labels.Len() == 0 {
			info.Labels = CIDRLabels(info.Prefix)
		}
	}
	ids.Remove(info.ID)
	ids.insert(&info)
	return nil
}

func (ids *Identities) insert(info *IdentityInfo) {
	ids.byID[info.ID] = info
	for _, l := range info.Labels.list {
		addTo(ids.byKey, l.Key, info.ID)
		addTo(ids.byValue, [2]string{l.Key, l.Value}, info.ID)
	}
	if info.Prefix.IsValid() {
		ids.prefixes[info.Prefix] = info.ID
		for _, p := range strides(info.Prefix) {
			addTo(ids.under, p, info.ID)
		}
	}
	for _, f := range info.Picked {
		addTo(ids.byKey, f.Name, info.ID)
	}
	for name := range info.NamedPorts {
		addTo(ids.names, name, info.ID)
	}
}

// Remove forgets an identity. Reserved ones stay.
func (ids *Identities) Remove(id Identity) {
	info := ids.byID[id]
	if info == nil || id.Reserved() {
		return
	}
	delete(ids.byID, id)
	for _, l := range info.Labels.list {
		removeFrom(ids.byKey, l.Key, id)
		removeFrom(ids.byValue, [2]string{l.Key, l.Value}, id)
	}
	if info.Prefix.IsValid() {
		delete(ids.prefixes, info.Prefix)
		for _, p := range strides(info.Prefix) {
			removeFrom(ids.under, p, id)
		}
	}
	for _, f := range info.Picked {
		removeFrom(ids.byKey, f.Name, id)
	}
	for name := range info.NamedPorts {
		removeFrom(ids.names, name, id)
	}
}

// Get returns what is known of an identity.
func (ids *Identities) Get(id Identity) (IdentityInfo, bool) {
	if info := ids.byID[id]; info != nil {
		return *info, true
	}
	return IdentityInfo{}, false
}

// Len counts the identities, reserved ones included.
func (ids *Identities) Len() int { return len(ids.byID) }

// Each calls f for every identity, in order of number, until f returns false.
func (ids *Identities) Each(f func(IdentityInfo) bool) {
	for _, id := range slices.Sorted(maps.Keys(ids.byID)) {
		if !f(*ids.byID[id]) {
			return
		}
	}
}

func addTo[K comparable](index map[K]idSet, key K, id Identity) {
	set := index[key]
	if set == nil {
		set = idSet{}
		index[key] = set
	}
	set[id] = struct{}{}
}

func removeFrom[K comparable](index map[K]idSet, key K, id Identity) {
	delete(index[key], id)
	if len(index[key]) == 0 {
		delete(index, key)
	}
}
