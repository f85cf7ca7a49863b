package bpf

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// Short names of what is in the maps of names.
type (
	NameKey      = policy.NameKey
	NameRules    = policy.NameRules
	NameRulesKey = policy.NameRulesKey
)

// Names writes the maps of names. It needs no privilege beyond their descriptors.
type Names struct{ names, rules *ebpf.Map }

// Names are the maps of this gate.
func (g *Gate) Names() *Names { return &Names{g.objs.HgName1, g.objs.HgNameRule1} }

// NameMaps are those that the proxy writes: addresses, then rules.
func (g *Gate) NameMaps() []*ebpf.Map { return []*ebpf.Map{g.objs.HgName1, g.objs.HgNameRule1} }

// OpenNames takes the maps from descriptors that another process gave, in the order
// of Gate.NameMaps, and owns them.
func OpenNames(fds [2]int) (*Names, error) {
	var maps [2]*ebpf.Map
	for i, fd := range fds {
		m, err := ebpf.NewMapFromFD(fd)
		if err != nil {
			return nil, fmt.Errorf("take map of names from descriptor %d: %w", fd, err)
		}
		maps[i] = m
	}
	return &Names{maps[0], maps[1]}, nil
}

// Room is how many addresses there is room for.
func (n *Names) Room() int { return int(n.names.MaxEntries()) }

func nameKey(k NameKey) gateNameKey {
	return gateNameKey{Addr: toAddr(k.Addr), Endpoint: uint32(k.Endpoint)}
}

// Put writes addresses, all with as few system calls as the kernel allows. It says
// how many were written: ErrFull if the map has no room for more.
func (n *Names) Put(keys []NameKey, ids []policy.Identity) (int, error) {
	raw, values := make([]gateNameKey, len(keys)), make([]uint32, len(keys))
	for i, k := range keys {
		raw[i], values[i] = nameKey(k), uint32(ids[i])
	}
	if len(keys) == 0 {
		return 0, nil
	}
	done, err := n.names.BatchUpdate(raw, values, nil)
	switch {
	case err == nil:
		return len(keys), nil
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOSPC):
		return done, fmt.Errorf("write names to the datapath: %w: it has %d addresses", ErrFull, n.names.MaxEntries())
	}
	return done, fmt.Errorf("write names to the datapath: %w", err)
}

// Delete forgets addresses.
func (n *Names) Delete(keys []NameKey) error {
	var errs error
	for _, k := range keys {
		raw := nameKey(k)
		if err := ignoreMissing(n.names.Delete(&raw)); err != nil {
			errs = errors.Join(errs, fmt.Errorf("remove name of %s from the datapath: %w", k.Addr, err))
		}
	}
	return errs
}

// batch is how many entries are read with one system call.
const nameBatch = 4096

// All calls f for each address.
func (n *Names) All(f func(NameKey, policy.Identity) bool) error {
	keys, values := make([]gateNameKey, nameBatch), make([]uint32, nameBatch)
	var cursor ebpf.MapBatchCursor
	for {
		count, err := n.names.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last {
			return fmt.Errorf("read names of the datapath: %w", err)
		}
		for i := range count {
			if !f(NameKey{Endpoint: uint16(keys[i].Endpoint), Addr: fromAddr(keys[i].Addr)}, policy.Identity(values[i])) {
				return nil
			}
		}
		if last {
			return nil
		}
	}
}

// SyncRules brings what a table says of an identity from old, what is in the kernel,
// to want. As with Gate.SyncPolicy every connection gets either its old or its new
// verdict: the entry for every protocol, without which the others are not looked
// for, is written last where there was none, and removed first.
func (n *Names) SyncRules(k NameRulesKey, old, want NameRules) error {
	head := policy.Key{Direction: policy.Egress}
	_, was := old[head]
	if _, is := want[head]; !is {
		if was {
			if err := n.deleteRule(k, head); err != nil {
				return err
			}
		}
		return n.deleteRules(k, old, nil)
	}
	both := lengths(old, want)[policy.Egress]
	if was { // first, entries of other lengths are found
		if err := n.putRule(k, head, old[head], both); err != nil {
			return err
		}
	}
	keys := slices.SortedFunc(maps.Keys(want), bySpecificity)
	for _, rule := range keys {
		if o, ok := old[rule]; rule == head || ok && o == want[rule] {
			continue
		}
		if err := n.putRule(k, rule, want[rule], 0); err != nil {
			return err
		}
	}
	if err := n.putRule(k, head, want[head], both); err != nil {
		return err
	}
	if err := n.deleteRules(k, old, want); err != nil {
		return err
	}
	if now := lengths(want)[policy.Egress]; now != both {
		return n.putRule(k, head, want[head], now)
	}
	return nil
}

