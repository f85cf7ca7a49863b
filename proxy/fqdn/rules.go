package fqdn

import (
	"fmt"
	"maps"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// ensure has the kernel know what the tables of a host say of an identity.
func (s *Store) ensure(h *host, id policy.Identity) error {
	for _, table := range h.tables {
		if err := s.rule(policy.NameRulesKey{Table: table, Identity: id}, false); err != nil {
			return err
		}
	}
	return nil
}

// rule has the kernel know what a table says of an identity; again: also if it was made
// from the same table, for numbers have changed.
func (s *Store) rule(k policy.NameRulesKey, again bool) error {
	t, i := s.names.Tables[k.Table], s.byID[k.Identity]
	r := s.rules[k]
	if t == nil || i.pick == nil {
		return nil // a table that was: what the kernel has of it stands until it is dropped
	}
	delivered := s.delivered.Tables[k.Table] != nil
	if r != nil && !again && !r.missing && !r.fails && r.table == t.ID && !(r.unasked && delivered) {
		return nil
	}
	picked := speaksOf(t, i.pick.selectors)
	if len(picked) == 0 {
		return s.dropRule(k) // by names it says nothing: the prefix counts
	}
	if r == nil {
		r = &ruling{}
		s.rules[k] = r
	}
	missed := r.missing
	table, _ := t.Resolve(i.prefix, picked)
	r.want, r.missing = number(table, s.names.Rules, s.names.Sets)
	r.table = t.ID
	r.unasked = r.missing && !delivered
	if r.unasked { // the gate will not ask it any more, sooner or later: nobody makes sets for it
		r.missing = false
	}
	if r.missing && (!missed || again) {
		s.wanted = append(s.wanted, redirect.MissingSet{Table: k.Table, Prefix: i.prefix, Picked: picked})
		s.tellMissing()
	}
	if !r.fails && r.written != nil && maps.Equal(r.written, r.want) {
		return nil
	}
	if err := s.config.Maps.SyncRules(k, r.written, r.want); err != nil {
		r.fails = true
		for key := range r.want { // whatever of it is there is written again, or removed
			if r.written == nil {
				r.written = policy.NameRules{}
			}
			r.written[key] = policy.NumberedEntry{Verdict: 0xff}
		}
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	r.written, r.fails = r.want, false
	return nil
}

// speaksOf are the selectors among those that a table has.
func speaksOf(t *policy.NameTable, selectors []policy.FQDN) []policy.FQDN {
	var out []policy.FQDN
	for _, f := range selectors {
		if t.Speaks(f) {
			out = append(out, f)
		}
	}
	return out
}

func (s *Store) dropRule(k policy.NameRulesKey) error {
	r := s.rules[k]
	if r == nil {
		return nil
	}
	if err := s.config.Maps.SyncRules(k, r.written, nil); err != nil {
		return err
	}
	delete(s.rules, k)
	return nil
}

// dropUnused removes the rules of tables that nobody has about identities that nobody
// knows, and these identities.
func (s *Store) dropUnused() {
	s.droppedAt = s.now()
	s.dropOldTables()
	used := map[policy.NameRulesKey]bool{}
	for _, h := range s.hosts {
		for _, t := range h.tables {
			for id := range h.numbers {
				used[policy.NameRulesKey{Table: t, Identity: id}] = true
			}
		}
	}
	for k := range s.rules {
		if used[k] {
			continue
		}
		if err := s.dropRule(k); err != nil {
			s.log.Error("rules about names stay in the datapath that nobody has", "error", err)
		}
	}
	left := map[policy.Identity]bool{}
	for k := range s.rules {
		left[k.Identity] = true
	}
	for id, i := range s.byID {
		if i.users <= 0 && !left[id] {
			delete(s.byID, id)
			delete(s.byKnown, i.known)
		}
	}
}

func (s *Store) tellMissing() {
	select {
	case s.missing <- struct{}{}:
	default:
	}
}

func (s *Store) takeMissing() []redirect.MissingSet {
	out := s.wanted
	s.wanted = nil
	return out
}
