package reconcile

import (
	"maps"
	"net/netip"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// directory is what flows need to know, as it was at the last sync. It does not
// change once published.
type directory struct {
	endpoints  map[netip.Addr]observe.EndpointInfo
	identities map[policy.Identity][]string
	refs       map[uint32]policy.Ref
	selecting  map[policy.Identity][2][]string // policies by direction
}

// publish makes what is in force visible to those who describe flows.
func (e *Engine) publish() {
	d := &directory{
		endpoints:  map[netip.Addr]observe.EndpointInfo{},
		identities: map[policy.Identity][]string{},
		refs:       maps.Clone(e.numbers.refs),
		selecting:  map[policy.Identity][2][]string{},
	}
	e.ids.Each(func(info policy.IdentityInfo) bool {
		d.identities[info.ID] = info.Labels.Strings()
		return true
	})
	for _, ep := range e.endpoints {
		info := observe.EndpointInfo{
			ID: uint32(ep.ID), Identity: ep.Identity, Namespace: ep.Namespace, Name: ep.Name, Labels: d.identities[ep.Identity],
		}
		for _, ip := range ep.IPs {
			d.endpoints[ip] = info
		}
		d.selecting[ep.Identity] = e.subjectOf(ep).names
	}
	if host := e.subjects[hostKey]; host != nil {
		d.selecting[policy.IdentityHost] = host.names
	}
	e.directory.Store(d)
}

// Endpoint implements observe.Directory.
func (e *Engine) Endpoint(a netip.Addr) (observe.EndpointInfo, bool) {
	info, ok := e.directory.Load().endpoints[a]
	return info, ok
}

// Identity implements observe.Directory.
func (e *Engine) Identity(id policy.Identity) []string { return e.directory.Load().identities[id] }

// Selecting names the policies that select endpoints of an identity, for people
// who ask why no rule allowed something.
func (e *Engine) Selecting(id policy.Identity, d policy.Direction) []string {
	return e.directory.Load().selecting[id][d&1]
}

// IdentityOf says whose an address is: an endpoint's, or that of the longest prefix.
func (e *Engine) IdentityOf(a netip.Addr) policy.Identity {
	if ep, ok := e.Endpoint(a); ok {
		return ep.Identity
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for bits := a.BitLen(); bits >= 0; bits-- {
		if p, err := a.Prefix(bits); err == nil {
			if id, ok := e.prefixes[p]; ok {
				return id
			}
		}
	}
	return policy.IdentityUnknown
}
