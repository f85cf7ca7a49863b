package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/headgate/headgate/policy"
)

// PolicyEntry is a policy.Entry with numbers in place of names.
type PolicyEntry = policy.NumberedEntry

// PolicyTable is the policy of one subject.
type PolicyTable map[policy.Key]PolicyEntry

// ErrFull says that a map has no room.
var ErrFull = errors.New("the map is full")

const subjectClosed = 1

// SyncPolicy brings a subject's table from old, what is in the kernel, to want. At
// every moment each connection gets either exactly the old or exactly the new
// verdict: entries are written from the most specific to the least, and removed
// from the least specific to the most, so that a look-up never falls through to an
// entry that was not meant for it. If the kernel has no room, the subject is
// closed: everything is denied until a sync succeeds.
func (g *Gate) SyncPolicy(subject uint32, old, want PolicyTable) error {
	// One that is closed stays so until its table is whole.
	var before gateSubject
	if err := ignoreMissing(g.objs.HgSubject1.Lookup(subject, &before)); err != nil {
		return fmt.Errorf("read subject %d of the datapath: %w", subject, err)
	}
	if err := g.putSubject(subject, lengths(old, want), before.Flags&subjectClosed); err != nil {
		return err
	}
	if err := g.writePolicy(subject, old, want, before.Flags&subjectClosed != 0); err != nil {
		return errors.Join(err, g.putSubject(subject, [2]uint32{}, subjectClosed))
	}
	return g.putSubject(subject, lengths(want), 0)
}

// writePolicy makes the changes in the order that SyncPolicy needs. Of a subject
// that is closed no entry is in force: what goes then makes room for what comes.
func (g *Gate) writePolicy(subject uint32, old, want PolicyTable, closed bool) error {
	var put, drop []policy.Key
	for k, e := range want {
		if o, ok := old[k]; !ok || o != e {
			put = append(put, k)
		}
	}
	for k := range old {
		if _, ok := want[k]; !ok {
			drop = append(drop, k)
		}
	}
	slices.SortFunc(put, bySpecificity)
	slices.SortFunc(drop, func(a, b policy.Key) int { return bySpecificity(b, a) })
	if closed {
		if err := g.removeEntries(subject, drop); err != nil {
			return err
		}
		return g.putEntries(subject, put, want)
	}
	if err := g.putEntries(subject, put, want); err != nil {
		return err
	}
	return g.removeEntries(subject, drop)
}

func (g *Gate) putEntries(subject uint32, put []policy.Key, want PolicyTable) error {
	room := newRoom(g.objs.HgPolicy1, func() (uint64, error) {
		u, err := g.used()
		return u.Policy, err
	})
	for _, k := range put {
		e := want[k]
		v := gatePolicyEntry{Verdict: uint8(e.Verdict), Set: e.Set, Rule: e.Rule, Match: match(k, e)}
		if e.Audit {
			v.Flags = entryAudit
		}
		err := room.put(policyKey(subject, k), v, e.Verdict == policy.Deny)
		if errors.Is(err, ErrFull) {
			return fmt.Errorf("write policy of subject %d to the datapath: %w: its %d entries are taken", subject, ErrFull, g.objs.HgPolicy1.MaxEntries())
		}
		if err != nil {
			return fmt.Errorf("write policy of subject %d to the datapath: %w", subject, err)
		}
	}
	return nil
}

const entryAudit = 1

func (g *Gate) removeEntries(subject uint32, drop []policy.Key) error {
	for _, k := range drop {
		if err := ignoreMissing(g.objs.HgPolicy1.Delete(policyKey(subject, k))); err != nil {
			return fmt.Errorf("remove policy of subject %d from the datapath: %w", subject, err)
		}
	}
	return nil
}

// ClosePolicy denies everything to a subject until the next sync.
func (g *Gate) ClosePolicy(subject uint32) error {
	return g.putSubject(subject, [2]uint32{}, subjectClosed)
}

