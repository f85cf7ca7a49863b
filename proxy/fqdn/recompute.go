package fqdn

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/policy"
)

// difference is which selectors came and which went between two lists of them.
type difference struct {
	names []string        // of selectors of one name each, that came or went
	came  *matcher        // patterns
	wide  bool            // some are patterns: any name may be concerned
	went  map[string]bool // names and patterns
	lost  map[*pick]bool  // picks that have one that went
}

func differenceOf(before, now []policy.FQDN) *difference {
	d := &difference{went: make(map[string]bool, len(before))}
	note := func(f policy.FQDN) {
		if f.Name != "" {
			d.names = append(d.names, f.Name)
		} else {
			d.wide = true
		}
	}
	for _, f := range before {
		d.went[f.String()] = true
	}
	var patterns []policy.FQDN
	for _, f := range now {
		if d.went[f.String()] {
			delete(d.went, f.String())
			continue
		}
		if note(f); f.Name == "" {
			patterns = append(patterns, f)
		}
	}
	for _, f := range before {
		if d.went[f.String()] {
			note(f)
		}
	}
	d.came = newMatcher(patterns)
	return d
}

// concerns reports whether a pattern that came or went picks a name.
func (d *difference) concerns(e *entry) bool { return d.lost[e.pick] || len(d.came.match(e.name)) > 0 }

// maxPicks is how many there may be that nobody may have any more: then all are found anew.
const maxPicks = 4096

// recompute finds what addresses are known as by the selectors there are now: those whose
// names are picked by selectors that came or went, or, if prefixes are others too, all.
func (s *Store) recompute(all bool) []write {
	all = all || len(s.picks) > maxPicks
	var d *difference
	s.uninterrupted(func() {
		before := s.matcher.all
		s.matcher, s.prefixes = newMatcher(selectorsOf(s.names)), newPrefixes(s.names.Prefixes)
		d = differenceOf(before, s.matcher.all)
		s.dropPicks(d)
	})
	if all {
		s.picks = map[string]*pick{"": s.none}
	}
	var writes []write
	for _, h := range s.hosts {
		if all {
			s.repickAll(h, func(*entry) bool { return true }, nil)
			writes = s.identifyAgain(writes, h, maps.Keys(h.holds))
			continue
		}
		touched := map[[16]byte]struct{}{}
		if d.wide {
			s.repickAll(h, d.concerns, touched)
		}
		for _, name := range d.names {
			if e := h.known[name]; e != nil {
				s.repick(h, e, touched)
			}
		}
		writes = s.identifyAgain(writes, h, maps.Keys(touched))
	}
	return writes
}

// dropPicks forgets the picks that have a selector which went.
func (s *Store) dropPicks(d *difference) {
	d.lost = map[*pick]bool{}
	if len(d.went) == 0 {
		return
	}
	for key, p := range s.picks {
		if slices.ContainsFunc(p.selectors, func(f policy.FQDN) bool { return d.went[f.String()] }) {
			d.lost[p] = true
			delete(s.picks, key)
		}
	}
}

// repickAll goes through the names of a host.
func (s *Store) repickAll(h *host, concerned func(*entry) bool, touched map[[16]byte]struct{}) {
	for _, e := range h.known {
		s.pause(&s.turn)
		if h.known[e.name] == e && concerned(e) { // else it is gone since
			s.repick(h, e, touched)
		}
	}
}

// repick finds by which selectors a name is picked. If they are others than before it adds the
// name's addresses to those touched.
func (s *Store) repick(h *host, e *entry, touched map[[16]byte]struct{}) {
	p := s.pickOf(e.name)
	if p == e.pick {
		return
	}
	switch was, is := e.pick == s.none, p == s.none; {
	case is && !was:
		h.unruled++
	case was && !is:
		h.unruled--
	}
	e.pick = p
	if touched == nil {
		return
	}
	for _, l := range e.addrs {
		touched[l.addr] = struct{}{}
	}
}

// identifyAgain adds those addresses of a host that are to be known as something else.
func (s *Store) identifyAgain(writes []write, h *host, addrs iter.Seq[[16]byte]) []write {
	for raw := range addrs {
		s.pause(&s.turn)
		have, ok := h.holds[raw]
		if !ok {
			continue
		}
		addr := netip.AddrFrom16(raw).Unmap()
		if id := s.identify(addr, &have); id != have.as {
			writes = append(writes, write{h, addr, id})
		}
	}
	return writes
}

// writeAtOnce is how many addresses are written before others go first.
const writeAtOnce = 256

// writeAll writes what recompute found, if it is still so.
func (s *Store) writeAll(writes []write) map[policy.NameKey]error {
	failed := map[policy.NameKey]error{}
	for part := range slices.Chunk(writes, writeAtOnce) {
		s.pause(&s.turn)
		if s.over {
			break
		}
		due := part[:0]
		for _, w := range part {
			have, ok := w.host.holds[w.addr.As16()]
			if !ok || s.hosts[w.host.id] != w.host {
				continue
			}
			if w.id = s.identify(w.addr, &have); w.id != have.as {
				due = append(due, w)
			}
		}
		maps.Copy(failed, s.write(due))
	}
	return failed
}
