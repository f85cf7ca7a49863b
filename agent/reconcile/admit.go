package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// ErrRefused says that policies are understood, and that this node cannot carry them.
var ErrRefused = errors.New("cannot be carried out here")

// changePolicies makes a change of policies that this node can carry, or none.
func (e *Engine) changePolicies(ctx context.Context, f func() error) (uint64, error) {
	return e.change(ctx, func() error {
		before := maps.Clone(e.policies)
		err := f()
		if err == nil {
			err = e.admit()
		}
		if err == nil {
			err = e.admitConfigs(before)
		}
		if err == nil {
			err = e.admitClusters(before)
		}
		if err != nil {
			e.policies = before
		}
		return err
	})
}

// admit refuses policies that refer to listeners that are not there, or that need more
// ports of Envoy than there may be. It changes nothing that is in force.
func (e *Engine) admit() error {
	if err := e.admitListeners(); err != nil {
		return err
	}
	if e.cfg.MaxRoutes == 0 {
		return nil
	}
	needed, err := e.routesNeeded()
	if err != nil {
		return err
	}
	for p := range needed {
		if p.egress.Protocol == policy.ProtocolListener && p.ingress.ID != (policy.SetID{}) {
			return fmt.Errorf("the listener %s gets connections to a port whose server has L7 rules of its own, which nobody would judge them by: leave out the listener, or those rules: %w",
				p.egress.Name, ErrRefused)
		}
	}
	if n := len(needed); n > e.cfg.MaxRoutes && n > len(e.routesInUse()) {
		return fmt.Errorf("%d listeners of Envoy would be needed, one for each pair of different L7 rules that a connection can have, and there may be %d: write the same rules in one policy for all who need them, or raise --envoy-max-listeners: %w",
			n, e.cfg.MaxRoutes, ErrRefused)
	}
	return nil
}

// admitListeners wants every listener that a policy refers to.
func (e *Engine) admitListeners() error {
	for _, key := range sortedKeys(e.policies) {
		for _, r := range e.policies[key].Rules {
			for i := range r.Ports {
				if l := r.Ports[i].Listener; l != nil {
					if err := e.admitListener(l); err != nil {
						return fmt.Errorf("%s %s: %w: %w", e.policies[key].Kind, r.Ports[i].Ref, err, ErrRefused)
					}
				}
			}
		}
	}
	return nil
}

// admitConfigs takes no config of Envoy's that is new or changed where there is no Envoy.
func (e *Engine) admitConfigs(before map[string]*Policy) error {
	if e.servesListeners() {
		return nil
	}
	for _, key := range sortedKeys(e.policies) {
		if p := e.policies[key]; p != before[key] && p.Envoy != nil {
			return fmt.Errorf("%s is Envoy's: start the agent with --backend envoy: %w", key, ErrRefused)
		}
	}
	return nil
}

// servesListeners reports whether there is an Envoy.
func (e *Engine) servesListeners() bool {
	return e.cfg.PerRoute != nil && e.cfg.PerRoute(policy.ProtocolListener)
}

func (e *Engine) admitListener(l *policy.Listener) error {
	if !e.servesListeners() {
		return errors.New("a listener is Envoy's: start the agent with --backend envoy, or write rules.http")
	}
	p := e.policies[l.Key()]
	if p == nil || p.Envoy == nil {
		return fmt.Errorf("there is no %s for its listener: apply that first, or with it", l.Key())
	}
	for _, r := range p.Envoy.Resources {
		if r.Name == l.String() && r.IsListener() {
			return nil
		}
	}
	return fmt.Errorf("%s has no listener %q", l.Key(), l.Name)
}

// admitClusters wants no listener that is new or changed to lead to this machine: the
// server there would take the connection for one that policy has let through.
func (e *Engine) admitClusters(before map[string]*Policy) error {
	if e.cfg.NodeAddresses == nil {
		return nil
	}
	for _, key := range sortedKeys(e.policies) {
		p := e.policies[key]
		if p == before[key] || p.Envoy == nil || len(p.Envoy.Addresses) == 0 {
			continue
		}
		own, err := e.cfg.NodeAddresses()
		if err != nil {
			return fmt.Errorf("read this node's addresses for %s: %w", key, err)
		}
		for _, ip := range p.Envoy.Addresses {
			if slices.Contains(own, ip) {
				return fmt.Errorf("%s: a cluster leads to %s, which is this node itself; write the address of a workload or of another machine: %w", key, ip, ErrRefused)
			}
		}
	}
	return nil
}

// neededSet is a set that a table would name.
type neededSet struct {
	ID       policy.SetID
	Protocol policy.Protocol
	Name     string // of a listener
}

func needed(set *policy.L7Set) neededSet {
	n := neededSet{ID: set.ID, Protocol: set.Protocol}
	if set.Listener != nil {
		n.Name = set.Listener.String()
	}
	return n
}

// routesNeeded are the pairs that would need a port of their own by the policies as they
// are now, of the subjects that there are.
func (e *Engine) routesNeeded() (map[pair[neededSet]]bool, error) {
	e.updateRules()
	if err := e.numberPrefixes(); err != nil {
		return nil, err
	}
	changed := e.resolve(e.settings().Audit)
	var all []redirects[neededSet]
	for _, s := range e.subjects {
		if s.users == 0 || s.resolved == nil {
			continue
		}
		r := redirects[neededSet]{identity: s.identity}
		for k, entry := range s.resolved.table.Entries {
			set := s.resolved.sets[entry.Set]
			if entry.Verdict != policy.Redirect || !e.cfg.PerRoute(set.Protocol) {
				continue
			}
			r.add(k, needed(set))
		}
		if r.any() {
			all = append(all, r)
		}
	}
	pairs := pairsOf(all)
	e.addNamesNeeded(pairs, changed)
	for _, s := range changed { // they are not numbered yet: whoever puts them in force makes them again
		s.resolved = nil
	}
	return pairs, nil
}

// envoyConfigs are the objects that define listeners, where a backend takes them.
func (e *Engine) envoyConfigs() map[string]*policy.EnvoyConfig {
	if !e.perRoute(redirect.SetNumber(uint32(policy.ProtocolListener) << 24)) {
		return nil
	}
	configs := map[string]*policy.EnvoyConfig{}
	for key, p := range e.policies {
		if p.Envoy != nil {
			configs[key] = p.Envoy
		}
	}
	return configs
}
