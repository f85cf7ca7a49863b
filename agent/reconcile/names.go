package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Rules about DNS names are judged by the proxy, which sees the answers. It gets what
// they say of addresses outside as tables, by number; which table a subject has stands
// in the gate. A table's number means the same rules for ever, so the gate goes from the
// old to the new with one write, and where the proxy does not know a table yet, what it
// would allow is denied.

// maxMissing bounds how many unions of rules for requests are made for one table.
const maxMissing = 4096

// maxSingles bounds for how many selectors of a table the sets are made before any name
// is known. Others are made when they are missed.
const maxSingles = 256

// nameTable is a table of rules about names.
type nameTable struct {
	*policy.NameTable
	number  uint32
	sets    policy.L7Table // that it leads to, as far as is known
	current bool           // a subject has it
}

// nameTable numbers a table. Numbers are not used again until all have been: a subject
// may still have one that is gone.
func (n *Numbers) nameTable(id policy.SetID) uint32 {
	key := fmt.Sprintf("%x", id)
	if number, ok := n.Names[key]; ok {
		return number
	}
	if n.named == nil {
		n.named = make(map[uint32]bool, len(n.Names))
		for _, number := range n.Names {
			n.named[number] = true
		}
	}
	for {
		if n.NextNames++; n.NextNames != 0 && !n.named[n.NextNames] {
			n.Names[key], n.named[n.NextNames] = n.NextNames, true
			return n.NextNames
		}
	}
}

// resolveNames finds the tables of rules about names of those whom the change concerns,
// and adds the sets that all of them lead to.
func (e *Engine) resolveNames(changed []*subject, sets policy.L7Table, audit bool) {
	concerned := make(map[*subject]bool, len(changed))
	for _, s := range changed {
		concerned[s] = true
	}
	for _, t := range e.nameTables {
		t.current = false
	}
	for key, s := range e.subjects {
		s.wantNames = 0
		if s.users == 0 || s.resolved == nil {
			continue
		}
		if concerned[s] && !s.of.Node {
			s.resolved.names = e.nameTableOf(s, e.book.index.Rules(key), audit)
		}
		if t := s.resolved.names; t != nil {
			e.nameTables[t.ID] = t
			t.current, s.wantNames = true, t.number
			maps.Copy(sets, t.sets)
		}
	}
}

// nameTableOf finds a subject's table, or makes it; nil: it has none.
func (e *Engine) nameTableOf(s *subject, rules []policy.Rule, audit bool) *nameTable {
	found := policy.NewNameTable(s.of, rules, e.book.prefixes, audit)
	if found == nil {
		return nil
	}
	t := e.nameTables[found.ID]
	if t == nil {
		t = &nameTable{NameTable: found, number: e.numbers.nameTable(found.ID), sets: policy.L7Table{}}
		t.foresee()
		for _, u := range e.numbers.Unions[fmt.Sprintf("%x", found.ID)] {
			t.add(u)
		}
		e.nameTables[found.ID] = t
	}
	return t
}

// Union is what a name has brought together: a prefix, and selectors that pick its
// addresses. It is remembered over restarts, because open connections carry the sets that
// it leads to.
type Union struct {
	Prefix netip.Prefix  `json:"prefix"`
	Picked []policy.FQDN `json:"picked"`
}

// add makes the sets that a union leads to. False: they are there.
func (t *nameTable) add(u Union) bool {
	before := len(t.sets)
	_, sets := t.Resolve(u.Prefix, u.Picked)
	maps.Copy(t.sets, sets)
	return len(t.sets) > before
}

// addNamesNeeded adds what the tables of rules about names would need, as far as is known:
// of those whom a change concerns they are made here, and stay if the change is made.
func (e *Engine) addNamesNeeded(pairs map[pair[neededSet]]bool, changed []*subject) {
	concerned := make(map[*subject]bool, len(changed))
	for _, s := range changed {
		concerned[s] = true
	}
	for key, s := range e.subjects {
		if s.users == 0 || s.resolved == nil || s.of.Node {
			continue
		}
		t := s.resolved.names
		if concerned[s] {
			t = e.nameTableOf(s, e.book.index.Rules(key), s.resolved.audit)
		}
		if t == nil {
			continue
		}
		for _, set := range t.sets {
			if e.cfg.PerRoute(set.Protocol) {
				pairs[pair[neededSet]{egress: needed(set)}] = true
			}
		}
	}
}

// numberNameSets gives the sets their numbers, which connections will carry, before the
// state is saved.
func (e *Engine) numberNameSets() error {
	for _, t := range e.nameTables {
		for _, set := range t.sets {
			if _, err := e.numbers.set(set); t.current && err != nil {
				return err
			}
		}
	}
	return nil
}

// foresee makes the sets that an address leads to which has one name that rules for
// requests select.
func (t *nameTable) foresee() {
	all := t.Selectors()
	var singles [][]policy.FQDN
	for i := range t.Rules {
		if !slices.ContainsFunc(t.Rules[i].Ports, func(p policy.PortRule) bool { return p.L7 != nil }) {
			continue
		}
		for _, p := range t.Rules[i].Peers {
			if f, ok := p.(policy.FQDN); ok && len(singles) < maxSingles {
				singles = append(singles, pickedWith(f, all))
			}
		}
	}
	for _, picked := range singles {
		for _, world := range []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)} {
			_, sets := t.Resolve(world, picked)
			maps.Copy(t.sets, sets)
		}
	}
}

