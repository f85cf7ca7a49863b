package fqdn

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// update puts a snapshot in force. What the gate goes by until it is told of the new
// tables stays as it is; what the new ones need is there before. After ErrStale it must not
// be told of them: they would allow what addresses were known as before.
//
// Answers are put in force while it is under way, by what is there already of the new: each is
// complete in itself, for the tables of before and for the new ones.
func (s *Store) update(n *redirect.Names) error {
	if s.over || s.stopped {
		return ErrEnded
	}
	start := s.now()
	s.updating = true
	defer s.updated(start)
	before := s.names
	s.delivered, n = n, s.withTablesOfBefore(n)
	s.names, s.limits = n, withDefaults(n.Limits)
	if before == nil { // and until then the file is that of the process before
		s.sweepAt = s.now().Add(sweepAfter)
	}
	var gone map[string][]policy.NameKey
	var strangers error
	s.uninterrupted(func() { gone, strangers = s.updateHosts(n) })
	all := before == nil || s.partly || !slices.Equal(before.Prefixes, n.Prefixes)
	s.partly = false
	writes := s.recompute(all)
	numbered := before == nil || !maps.Equal(before.Rules, n.Rules) || !maps.Equal(before.Sets, n.Sets)
	err := s.renewRules(numbered)
	for k, e := range s.writeAll(writes) {
		err = errors.Join(err, fmt.Errorf("%s for endpoint %d: %w", k.Addr, k.Endpoint, e))
	}
	if s.over { // since: it is another's to write
		return ErrEnded
	}
	s.uninterrupted(func() {
		for owner, keys := range gone {
			err = errors.Join(err, s.remove(owner, keys))
		}
	})
	err = errors.Join(err, strangers)
	s.settleWaiting()
	err = errors.Join(err, s.inherited())
	if err != nil {
		return fmt.Errorf("put names in force: %w", err)
	}
	return nil
}

// updateHosts takes over which endpoints there are. It says what of those that are gone
// is in the kernel, by their names.
func (s *Store) updateHosts(n *redirect.Names) (gone map[string][]policy.NameKey, strangers error) {
	gone = map[string][]policy.NameKey{}
	s.byAddr = map[netip.Addr]*host{}
	there := map[uint16]bool{}
	for _, e := range n.Endpoints {
		there[e.ID] = true
		h := s.hosts[e.ID]
		if h != nil && h.name != e.Name {
			gone[h.name] = append(gone[h.name], s.forgetHost(h)...)
			h = nil
		}
		if h == nil {
			h = &host{id: e.ID, name: e.Name, known: map[string]*entry{}, holds: map[[16]byte]held{}, numbers: map[policy.Identity]int{}}
			s.hosts[e.ID] = h
			s.readmit(h)
		}
		h.addrs = e.Addrs
		s.setTable(h, e.Table)
		for _, a := range e.Addrs {
			s.byAddr[a.Unmap()] = h
		}
	}
	for id, h := range s.hosts {
		if !there[id] {
			gone[h.name] = append(gone[h.name], s.forgetHost(h)...)
		}
	}
	strangers = s.forgetStrangers()
	s.restored = nil // who was not among them is gone for good
	return gone, strangers
}

func (s *Store) forgetHost(h *host) (gone []policy.NameKey) {
	for raw, have := range h.holds {
		if have.as != 0 {
			gone = append(gone, policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(raw).Unmap()})
			s.use(h, have.as, -1)
			s.inKernel--
		}
		s.addresses--
	}
	s.pairs -= h.pairs
	clear(h.known) // for who is about to look at the next of them
	clear(h.holds)
	delete(s.hosts, h.id)
	s.dirty()
	return gone
}

// selectorsOf are those of every table, each once and in order.
func selectorsOf(n *redirect.Names) []policy.FQDN {
	byText := map[string]policy.FQDN{}
	for _, t := range n.Tables {
		for _, f := range t.Selectors() {
			byText[f.String()] = f
		}
	}
	out := make([]policy.FQDN, 0, len(byText))
	for _, text := range slices.Sorted(maps.Keys(byText)) {
		out = append(out, byText[text])
	}
	return out
}

// renewRules makes the rules of every table about every identity that is in use.
func (s *Store) renewRules(again bool) error {
	var errs error
	done := map[policy.NameRulesKey]bool{}
	for _, h := range s.hosts {
		for _, t := range h.tables {
			for id := range h.numbers {
				k := policy.NameRulesKey{Table: t, Identity: id}
				if done[k] {
					continue
				}
				done[k] = true
				if s.pause(&s.turn); s.over {
					return errs
				}
				errs = errors.Join(errs, s.rule(k, again))
			}
		}
	}
	for _, k := range slices.Collect(maps.Keys(s.rules)) { // that linger: they may be in use again
		if done[k] {
			continue
		}
		if s.pause(&s.turn); s.over {
			return errs
		}
		if s.rules[k] != nil {
			errs = errors.Join(errs, s.rule(k, again))
		}
	}
	return errs
}
