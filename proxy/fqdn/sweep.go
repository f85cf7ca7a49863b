package fqdn

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"time"

	"github.com/headgate/headgate/policy"
)

// adopt reads what earlier processes have written: its identities are not ours. Which of
// the parts they have is theirs.
func (s *Store) adopt() error {
	var theirs [parts]int
	if err := s.config.Maps.All(func(_ policy.NameKey, id policy.Identity) bool {
		if p, ok := partOf(id); ok {
			theirs[p]++
		}
		return true
	}); err != nil {
		return err
	}
	rules, err := s.config.Maps.Rules()
	if err != nil {
		return err
	}
	for k := range rules {
		if p, ok := partOf(k.Identity); ok {
			theirs[p]++
		}
	}
	ours := 0
	for i, p := range rand.Perm(parts) { // any: the process before may have written nothing yet
		if i == 0 || theirs[p] < theirs[ours] {
			ours = p
		}
	}
	s.first = firstIdentity + policy.Identity(ours)*part
	if theirs[ours] == 0 {
		return nil
	}
	return s.empty(ours, rules)
}

// partOf is the part of the identities of names that one is of.
func partOf(id policy.Identity) (int, bool) {
	return int((id - firstIdentity) / part), id >= firstIdentity && id < firstIdentity+part*parts
}

// empty removes from the kernel what is of a part: no other is free.
func (s *Store) empty(which int, rules map[policy.NameRulesKey]policy.NameRules) error {
	var gone []policy.NameKey
	if err := s.config.Maps.All(func(k policy.NameKey, id policy.Identity) bool {
		if p, ok := partOf(id); ok && p == which {
			gone = append(gone, k)
		}
		return true
	}); err != nil {
		return err
	}
	if err := s.config.Maps.Delete(gone); err != nil {
		return fmt.Errorf("remove names of an earlier proxy: %w", err)
	}
	for k, r := range rules {
		if p, ok := partOf(k.Identity); !ok || p != which {
			continue
		}
		if err := s.config.Maps.SyncRules(k, r, nil); err != nil {
			return fmt.Errorf("remove rules of an earlier proxy: %w", err)
		}
	}
	return nil
}

// catchUp takes over what the process before has learnt until it stopped, after this one
// had read what it knew.
func (s *Store) catchUp() {
	s.restore()
	for _, h := range s.hosts {
		s.readmit(h)
	}
	s.restored = nil
	for k, err := range s.writeAll(s.recompute(true)) {
		s.log.Error("a name that was taken over is not in force", "endpoint", k.Endpoint, "address", k.Addr, "error", err)
	}
}

// sweep removes from the kernel what is none of ours.
func (s *Store) sweep() {
	if s.gone() {
		return
	}
	s.sweepAt = time.Time{}
	s.turn = s.startTurn()
	defer s.endTurn(&s.turn)
	s.catchUp()
	if s.gone() { // since: it would take the next one's for an earlier one's
		return
	}
	var gone, ours []policy.NameKey
	var ids []policy.Identity
	err := s.config.Maps.All(func(k policy.NameKey, id policy.Identity) bool {
		want := policy.Identity(0)
		if h := s.hosts[k.Endpoint]; h != nil {
			want = h.holds[k.Addr.As16()].as
		}
		switch {
		case want == id:
		case want == 0:
			gone = append(gone, k)
		default: // the one before was the last to write it
			ours, ids = append(ours, k), append(ids, want)
		}
		return true
	})
	if err == nil {
		_, put := s.config.Maps.Put(ours, ids)
		err = errors.Join(put, s.config.Maps.Delete(gone))
	}
	rules, e := s.config.Maps.Rules()
	for k, r := range rules {
		if e == nil {
			e = s.correct(k, r)
		}
	}
	for _, failed := range []error{err, e} {
		if failed != nil {
			s.log.Error("names of an earlier proxy stay in the datapath", "error", failed)
			s.sweepAt = s.now().Add(sweepAfter)
		}
	}
}

// correct brings what the kernel has of a table's rules to what it is to have.
func (s *Store) correct(k policy.NameRulesKey, r policy.NameRules) error {
	ours := s.rules[k]
	if ours == nil {
		return s.config.Maps.SyncRules(k, r, nil)
	}
	if maps.Equal(r, ours.want) {
		return nil
	}
	if err := s.config.Maps.SyncRules(k, r, ours.want); err != nil {
		return err
	}
	ours.written, ours.fails = ours.want, false
	return nil
}
