package fqdn

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
)

// What is to leave the kernel and does not is stuck. It becomes known as nobody, whom no
// rule is about, if the kernel takes that, and is tried again, less and less often. The
// number of an endpoint that is gone is not given to another before: it would inherit what
// that one knew.

const (
	stuckPause     = time.Second
	stuckPauseMost = time.Minute
	// nobody is beyond the identities of every process.
	nobody = firstIdentity + part*parts
)

// stuck are addresses, by the endpoint that knew them.
type stuck struct {
	owners map[policy.NameKey]string
	again  time.Time
	pause  time.Duration
}

// remove takes addresses from the kernel that endpoints of this name knew, but for those
// that are known again by whoever has the number.
func (s *Store) remove(owner string, keys []policy.NameKey) error {
	if s.gone() { // the next process may know them
		return nil
	}
	keys = slices.DeleteFunc(keys, func(k policy.NameKey) bool {
		h := s.hosts[k.Endpoint]
		again := h != nil && h.holds[k.Addr.As16()].as != 0
		if again {
			delete(s.stuck.owners, k)
		}
		return again
	})
	err := s.config.Maps.Delete(keys)
	if err == nil {
		for _, k := range keys {
			delete(s.stuck.owners, k)
		}
		return nil
	}
	for _, k := range keys { // to learn which
		one := []policy.NameKey{k}
		if s.config.Maps.Delete(one) == nil {
			delete(s.stuck.owners, k)
			continue
		}
		s.stuck.owners[k] = owner
		_, _ = s.config.Maps.Put(one, []policy.Identity{nobody})
	}
	if len(s.stuck.owners) == 0 {
		return nil
	}
	if s.stuck.again.Before(s.now()) {
		s.stuck.pause = min(max(2*s.stuck.pause, stuckPause), stuckPauseMost)
		s.stuck.again = s.now().Add(s.stuck.pause)
	}
	return err
}

// removeStuck tries again, if it is time.
func (s *Store) removeStuck() {
	if len(s.stuck.owners) == 0 || s.gone() || s.now().Before(s.stuck.again) {
		return
	}
	byOwner := map[string][]policy.NameKey{}
	for k, owner := range s.stuck.owners {
		byOwner[owner] = append(byOwner[owner], k)
	}
	var errs error
	for owner, keys := range byOwner {
		errs = errors.Join(errs, s.remove(owner, keys))
	}
	if errs != nil {
		s.log.Error("addresses stay in the datapath that nobody is to know", "addresses", len(s.stuck.owners), "error", errs)
		return
	}
	s.stuck.pause = 0
	s.log.Info("addresses have left the datapath that were stuck there")
}

// inherited says which endpoints have the number of another, of which something is stuck.
func (s *Store) inherited() error {
	var errs error
	for k, owner := range s.stuck.owners {
		if h := s.hosts[k.Endpoint]; h != nil && h.name != owner {
			errs = errors.Join(errs, fmt.Errorf("%w: %s, which %s knew, is now %s's", ErrStale, k.Addr, owner, h.name))
		}
	}
	return errs
}

// stuckEndpoints are the numbers of which something is stuck.
func (s *Store) stuckEndpoints() []uint16 {
	var ids []uint16
	for k := range s.stuck.owners {
		ids = append(ids, k.Endpoint)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// forgetStrangers removes what the kernel has of endpoints whose number is another's by
// now: a process that is gone did not live to do it.
func (s *Store) forgetStrangers() error {
	owners := map[uint16]string{}
	for _, old := range s.restored {
		if h := s.hosts[old.id]; h != nil && h.name != old.name {
			owners[old.id] = old.name
		}
	}
	if len(owners) == 0 {
		return nil
	}
	gone := map[string][]policy.NameKey{}
	err := s.config.Maps.All(func(k policy.NameKey, _ policy.Identity) bool {
		if owner, ok := owners[k.Endpoint]; ok {
			gone[owner] = append(gone[owner], k)
		}
		return true
	})
	for owner, keys := range gone {
		err = errors.Join(err, s.remove(owner, keys))
	}
	return err
}