func (n *Names) deleteRules(k NameRulesKey, old, want NameRules) error {
	drop := slices.SortedFunc(maps.Keys(old), func(a, b policy.Key) int { return bySpecificity(b, a) })
	for _, rule := range drop {
		if _, stays := want[rule]; stays {
			continue
		}
		if err := n.deleteRule(k, rule); err != nil {
			return err
		}
	}
	return nil
}

func ruleKey(k NameRulesKey, rule policy.Key) gatePolicyKey {
	rule.Peer, rule.Direction = k.Identity, policy.Egress
	return policyKey(k.Table, rule)
}

func (n *Names) putRule(k NameRulesKey, rule policy.Key, e PolicyEntry, lengths uint32) error {
	raw := ruleKey(k, rule)
	rule.Peer = k.Identity
	v := gateNameEntry{Entry: gatePolicyEntry{Verdict: uint8(e.Verdict), Set: e.Set, Rule: e.Rule, Match: match(rule, e)}, Lengths: lengths}
	if e.Audit {
		v.Entry.Flags = entryAudit
	}
	err := n.rules.Put(&raw, &v)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.E2BIG), errors.Is(err, unix.ENOSPC):
		return fmt.Errorf("write rules about names to the datapath: %w: its %d entries are taken", ErrFull, n.rules.MaxEntries())
	}
	return fmt.Errorf("write rules about names to the datapath: %w", err)
}

func (n *Names) deleteRule(k NameRulesKey, rule policy.Key) error {
	raw := ruleKey(k, rule)
	if err := ignoreMissing(n.rules.Delete(&raw)); err != nil {
		return fmt.Errorf("remove rules about names from the datapath: %w", err)
	}
	return nil
}

// Rules lists every table in the kernel.
func (n *Names) Rules() (map[NameRulesKey]NameRules, error) {
	out := map[NameRulesKey]NameRules{}
	var k gatePolicyKey
	var v gateNameEntry
	it := n.rules.Iterate()
	for it.Next(&k, &v) {
		of := NameRulesKey{Table: k.Subject, Identity: policy.Identity(k.Peer)}
		if out[of] == nil {
			out[of] = NameRules{}
		}
		out[of][policy.Key{Direction: policy.Egress, Proto: policy.Proto(k.Proto), Port: k.Port, PrefixBits: k.DirBits & 0x7f}] = PolicyEntry{
			Verdict: policy.Verdict(v.Entry.Verdict), Set: v.Entry.Set, Rule: v.Entry.Rule, Audit: v.Entry.Flags&entryAudit != 0,
		}
	}
	return out, it.Err()
}

// SetNameTable says which table of rules about names a subject has; 0: none.
func (g *Gate) SetNameTable(subject, table uint32) error {
	var v gateSubject
	err := g.objs.HgSubject1.Lookup(subject, &v)
	if err == nil && v.Names != table {
		v.Names = table
		err = g.objs.HgSubject1.Put(subject, v)
	}
	if err != nil {
		return fmt.Errorf("write subject %d to the datapath: %w", subject, err)
	}
	return nil
}

// NameTables says which table of rules about names each subject has.
func (g *Gate) NameTables() (map[uint32]uint32, error) {
	out := map[uint32]uint32{}
	var s uint32
	var v gateSubject
	it := g.objs.HgSubject1.Iterate()
	for it.Next(&s, &v) {
		if v.Names != 0 {
			out[s] = v.Names
		}
	}
	return out, it.Err()
}

// Pairs calls f for who opened each connection that is alive, and to whom. As Collect it
// reads in batches, with pauses.
func (c *Conntrack) Pairs(ctx context.Context, f func(opener, other netip.Addr)) error {
	keys, entries := make([]gateCtKey, collectBatch), make([]gateCtEntry, collectBatch)
	for _, m := range []*ebpf.Map{c.tcp, c.any} {
		var cursor ebpf.MapBatchCursor
		for last := false; !last; {
			start := time.Now()
			n, err := m.BatchLookup(&cursor, keys, entries, nil)
			if last = errors.Is(err, ebpf.ErrKeyNotExist); err != nil && !last {
				return fmt.Errorf("read connections: %w", err)
			}
			now := monotonic()
			for i := range n {
				if e := &entries[i]; int64(e.Expires) >= now {
					f(fromAddr(keys[i].Addr[e.Opener&1]), fromAddr(keys[i].Addr[1-e.Opener&1]))
				}
			}
			if last {
				break
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(min(collectRest*time.Since(start), maxRest)):
			}
		}
	}
	return nil
}
