package fqdn

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/headgate/headgate/policy"
)

const (
	janitorEvery = time.Second
	// sweepAfter is when a new process removes what the one before it has left and it
	// does not know: not before that one has stopped writing.
	sweepAfter = 10 * time.Second
	// dropEvery is how often rules are looked for that nobody has any more.
	dropEvery = 5 * time.Second
	// lookRest is how long nothing is looked at, in times that a look took.
	lookRest = 50
)

// cleanDue reports whether something may have run out.
func (s *Store) cleanDue() bool {
	if s.gone() || s.names == nil {
		return false
	}
	now := s.now()
	if !s.sweepAt.IsZero() && now.After(s.sweepAt) {
		return true
	}
	return s.runsOut() || now.Sub(s.droppedAt) > dropEvery
}

// runsOut reports whether a name may have run out, grace included.
func (s *Store) runsOut() bool {
	if time.Since(s.lookedAt) < lookRest*s.lookTook {
		return false
	}
	return s.expires != 0 && s.now().Add(-s.limits.Grace).Unix() >= s.expires
}

// clean forgets what has run out and no connection uses. Connections are read while
// answers go on; what was learnt again meanwhile stays.
func (s *Store) clean(ctx context.Context) {
	var candidates map[policy.NameKey]bool
	var sweep bool
	if s.do(ctx, func() {
		if s.runsOut() {
			start := time.Now()
			candidates = s.runOut()
			s.lookedAt, s.lookTook = start, time.Since(start)
		}
		sweep = !s.sweepAt.IsZero() && s.now().After(s.sweepAt)
		if len(candidates) == 0 {
			s.dropUnused()
		}
	}) != nil {
		return
	}
	if len(candidates) > 0 {
		used, err := s.inUse(ctx, candidates)
		if err != nil {
			_ = s.do(ctx, func() { s.expires = 1 }) // to be looked at again
			if ctx.Err() == nil {
				s.log.Error("cannot tell which addresses are in use, so none is forgotten", "error", err)
			}
			return
		}
		if s.do(ctx, func() { s.release(candidates, used) }) != nil {
			return
		}
	}
	if sweep {
		s.changes.Lock()
		_ = s.do(ctx, s.sweep)
		s.changes.Unlock()
	}
}

// runOut lists the addresses of which a name has run out, grace included, and finds when
// the next will.
func (s *Store) runOut() map[policy.NameKey]bool {
	out := map[policy.NameKey]bool{}
	s.expires = 0
	over := s.now().Add(-s.limits.Grace).Unix()
	for _, h := range s.hosts {
		for _, e := range h.known {
			if len(e.addrs) > s.limits.PerName { // those that run out first
				slices.SortFunc(e.addrs, func(a, b learnt) int { return int(int64(b.expires) - int64(a.expires)) })
				for _, l := range e.addrs[s.limits.PerName:] {
					out[policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(l.addr).Unmap()}] = true
				}
				for i := range e.addrs[s.limits.PerName:] {
					e.addrs[s.limits.PerName+i].expires = uint32(over)
				}
			}
			for _, l := range e.addrs {
				if int64(l.expires) <= over {
					out[policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(l.addr).Unmap()}] = true
				} else if s.expires == 0 || int64(l.expires) < s.expires {
					s.expires = int64(l.expires)
				}
			}
		}
	}
	return out
}

// inUse finds which of the addresses their endpoint is connected to.
func (s *Store) inUse(ctx context.Context, of map[policy.NameKey]bool) (map[policy.NameKey]bool, error) {
	used := map[policy.NameKey]bool{}
	if s.config.Connections == nil {
		return used, nil
	}
	ids := map[netip.Addr]uint16{}
	if err := s.do(ctx, func() {
		for a, h := range s.byAddr {
			ids[a] = h.id
		}
	}); err != nil {
		return nil, err
	}
	err := s.config.Connections.Pairs(ctx, func(opener, other netip.Addr) {
		if id, ok := ids[opener]; ok {
			if k := (policy.NameKey{Endpoint: id, Addr: other}); of[k] {
				used[k] = true
			}
		}
	})
	return used, err
}

// release forgets what has run out and is not in use. What is counts from now on for the
// grace, after the connection is gone.
func (s *Store) release(candidates, used map[policy.NameKey]bool) {
	if s.gone() {
		return
	}
	over, now := s.now().Add(-s.limits.Grace).Unix(), uint32(s.now().Unix())
	touched := map[policy.NameKey]*host{}
	inUse := 0
	for _, h := range s.hosts {
		for _, e := range h.known {
			gone := func(l learnt) bool {
				k := policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(l.addr).Unmap()}
				if int64(l.expires) > over || !candidates[k] || used[k] {
					return false
				}
				touched[k] = h
				return true
			}
			for i, l := range e.addrs {
				k := policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(l.addr).Unmap()}
				if int64(l.expires) <= over && used[k] {
					inUse++
					e.addrs[i].expires = now
					if s.expires == 0 || int64(now) < s.expires {
						s.expires = int64(now)
					}
				}
			}
			s.forgetName(h, e, gone)
		}
	}
	s.stats.held.Store(uint64(inUse))
	var writes []write
	for k, h := range touched { // what another name still holds may be known as something else
		if have, ok := h.holds[k.Addr.As16()]; ok {
			if id := s.identify(k.Addr, &have); id != have.as {
				writes = append(writes, write{h, k.Addr, id})
			}
		}
	}
	for k, err := range s.write(writes) {
		s.log.Error("an address is known by fewer names than the datapath was told", "endpoint", k.Endpoint, "address", k.Addr, "error", err)
	}
	s.dropUnused()
}

// forgetName takes addresses from a name, and from the kernel those that have no other.
func (s *Store) forgetName(h *host, e *entry, gone func(learnt) bool) {
	var keys []policy.NameKey
	kept := e.addrs[:0]
	for _, l := range e.addrs {
		if !gone(l) {
			kept = append(kept, l)
			continue
		}
		s.dirty()
		h.pairs--
		s.pairs--
		have := h.holds[l.addr]
		left := slices.DeleteFunc(have.entries(), func(o *entry) bool { return o == e })
		switch len(left) {
		case 0:
			if have.as != 0 {
				keys = append(keys, policy.NameKey{Endpoint: h.id, Addr: netip.AddrFrom16(l.addr).Unmap()})
				s.use(h, have.as, -1)
				s.inKernel--
			}
			delete(h.holds, l.addr)
			s.addresses--
			continue
		case 1:
			have.one, have.more = left[0], nil
		default:
			*have.more = left
		}
		h.holds[l.addr] = have
	}
	e.addrs = kept
	if len(kept) == 0 {
		if h.known[e.name] == e && e.pick == s.none {
			h.unruled--
		}
		delete(h.known, e.name)
	}
	if err := s.remove(h.name, keys); err != nil {
		s.log.Error("addresses stay in the datapath whose names have run out", "error", err)
	}
}
