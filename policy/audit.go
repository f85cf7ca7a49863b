package policy

import (
	"cmp"
	"maps"
	"slices"
)

// AuditedTable is the table of a subject where policies audit: what is in force,
// and where one of them would deny what is let through.
type AuditedTable struct {
	Entries map[Key]AuditedEntry
	Rules   []Ref // as in Table
}

// AuditedEntry is an Entry and, with Audit, the rule by which a policy that audits
// would deny it; zero: such a policy allows it by no rule.
type AuditedEntry struct {
	Entry
	Audit   bool
	AuditBy RuleID
}

// ResolveAudited is Resolve, and says of each connection that is let through whether
// a policy that audits would deny it. With audit of everything no policy denies: all
// of them only audit.
func ResolveAudited(subject Subject, rules []Rule, ids *Identities, everything bool) (AuditedTable, L7Table) {
	inForce, lenient := rules, subject
	if everything {
		inForce = slices.Clone(rules)
		for i := range inForce {
			if inForce[i].Mode == ModeEnforce {
				inForce[i].Mode = ModeAudit
			}
		}
		if lenient.Enforcement == EnforcementAlways {
			lenient.Enforcement = EnforcementDefault
		}
	}
	table, sets := Resolve(lenient, inForce, ids)
	if !slices.ContainsFunc(inForce, func(r Rule) bool { return r.Mode == ModeAudit }) && lenient.Enforcement == subject.Enforcement {
		return plain(table), sets
	}
	strict, _ := ResolveAudit(subject, inForce, ids)
	return audited(&table, &strict), sets
}

func plain(t Table) AuditedTable {
	out := AuditedTable{Entries: make(map[Key]AuditedEntry, len(t.Entries)), Rules: t.Rules}
	for k, e := range t.Entries {
		out.Entries[k] = AuditedEntry{Entry: e}
	}
	return out
}

// audited lays two tables over each other. A look-up ends at the first key that
// fits, so the keys of both are needed; and as the entries of a peer hide those of
// every peer, these are needed for each peer too. Keys that say what would be found
// without them are left out.
func audited(inForce, strict *Table) AuditedTable {
	out := AuditedTable{Entries: map[Key]AuditedEntry{}, Rules: slices.Clone(inForce.Rules)}
	numbers := map[Ref]RuleID{}
	for i, ref := range out.Rules {
		numbers[ref] = RuleID(i + 1)
	}
	number := func(id RuleID) RuleID {
		if id == 0 {
			return 0
		}
		ref := strict.Rules[id-1]
		n, ok := numbers[ref]
		if !ok {
			out.Rules = append(out.Rules, ref)
			n = RuleID(len(out.Rules))
			numbers[ref] = n
		}
		return n
	}
	for _, k := range auditedKeys(inForce, strict) {
		is, _ := over(inForce.Entries, k)
		would, _ := over(strict.Entries, k)
		e := AuditedEntry{Entry: is}
		if is.Verdict != Deny && would.Verdict == Deny {
			e.Audit, e.AuditBy = true, number(would.Rule)
		}
		if old, found := over(out.Entries, k); found && old == e || !found && e == (AuditedEntry{}) {
			continue
		}
		out.Entries[k] = e
	}
	return out
}

// auditedKeys are in order from what is looked up last to what is looked up first.
func auditedKeys(tables ...*Table) []Key {
	keys := map[Key]bool{}
	peers := map[Key]bool{} // peer and direction
	for _, t := range tables {
		for k := range t.Entries {
			keys[k] = true
			peers[Key{Peer: k.Peer, Direction: k.Direction}] = true
		}
	}
	for _, t := range tables {
		for k := range t.Entries {
			for p := range peers {
				if k.Peer == 0 && k.Direction == p.Direction {
					keys[Key{p.Peer, k.Direction, k.Proto, k.Port, k.PrefixBits}] = true
				}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(keys), func(a, b Key) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.PrefixBits, b.PrefixBits),
			cmp.Compare(a.Direction, b.Direction), cmp.Compare(a.Port, b.Port))
	})
}

// over finds what a table says of all that a key stands for: the first entry, in the
// order of look-ups, that covers the whole of it.
func over[E any](entries map[Key]E, k Key) (E, bool) {
	for _, peer := range [2]Identity{k.Peer, 0} {
		for bits := int(k.PrefixBits); bits >= 0; bits-- {
			port := uint16(uint32(k.Port) >> (16 - bits) << (16 - bits))
			if e, ok := entries[Key{peer, k.Direction, k.Proto, port, uint8(bits)}]; ok {
				return e, true
			}
		}
		if e, ok := entries[Key{Peer: peer, Direction: k.Direction}]; ok {
			return e, true
		}
		if peer == 0 {
			break
		}
	}
	var none E
	return none, false
}
