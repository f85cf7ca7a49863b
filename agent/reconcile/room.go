package reconcile

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/headgate/headgate/policy"
)

// What is for a prefix that found no room in the gate would be judged as for what
// lies around it, and a deny of that prefix would be none. So whoever's table says
// something of its own about the prefix is closed until there is room.

// denied are the prefixes that rules which deny tell apart: they may have the room
// that is kept.
func denied(rules []policy.Rule) map[netip.Prefix]bool {
	out := map[netip.Prefix]bool{}
	for i := range rules {
		if !rules[i].Deny {
			continue
		}
		for _, p := range policy.Prefixes(rules[i : i+1]) {
			out[p] = true
		}
	}
	return out
}

// placeAgain tries to find room for what had none. Tables know these identities
// since; whoever needs them is closed until then.
func (e *Engine) placeAgain() {
	for p, id := range e.unplaced {
		_ = e.place(p, id) // what finds no room now stays among them
	}
}

// place writes a prefix, and remembers if there is no room for it.
func (e *Engine) place(p netip.Prefix, id policy.Identity) error {
	set := e.cfg.Gate.SetIdentity
	if id.Local() && !e.book.denied[p] {
		set = e.cfg.Gate.SetSpareIdentity
	}
	if err := set(p, id); err != nil {
		e.unplaced[p] = id
		return err
	}
	e.prefixes[p] = id
	delete(e.unplaced, p)
	return nil
}

// misses reports whether a subject's table names an identity whose addresses found
// no room.
func (e *Engine) misses(s *subject) bool {
	if len(e.unplaced) == 0 {
		return false
	}
	ids := map[policy.Identity]bool{}
	for _, id := range e.unplaced {
		ids[id] = true
	}
	for k := range s.want {
		if k.Peer != 0 && ids[k.Peer] {
			return true
		}
	}
	return false
}

// closeMissing closes whose tables speak of what is not there.
func (e *Engine) closeMissing() error {
	var errs error
	for _, s := range e.subjects {
		if s.users == 0 || s.failed || !e.misses(s) {
			continue
		}
		s.failed = true
		errs = errors.Join(errs, e.cfg.Gate.ClosePolicy(s.number),
			fmt.Errorf("close subject %d: the datapath has no room for a prefix that its policy names", s.number))
	}
	return errs
}

// forgetUnplaced drops those that nobody wants any more.
func (e *Engine) forgetUnplaced(want map[netip.Prefix]policy.Identity) {
	for p, id := range e.unplaced {
		if want[p] != id {
			delete(e.unplaced, p)
		}
	}
}