// DeletePolicy forgets a subject. First it is closed, so that no half of its table
// is ever in force.
func (g *Gate) DeletePolicy(subject uint32, old PolicyTable) error {
	if err := ignoreMissing(g.objs.HgSubject1.Delete(subject)); err != nil {
		return err
	}
	return g.writePolicy(subject, old, nil, true)
}

// Policies lists every table in the kernel, by subject.
func (g *Gate) Policies() (map[uint32]PolicyTable, error) {
	out := map[uint32]PolicyTable{}
	var s uint32
	var sv gateSubject
	subjects := g.objs.HgSubject1.Iterate()
	for subjects.Next(&s, &sv) {
		out[s] = PolicyTable{}
	}
	if err := subjects.Err(); err != nil {
		return nil, err
	}
	var k gatePolicyKey
	var v gatePolicyEntry
	it := g.objs.HgPolicy1.Iterate()
	for it.Next(&k, &v) {
		if out[k.Subject] == nil {
			out[k.Subject] = PolicyTable{}
		}
		out[k.Subject][policy.Key{
			Peer: policy.Identity(k.Peer), Direction: policy.Direction(k.DirBits >> 7), Proto: policy.Proto(k.Proto),
			Port: k.Port, PrefixBits: k.DirBits & 0x7f,
		}] = PolicyEntry{Verdict: policy.Verdict(v.Verdict), Set: v.Set, Rule: v.Rule, Audit: v.Flags&entryAudit != 0}
	}
	return out, it.Err()
}

// putSubject leaves a subject the table of rules about names that it has.
func (g *Gate) putSubject(subject uint32, lengths [2]uint32, flags uint32) error {
	var v gateSubject
	if err := ignoreMissing(g.objs.HgSubject1.Lookup(subject, &v)); err != nil {
		return fmt.Errorf("read subject %d of the datapath: %w", subject, err)
	}
	v.Lengths, v.Flags = lengths, flags
	if err := g.objs.HgSubject1.Put(subject, v); err != nil {
		return fmt.Errorf("write subject %d to the datapath: %w", subject, err)
	}
	return nil
}

// lengths are the port prefix lengths in use, by direction.
func lengths(tables ...PolicyTable) [2]uint32 {
	var out [2]uint32
	for _, t := range tables {
		for k := range t {
			out[k.Direction&1] |= 1 << k.PrefixBits
		}
	}
	return out
}

// bySpecificity orders keys as they are looked up: what is found first stands first.
func bySpecificity(a, b policy.Key) int {
	return cmp.Or(
		cmp.Compare(isZero(a.Peer), isZero(b.Peer)),
		cmp.Compare(isZero(a.Proto), isZero(b.Proto)),
		-cmp.Compare(a.PrefixBits, b.PrefixBits),
		cmp.Compare(a.Direction, b.Direction),
		cmp.Compare(a.Peer, b.Peer),
		cmp.Compare(a.Proto, b.Proto),
		cmp.Compare(a.Port, b.Port),
	)
}

func isZero[T comparable](v T) int {
	var zero T
	if v == zero {
		return 1
	}
	return 0
}

// match is what a key names, in the numbers of Hubble's policy_match_type. An
// entry without a rule is the absence of policy.
func match(k policy.Key, e PolicyEntry) uint8 {
	const (
		none, l3, l3l4, l4, all, l3proto, proto = 0, 1, 2, 3, 4, 5, 6
	)
	switch {
	case e.Rule == 0:
		return none
	case k.Peer != 0 && k.Proto == 0:
		return l3
	case k.Peer != 0 && k.PrefixBits == 0:
		return l3proto
	case k.Peer != 0:
		return l3l4
	case k.Proto == 0:
		return all
	case k.PrefixBits == 0:
		return proto
	}
	return l4
}

func policyKey(subject uint32, k policy.Key) gatePolicyKey {
	return gatePolicyKey{
		Subject: subject, Peer: uint32(k.Peer), Port: k.Port, Proto: uint8(k.Proto),
		DirBits: uint8(k.Direction)<<7 | k.PrefixBits,
	}
}