// pickedWith are the selectors that pick every name that f picks, as far as is known.
func pickedWith(f policy.FQDN, all []policy.FQDN) []policy.FQDN {
	if f.Name == "" {
		return []policy.FQDN{f}
	}
	var out []policy.FQDN
	for _, other := range all {
		if other.MatchesName(f.Name) {
			out = append(out, other)
		}
	}
	return out
}

// AddMissing makes the sets that the proxy misses, and hands them to it.
func (e *Engine) AddMissing(ctx context.Context, missing []redirect.MissingSet) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	added := false
	for _, m := range missing {
		for _, t := range e.nameTables {
			key, u := fmt.Sprintf("%x", t.ID), Union{m.Prefix, m.Picked}
			if t.number == m.Table && len(e.numbers.Unions[key]) < maxMissing && t.add(u) {
				e.numbers.Unions[key] = append(e.numbers.Unions[key], u)
				added = true
			}
		}
	}
	if !added {
		return nil
	}
	return e.sync(ctx)
}

// writeNameTables tells the gate which tables subjects have now. A subject that cannot be
// told is closed: it would go by rules that are no more. With stale names, one whose endpoints
// would get another table than they have gets none for now: their addresses are judged by
// their prefixes.
func (e *Engine) writeNameTables(users map[string]*subject, stale bool) error {
	var errs error
	for _, s := range e.subjects {
		if s.users == 0 || s.failed || s.nameTable == s.wantNames {
			continue
		}
		want := s.wantNames
		if stale && !e.haveNameTable(s, users) {
			want = 0
		}
		if err := e.cfg.Gate.SetNameTable(s.number, want); err != nil {
			s.failed = true
			errs = errors.Join(errs, err, e.cfg.Gate.ClosePolicy(s.number))
			continue
		}
		s.nameTable = want
	}
	return errs
}

// tablesInGate are those of rules about names, by the numbers of subjects.
func (e *Engine) tablesInGate() map[uint32]uint32 {
	tables := make(map[uint32]uint32, len(e.subjects))
	for _, s := range e.subjects {
		tables[s.number] = s.nameTable
	}
	return tables
}

// haveNameTable reports whether the gate judges all endpoints of a subject by the table that it
// is to have already: they have it from another subject, of the agent before.
func (e *Engine) haveNameTable(s *subject, users map[string]*subject) bool {
	tables := e.tablesInGate()
	for key, ep := range e.endpoints {
		if users[key] != s {
			continue
		}
		for _, ip := range ep.IPs {
			if old, ok := e.written[ip]; !ok || old.ID != ep.ID || tables[old.Subject] != s.wantNames {
				return false
			}
		}
	}
	return true
}

// served reports whether connections that get a set by a name have a port to go to.
func (e *Engine) served(n redirect.SetNumber) bool {
	return !e.perRoute(n) || e.routes[bpf.Route{Egress: uint32(n)}] != 0
}

// allSets is for who is told of every set.
func allSets(redirect.SetNumber) bool { return true }

// namesFor is what the proxy needs to judge names. Sets are those of the same snapshot;
// answers that lead to others wait.
func (e *Engine) namesFor(sets map[policy.SetID]redirect.NumberedSet, tell func(redirect.SetNumber) bool) *redirect.Names {
	n := &redirect.Names{
		Tables: map[uint32]*policy.NameTable{}, Rules: map[policy.Ref]uint32{}, Sets: map[policy.SetID]redirect.SetNumber{},
		Limits: e.cfg.NameLimits, Prefixes: e.outsidePrefixes(),
	}
	for _, t := range e.nameTables {
		if !t.current {
			continue
		}
		n.Tables[t.number] = t.NameTable
		for _, ref := range t.Refs() {
			n.Rules[ref] = e.numbers.rule(ref)
		}
		for id := range t.sets {
			if s, ok := sets[id]; ok && tell(s.Number) {
				n.Sets[id] = s.Number
			}
		}
	}
	for _, key := range sortedKeys(e.endpoints) {
		ep := e.endpoints[key]
		n.Endpoints = append(n.Endpoints, redirect.NamedEndpoint{ID: ep.ID, Name: key, Addrs: ep.IPs, Table: e.subjectOf(ep).wantNames})
	}
	return n
}

// outsidePrefixes are those that rules tell apart, now or until the gate has the new
// ones: the finer never judges otherwise than what it is part of.
func (e *Engine) outsidePrefixes() []netip.Prefix {
	out := slices.Clone(e.book.prefixes)
	for p, id := range e.prefixes {
		if id.Local() && p.Bits() > 0 {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// forgetNameTables drops those that no subject has.
func (e *Engine) forgetNameTables() {
	current := make(map[string]bool, len(e.nameTables))
	for id, t := range e.nameTables {
		if t.current {
			current[fmt.Sprintf("%x", id)] = true
		} else {
			delete(e.nameTables, id)
		}
	}
	// Those of an agent before, too.
	e.numbers.named = nil
	maps.DeleteFunc(e.numbers.Names, func(key string, _ uint32) bool { return !current[key] })
	maps.DeleteFunc(e.numbers.Unions, func(key string, _ []Union) bool { return !current[key] })
}

// readNameTables learns which subjects in the gate have which tables.
func (e *Engine) readNameTables() (map[uint32]uint32, error) {
	tables, err := e.cfg.Gate.NameTables()
	for _, n := range tables {
		e.numbers.NextNames = max(e.numbers.NextNames, n)
	}
	return tables, err
}
