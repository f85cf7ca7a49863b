package reconcile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Numbers are the short names of things in kernel maps. They are remembered over
// restarts, because open connections carry them.
type Numbers struct {
	Identities map[string]policy.Identity    `json:"identities"` // labels, or a CIDR
	Sets       map[string]redirect.SetNumber `json:"sets"`       // by SetID in hex
	NextSet    map[policy.Protocol]uint32    `json:"nextSet"`
	Names      map[string]uint32             `json:"names,omitempty"` // tables of rules about names, by id in hex
	NextNames  uint32                        `json:"nextNames,omitempty"`
	Unions     map[string][]Union            `json:"unions,omitempty"` // of rules about names, by the same id
	named      map[uint32]bool               // numbers in Names; nil: to be found
	rules      map[policy.Ref]uint32         // for people: made anew by each agent
	refs       map[uint32]policy.Ref
	setIDs     map[redirect.SetNumber]policy.SetID
}

// maxSet is the largest number of an L7 set; the one above means every set.
const maxSet = 0xfffffe

var errExhausted = errors.New("no number is left")

func (n *Numbers) init() {
	if n.Identities == nil {
		n.Identities = map[string]policy.Identity{}
	}
	if n.Sets == nil {
		n.Sets = map[string]redirect.SetNumber{}
	}
	if n.NextSet == nil {
		n.NextSet = map[policy.Protocol]uint32{}
	}
	if n.Names == nil {
		n.Names = map[string]uint32{}
	}
	if n.Unions == nil {
		n.Unions = map[string][]Union{}
	}
	n.rules, n.refs = map[policy.Ref]uint32{}, map[uint32]policy.Ref{}
	n.setIDs = map[redirect.SetNumber]policy.SetID{}
}

// identity is the number of a set of labels, or of a prefix.
func (n *Numbers) identity(key string, local bool) (policy.Identity, error) {
	if id, ok := n.Identities[key]; ok {
		return id, nil
	}
	first, last := policy.IdentityMinWorkload, policy.IdentityMaxWorkload
	if local {
		first, last = policy.IdentityMinLocal, policy.IdentityMinLocal+0xffffff
	}
	taken := make(map[policy.Identity]bool, len(n.Identities))
	for _, id := range n.Identities {
		taken[id] = true
	}
	for id := first; id <= last; id++ {
		if !taken[id] {
			n.Identities[key] = id
			return id, nil
		}
	}
	return 0, fmt.Errorf("number identity %s: %w", key, errExhausted)
}

// set is the number of an L7 set. Numbers of sets that are gone are not used again
// until all have been, since a connection may still carry one.
func (n *Numbers) set(s *policy.L7Set) (redirect.SetNumber, error) {
	key := fmt.Sprintf("%x", s.ID)
	if number, ok := n.Sets[key]; ok {
		n.setIDs[number] = s.ID
		return number, nil
	}
	taken := make(map[redirect.SetNumber]bool, len(n.Sets))
	for _, number := range n.Sets {
		taken[number] = true
	}
	for range maxSet {
		next := n.NextSet[s.Protocol]%maxSet + 1
		n.NextSet[s.Protocol] = next
		number := redirect.SetNumber(uint32(s.Protocol)<<24 | next)
		if !taken[number] {
			n.Sets[key] = number
			n.setIDs[number] = s.ID
			return number, nil
		}
	}
	return 0, fmt.Errorf("number L7 set %s: %w", key, errExhausted)
}

// rule is the number of a rule.
func (n *Numbers) rule(ref policy.Ref) uint32 {
	if ref == (policy.Ref{}) {
		return 0
	}
	if number, ok := n.rules[ref]; ok {
		return number
	}
	number := uint32(len(n.rules) + 1)
	n.rules[ref], n.refs[number] = number, ref
	return number
}

// identityKey of a CIDR.
func prefixKey(p netip.Prefix) string { return "cidr:" + p.String() }

// numberEndpoints gives every endpoint the identity of its labels, and makes known
// what endpoints of an identity call their ports.
func (e *Engine) numberEndpoints() error {
	infos := map[policy.Identity]*policy.IdentityInfo{}
	for _, key := range sortedKeys(e.endpoints) {
		ep := e.endpoints[key]
		labels, err := e.labelsOf(ep)
		if err != nil {
			return err
		}
		if ep.Identity, err = e.numbers.identity(labels.String(), false); err != nil {
			return err
		}
		info := infos[ep.Identity]
		if info == nil {
			info = &policy.IdentityInfo{ID: ep.Identity, Labels: labels, NamedPorts: policy.NamedPorts{}}
			infos[ep.Identity] = info
		}
		for name, p := range ep.Ports {
			if !slices.Contains(info.NamedPorts[name], p) {
				info.NamedPorts[name] = append(info.NamedPorts[name], p)
			}
		}
	}
	for _, info := range infos {
		if err := e.book.index.SetIdentity(*info); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) labelsOf(ep *endpoint.Endpoint) (policy.Labels, error) {
	labels, err := policy.EndpointLabels(ep.Namespace, ep.ServiceAccount, e.cfg.Cluster, e.namespaces[ep.Namespace], ep.Labels)
	if err != nil {
		return labels, fmt.Errorf("endpoint %s: %w", ep.Key(), err)
	}
	return labels, nil
}

// subjectOf finds an endpoint's subject, or makes it.
func (e *Engine) subjectOf(ep *endpoint.Endpoint) *subject {
	key := fmt.Sprintf("%d %v", ep.Identity, endpoint.FormatPorts(ep.Ports))
	s := e.subjects[key]
	if s == nil {
		s = &subject{number: e.freeSubject()}
		e.subjects[key] = s
	}
	s.identity = ep.Identity
	ports := policy.NamedPorts{}
	for name, p := range ep.Ports {
		ports[name] = []policy.NamedPort{p}
	}
	info, _ := e.ids.Get(ep.Identity)
	s.of = policy.Subject{Labels: info.Labels, NamedPorts: ports, Enforcement: e.settings().Enforcement}
	return s
}

func (e *Engine) numberPrefixes() error {
	for _, p := range e.book.prefixes {
		if _, fixed := e.cfg.Fixed[p]; fixed {
			continue
		}
		id, err := e.numbers.identity(prefixKey(p), true)
		if err != nil {
			return err
		}
		if err := e.book.index.SetIdentity(policy.IdentityInfo{ID: id, Prefix: p}); err != nil {
			return err
		}
	}
	return nil
}
