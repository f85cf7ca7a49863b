package reconcile

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

func (e *Engine) writeTables() error {
	var errs error
	for _, s := range e.subjects {
		if s.users == 0 || (s.table != nil && !s.failed && maps.Equal(s.table, s.want)) {
			continue
		}
		if s.failed && e.misses(s) {
			errs = errors.Join(errs, fmt.Errorf("subject %d stays closed: the datapath has no room for a prefix that its policy names", s.number))
			continue
		}
		err := e.cfg.Gate.SyncPolicy(s.number, s.table, s.want)
		if err != nil {
			// What is in the kernel is some mixture: next time all of it is old, and every
			// entry is written again.
			mixed := bpf.PolicyTable{}
			for _, t := range []bpf.PolicyTable{s.table, s.want} {
				for k := range t {
					mixed[k] = unknownEntry
				}
			}
			s.table, s.failed, errs = mixed, true, errors.Join(errs, err)
			continue
		}
		s.table, s.failed = s.want, false
	}
	return errs
}

// unknownEntry equals no entry that is ever wanted.
var unknownEntry = bpf.PolicyEntry{Verdict: 0xff}

// wantedPrefixes are all addresses with an identity.
func (e *Engine) wantedPrefixes() map[netip.Prefix]policy.Identity {
	want := maps.Clone(e.cfg.Fixed)
	if want == nil {
		want = map[netip.Prefix]policy.Identity{}
	}
	for _, p := range e.book.prefixes {
		if _, fixed := want[p]; !fixed {
			want[p] = e.numbers.Identities[prefixKey(p)]
		}
	}
	for _, ep := range e.endpoints {
		for _, ip := range ep.IPs {
			want[netip.PrefixFrom(ip, ip.BitLen())] = ep.Identity
		}
	}
	return want
}

func (e *Engine) writePrefixes() error {
	want := e.wantedPrefixes()
	e.forgetUnplaced(want)
	var errs error
	for p, id := range want {
		if old, ok := e.prefixes[p]; ok && old == id {
			continue
		}
		errs = errors.Join(errs, e.place(p, id))
	}
	for p := range e.prefixes {
		if _, ok := want[p]; ok {
			continue
		}
		if err := e.cfg.Gate.DeleteIdentity(p); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		delete(e.prefixes, p)
	}
	return errs
}

// writeEndpoints points endpoints to their tables. From then on they have traffic. With stale
// names, one that is new stays closed where rules about names are in force: its number may have
// been another's, and what that one learnt would be its own. And so does one that has other rules
// about names so far.
func (e *Engine) writeEndpoints(users map[string]*subject, stale bool) error {
	var errs error
	tables := e.tablesInGate()
	want := map[netip.Addr]bool{}
	for key, ep := range e.endpoints {
		s := users[key]
		ready := !s.failed && maps.Equal(s.table, s.want)
		ep.State, ep.Detail = endpoint.Ready, ""
		if !ready {
			ep.State, ep.Detail = endpoint.Failed, "its policy could not be written to the datapath: everything is denied"
		} else if stale && s.nameTable != 0 && !e.goesBy(ep, s.nameTable, tables) {
			ready = false
			ep.State, ep.Detail = endpoint.Failed, "the datapath may have names of an endpoint that is gone under this one's number, or by other rules: everything is denied until the proxy has removed them"
		}
		for _, ip := range ep.IPs {
			want[ip] = true
			w := bpf.Endpoint{
				Addr: ip, Ifindex: ep.Ifindex, ID: ep.ID, Identity: ep.Identity, Subject: s.number,
				MAC: ep.HardwareAddr(), Ready: ready,
			}
			if old, ok := e.written[ip]; ok && sameEndpoint(old, w) {
				continue
			}
			if err := e.cfg.Gate.SetEndpoint(w); err != nil {
				ep.State, ep.Detail = endpoint.Failed, err.Error()
				errs = errors.Join(errs, err)
				continue
			}
			e.written[ip] = w
		}
	}
	for ip := range e.written {
		if want[ip] {
			continue
		}
		if err := e.cfg.Gate.DeleteEndpoint(ip); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		delete(e.written, ip)
	}
	return errs
}

// goesBy reports whether the gate has an endpoint by its number, lets it have traffic, and judges
// it by this table of rules about names.
func (e *Engine) goesBy(ep *endpoint.Endpoint, table uint32, tables map[uint32]uint32) bool {
	for _, ip := range ep.IPs {
		if old, ok := e.written[ip]; !ok || old.ID != ep.ID || !old.Ready || tables[old.Subject] != table {
			return false
		}
	}
	return true
}

func sameEndpoint(a, b bpf.Endpoint) bool {
	return a.Ifindex == b.Ifindex && a.ID == b.ID && a.Identity == b.Identity && a.Subject == b.Subject &&
		a.Ready == b.Ready && a.MAC.String() == b.MAC.String()
}
