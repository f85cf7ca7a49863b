package reconcile

import (
	"errors"
	"fmt"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// closeInherited closes the ports of sets that have taken another's number and are not in
// force at the backend: who listens there goes on by the rules of before.
func (e *Engine) closeInherited() error {
	var errs error
	for r := range e.routes {
		if e.inherited[redirect.SetNumber(r.Egress)] || e.inherited[redirect.SetNumber(r.Ingress)] {
			errs = errors.Join(errs, e.setRoute(r, 0))
		}
	}
	return errs
}

// inheritNumbers gives a set the number of the one whose place it takes, so that
// connections which are bound to their route stay: their next request is judged by the
// new rules. That is right only if it takes the place everywhere. Else connections of
// those who get other rules, or none, would be judged by rules that are not theirs,
// for as long as the change takes. It says which sets have lost their numbers.
func (e *Engine) inheritNumbers(sets policy.L7Table) []policy.SetID {
	heirs := map[redirect.SetNumber]policy.SetID{}
	for _, s := range e.subjects {
		var table policy.AuditedTable
		if s.resolved != nil {
			table = s.resolved.table
		}
		for key, old := range s.table {
			n := redirect.SetNumber(old.Set)
			if old.Verdict != policy.Redirect || !e.perRoute(n) {
				continue
			}
			entry, ok := table.Entries[key]
			heir, known := heirs[n]
			if !ok || entry.Verdict != policy.Redirect || known && heir != entry.Set {
				heirs[n] = policy.SetID{} // nobody
				continue
			}
			heirs[n] = entry.Set
		}
	}
	var lost []policy.SetID
	for n, heir := range heirs {
		before := e.numbers.setIDs[n]
		set := sets[heir]
		if set == nil || heir == before || sets[before] != nil || e.namesLeadTo(before) || set.Protocol != n.Protocol() {
			continue
		}
		// What is under a number is plain text, or TLS that ends in one way, for as long as
		// the number lives: else what came by TLS could go on plainly.
		if old := e.sets[before]; old != nil && !set.Ends.Equal(old.Ends) || old == nil && set.Ends != nil {
			continue
		}
		key := fmt.Sprintf("%x", heir)
		if _, numbered := e.numbers.Sets[key]; numbered {
			continue
		}
		delete(e.numbers.Sets, fmt.Sprintf("%x", before))
		e.numbers.Sets[key], e.numbers.setIDs[n] = n, heir
		e.inherited[n] = true
		lost = append(lost, before)
	}
	return lost
}

// namesLeadTo reports whether rules about names lead to a set, now or until the gate goes by
// the new ones.
func (e *Engine) namesLeadTo(id policy.SetID) bool {
	for _, t := range e.nameTables {
		if t.sets[id] != nil {
			return true
		}
	}
	return false
}
