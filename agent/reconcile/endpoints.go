package reconcile

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Sentinels of the engine's answers.
var (
	ErrExists   = errors.New("exists already")
	ErrNotFound = errors.New("does not exist")
)

// closedByProxy says that a change is in force but for the ports that need a proxy,
// which stay closed until there is one. To those who asked it is done.
func closedByProxy(err error) bool { return errors.Is(err, redirect.ErrNotReady) }

// AddEndpoint puts an endpoint's policy in force and then gives it traffic.
func (e *Engine) AddEndpoint(ctx context.Context, ep *endpoint.Endpoint) (*endpoint.Endpoint, error) {
	_, err := e.change(ctx, func() error {
		if e.endpoints[ep.Key()] != nil {
			return fmt.Errorf("endpoint %s %w", ep.Key(), ErrExists)
		}
		if _, err := e.labelsOf(ep); err != nil {
			return err
		}
		e.endpoints[ep.Key()] = ep.Clone()
		e.lastEndpoint = ep.ID
		return nil
	})
	added, found := e.GetEndpoint(ep.Key())
	if err != nil && (found != nil || added.State != endpoint.Ready) {
		return nil, err
	}
	return added, found // what failed of others is theirs, and tried again
}

// RemoveEndpoint forgets an endpoint; nothing reaches it any more.
func (e *Engine) RemoveEndpoint(ctx context.Context, key string) error {
	_, err := e.change(ctx, func() error {
		if e.endpoints[key] == nil {
			return fmt.Errorf("endpoint %s %w", key, ErrNotFound)
		}
		delete(e.endpoints, key)
		return nil
	})
	if closedByProxy(err) {
		return nil
	}
	return err
}

// GetEndpoint returns a copy.
func (e *Engine) GetEndpoint(key string) (*endpoint.Endpoint, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ep := e.endpoints[key]
	if ep == nil {
		return nil, fmt.Errorf("endpoint %s %w", key, ErrNotFound)
	}
	return ep.Clone(), nil
}

// Endpoints returns copies, sorted by name.
func (e *Engine) Endpoints() []*endpoint.Endpoint {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := make([]*endpoint.Endpoint, 0, len(e.endpoints))
	for _, key := range sortedKeys(e.endpoints) {
		out = append(out, e.endpoints[key].Clone())
	}
	return out
}

// LabelEndpoint changes labels, and with them the endpoint's identity.
func (e *Engine) LabelEndpoint(ctx context.Context, key string, set map[string]string, remove []string) (*endpoint.Endpoint, error) {
	_, err := e.change(ctx, func() error {
		old := e.endpoints[key]
		if old == nil {
			return fmt.Errorf("endpoint %s %w", key, ErrNotFound)
		}
		ep := old.Clone()
		ep.Labels = relabel(ep.Labels, set, remove)
		if _, err := e.labelsOf(ep); err != nil {
			return err
		}
		e.endpoints[key] = ep
		return nil
	})
	if err != nil && !closedByProxy(err) {
		return nil, err
	}
	return e.GetEndpoint(key)
}

// LabelNamespace changes a namespace's labels, and with them the identities of
// its endpoints.
func (e *Engine) LabelNamespace(ctx context.Context, ns string, set map[string]string, remove []string) (map[string]string, error) {
	var labels map[string]string
	_, err := e.change(ctx, func() error {
		old := e.namespaces[ns]
		labels = relabel(old, set, remove)
		if _, err := policy.EndpointLabels(ns, "", e.cfg.Cluster, labels, nil); err != nil {
			return fmt.Errorf("namespace %s: %w", ns, err)
		}
		e.namespaces[ns] = labels
		return nil
	})
	if closedByProxy(err) {
		err = nil
	}
	return labels, err
}

func relabel(labels, set map[string]string, remove []string) map[string]string {
	out := map[string]string{}
	maps.Copy(out, labels)
	maps.Copy(out, set)
	for _, k := range remove {
		delete(out, k)
	}
	return out
}

// Enforced reports in which directions policy is on for an endpoint: what no rule
// allows is denied.
func (e *Engine) Enforced(ep *endpoint.Endpoint) (ingress, egress bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	cur := e.endpoints[ep.Key()]
	if cur == nil {
		return true, true
	}
	table := e.subjectOf(cur).table
	in, inFound := table[policy.Key{Direction: policy.Ingress}]
	out, outFound := table[policy.Key{Direction: policy.Egress}]
	return !inFound || in.Verdict == policy.Deny, !outFound || out.Verdict == policy.Deny
}

// IdentityInfo is an identity in use, for listings.
type IdentityInfo struct {
	policy.IdentityInfo
	Endpoints int
}

// IdentityList returns every identity, sorted by number.
func (e *Engine) IdentityList() []IdentityInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	users := map[policy.Identity]int{}
	for _, ep := range e.endpoints {
		users[ep.Identity]++
	}
	var out []IdentityInfo
	e.ids.Each(func(info policy.IdentityInfo) bool {
		out = append(out, IdentityInfo{info, users[info.ID]})
		return true
	})
	return out
}

// Redirects lists which ports of which endpoints go to the proxy.
func (e *Engine) Redirects() map[string][]Redirect {
	e.mu.Lock()
	defer e.mu.Unlock()
	out := map[string][]Redirect{}
	for key, ep := range e.endpoints {
		if r := e.subjectOf(ep).ports; len(r) > 0 {
			out[key] = r
		}
	}
	return out
}
