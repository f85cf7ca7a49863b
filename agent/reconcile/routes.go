package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// redirects are the entries of a subject's table that go to a proxy.
type redirects[T comparable] struct {
	identity policy.Identity
	entries  [2]map[policy.Key]T // by direction: the set
}

func (r *redirects[T]) add(k policy.Key, set T) {
	d := k.Direction & 1
	if r.entries[d] == nil {
		r.entries[d] = map[policy.Key]T{}
	}
	r.entries[d][k] = set
}

func (r *redirects[T]) any() bool { return r.entries[0] != nil || r.entries[1] != nil }

// pair is the sets of a connection, by direction.
type pair[T comparable] struct{ egress, ingress T }

// pairsOf are the pairs of L7 sets that a connection on this node may have: those
// of tables that may meet, on ports that overlap. A pair too many costs a listener;
// one that is missing would close a port.
func pairsOf[T comparable](all []redirects[T]) map[pair[T]]bool {
	pairs := map[pair[T]]bool{}
	for _, from := range all {
		for _, set := range from.entries[policy.Ingress] {
			pairs[pair[T]{ingress: set}] = true
		}
		for k, egress := range from.entries[policy.Egress] {
			pairs[pair[T]{egress: egress}] = true
			for _, to := range all {
				if k.Peer != 0 && k.Peer != to.identity {
					continue
				}
				for l, ingress := range to.entries[policy.Ingress] {
					if (l.Peer == 0 || l.Peer == from.identity) && portsOverlap(k, l) {
						pairs[pair[T]{egress, ingress}] = true
					}
				}
			}
		}
	}
	return pairs
}

// routesInUse are the pairs that need a port of their own, by the numbers of the sets.
func (e *Engine) routesInUse() map[bpf.Route]bool {
	var all []redirects[uint32]
	for _, s := range e.subjects {
		r := redirects[uint32]{identity: s.identity}
		for k, entry := range s.want {
			if entry.Verdict == policy.Redirect && e.perRoute(redirect.SetNumber(entry.Set)) {
				r.add(k, entry.Set)
			}
		}
		if s.users > 0 && r.any() {
			all = append(all, r)
		}
	}
	routes := map[bpf.Route]bool{}
	for p := range pairsOf(all) {
		routes[bpf.Route{Egress: p.egress, Ingress: p.ingress}] = true
	}
	for _, t := range e.nameTables { // whose addresses are nobody's here
		for id := range t.sets {
			if n := e.numbers.Sets[fmt.Sprintf("%x", id)]; n != 0 && e.perRoute(n) {
				routes[bpf.Route{Egress: uint32(n)}] = true
			}
		}
	}
	return routes
}

// portsOverlap reports whether a connection can match both entries.
func portsOverlap(a, b policy.Key) bool {
	if a.Proto != b.Proto && a.Proto != 0 && b.Proto != 0 {
		return false
	}
	bits := min(a.PrefixBits, b.PrefixBits)
	mask := ^uint16(0) << (16 - bits)
	return a.Port&mask == b.Port&mask
}

func (e *Engine) perRoute(n redirect.SetNumber) bool {
	return e.cfg.PerRoute != nil && e.cfg.PerRoute(n.Protocol())
}

// serveRoutes has every route that is in use, or was a moment ago, served at a port,
// and tells the gate. A route that is not served stays closed.
func (e *Engine) serveRoutes(ctx context.Context) error {
	wanted := e.routesInUse()
	for r := range e.routes {
		if e.knownSet(r.Egress) && e.knownSet(r.Ingress) {
			wanted[r] = true // connections of it may be open
		}
	}
	var errs error
	// First: a port that is free again may be the next one's.
	for r := range e.routes {
		if !wanted[r] {
			errs = errors.Join(errs, e.setRoute(r, 0))
		}
	}
	for r := range wanted {
		route := redirect.Route{Egress: e.numbers.setIDs[redirect.SetNumber(r.Egress)], Ingress: e.numbers.setIDs[redirect.SetNumber(r.Ingress)]}
		port, err := e.cfg.Backend.Serve(ctx, route)
		if errors.Is(err, redirect.ErrUnservable) {
			e.cfg.Logger.Error("a redirected port stays closed", "egress", fmt.Sprintf("%#x", r.Egress), "ingress", fmt.Sprintf("%#x", r.Ingress), "error", err)
			errs = errors.Join(errs, e.setRoute(r, 0))
			continue
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("serve L7 rules %#x and %#x: %w", r.Egress, r.Ingress, err))
			continue
		}
		errs = errors.Join(errs, e.setRoute(r, uint16(port)))
	}
	return errs
}

// knownSet reports whether a set is in the snapshot of a backend that has a port for
// each route. No set is.
func (e *Engine) knownSet(number uint32) bool {
	if number == 0 {
		return true
	}
	id, ok := e.numbers.setIDs[redirect.SetNumber(number)]
	return ok && e.perRoute(redirect.SetNumber(number)) && (e.sets[id] != nil || e.lastSets[id] != nil)
}

func (e *Engine) setRoute(r bpf.Route, port uint16) error {
	if e.routes[r] == port {
		return nil
	}
	if err := e.cfg.Gate.SetRoute(r, port); err != nil {
		return err
	}
	if port == 0 {
		delete(e.routes, r)
	} else {
		e.routes[r] = port
	}
	return nil
}

// readRoutes learns which routes the gate has from an agent before: those that nobody
// serves any more are closed by the first change.
func (e *Engine) readRoutes() error {
	found, err := e.cfg.Gate.Routes()
	if err != nil {
		return fmt.Errorf("read the running datapath: %w", err)
	}
	for r, port := range found {
		if r != bpf.AnyRoute(redirect.SetNumber(r.Egress).Protocol()) {
			e.routes[r] = port
		}
	}
	return nil
}
