package reconcile

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	"github.com/headgate/headgate/policy"
)

// Change says what became of a policy: created, configured, unchanged, deleted.
type Change struct{ Kind, Name, What string }

// ApplyPolicies adds or replaces policies, all of them or none.
func (e *Engine) ApplyPolicies(ctx context.Context, ps []policy.Policy) (uint64, []Change, error) {
	var changes []Change
	revision, err := e.changePolicies(ctx, func() error {
		seen := map[string]string{}
		for _, p := range ps {
			if where, twice := seen[p.Key()]; twice {
				return fmt.Errorf("%s %s stands in %s and in %s: leave one", p.Kind, p.FullName(), where, p.Origin)
			}
			seen[p.Key()] = p.Origin
		}
		for _, p := range ps {
			changes = append(changes, e.putPolicy(p))
		}
		return nil
	})
	return revision, changes, err
}

func (e *Engine) putPolicy(p policy.Policy) Change {
	old := e.policies[p.Key()]
	c := Change{Kind: p.Kind, Name: p.FullName(), What: "created"}
	if old != nil {
		c.What = "configured"
		if bytes.Equal(bytes.TrimSpace(old.Source), bytes.TrimSpace(p.Source)) {
			c.What = "unchanged"
			return c
		}
	}
	e.policies[p.Key()] = &Policy{Policy: p, Revision: e.revision + 1}
	return c
}

// OriginDir starts the origin of policies that a watched directory holds.
const OriginDir = "policy-dir:"

// DeletableByHand refuses what the policy directory would bring back.
func (e *Engine) DeletableByHand(keys []string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range keys {
		if p := e.policies[key]; p != nil && strings.HasPrefix(p.Origin, OriginDir) {
			return fmt.Errorf("policy %s is held by %s: remove it there", key, strings.TrimPrefix(p.Origin, OriginDir))
		}
	}
	return nil
}

// DeletePolicies removes policies by key, all of them or none.
func (e *Engine) DeletePolicies(ctx context.Context, keys []string) (uint64, []Change, error) {
	var changes []Change
	revision, err := e.changePolicies(ctx, func() error {
		for _, key := range keys {
			if e.policies[key] == nil {
				return fmt.Errorf("policy %s %w", key, ErrNotFound)
			}
		}
		for _, key := range keys {
			if p := e.policies[key]; p != nil {
				changes = append(changes, Change{Kind: p.Kind, Name: p.FullName(), What: "deleted"})
				delete(e.policies, key)
			}
		}
		return nil
	})
	return revision, changes, err
}

// ReplaceOrigin makes the policies of one origin (a watched directory) exactly ps.
// If they are that already, nothing happens.
func (e *Engine) ReplaceOrigin(ctx context.Context, owned func(*Policy) bool, ps []policy.Policy) error {
	keep := map[string]*policy.Policy{}
	for i := range ps {
		keep[ps[i].Key()] = &ps[i]
	}
	if e.sameOrigin(owned, keep) {
		return nil
	}
	_, err := e.changePolicies(ctx, func() error {
		for i := range ps {
			e.putPolicy(ps[i])
		}
		for key, p := range e.policies {
			if owned(p) && keep[key] == nil {
				delete(e.policies, key)
			}
		}
		return nil
	})
	return err
}

func (e *Engine) sameOrigin(owned func(*Policy) bool, want map[string]*policy.Policy) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, w := range want {
		if p := e.policies[key]; p == nil || !bytes.Equal(bytes.TrimSpace(w.Source), bytes.TrimSpace(p.Source)) {
			return false
		}
	}
	for key, p := range e.policies {
		if owned(p) && want[key] == nil {
			return false
		}
	}
	return true
}

// Policies returns every policy, sorted by key, and the endpoints each selects.
func (e *Engine) Policies() ([]*Policy, map[string][]string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []*Policy
	selected := map[string][]string{}
	for _, key := range sortedKeys(e.policies) {
		p := e.policies[key]
		out = append(out, p)
		for _, name := range sortedKeys(e.endpoints) {
			if info, ok := e.ids.Get(e.endpoints[name].Identity); ok && selects(p.Rules, info.Labels) {
				selected[key] = append(selected[key], name)
			}
		}
	}
	return out, selected
}

func selects(rules []policy.Rule, labels policy.Labels) bool {
	for _, r := range rules {
		if !r.Node && r.Subject.Matches(labels) {
			return true
		}
	}
	return false
}
