package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Enforce implements redirect.Backend. Listeners of a set that is in the snapshot
// no more are taken away: their ports belong to no route any longer. A rule that Envoy
// refuses is left out, which allows less, and is named by a redirect.SetsError.
func (b *Backend) Enforce(ctx context.Context, s redirect.Snapshot) error {
	if s.Audit {
		return errors.New("enforce by Envoy: it cannot be told to deny nothing yet: leave out --audit, or start the agent with --backend go")
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteSecrets(s)
	t, err := b.translate(s)
	if err != nil {
		return err
	}
	b.sets, b.numbers, b.failed = t.rules, t.numbers, t.failed
	if err := errors.Join(b.restorePorts(), b.push(ctx, b.accepted), b.dropForgotten(ctx)); err != nil {
		return fmt.Errorf("enforce revision %d by Envoy: %w", s.Revision, err)
	}
	b.accepted = maps.Clone(b.sets)
	b.statusMu.Lock()
	b.inForce = s.Revision
	b.statusMu.Unlock()
	if len(b.failed) > 0 {
		return &redirect.SetsError{Failed: maps.Clone(b.failed)}
	}
	return nil
}

// translation is a snapshot in Envoy's words.
type translation struct {
	numbers map[policy.SetID]redirect.SetNumber
	rules   map[redirect.SetNumber]*rbacv3.RBAC
	failed  map[redirect.SetNumber]string // what of these is not in force
}

// translate makes the rules of every set. What cannot be translated denies.
func (b *Backend) translate(s redirect.Snapshot) (*translation, error) {
	t := &translation{
		numbers: make(map[policy.SetID]redirect.SetNumber, len(s.Sets)),
		rules:   make(map[redirect.SetNumber]*rbacv3.RBAC, len(s.Sets)),
		failed:  map[redirect.SetNumber]string{},
	}
	for id, n := range s.Sets {
		if n.Number == 0 || n.Set == nil || n.Number.Protocol() != n.Set.Protocol {
			return nil, fmt.Errorf("take set %x: number %#x does not fit it", id, uint32(n.Number))
		}
		if t.rules[n.Number] != nil {
			return nil, fmt.Errorf("take set %x: number %#x is another set's too", id, uint32(n.Number))
		}
		rules, err := rbacOf(n.Set)
		if err != nil {
			rules, t.failed[n.Number] = denyAll(), err.Error()
		}
		for name, why := range b.refusals[id] {
			delete(rules.GetPolicies(), name)
			t.failed[n.Number] = why
		}
		t.numbers[id], t.rules[n.Number] = n.Number, rules
	}
	for id := range b.refusals {
		if _, ok := t.numbers[id]; !ok {
			delete(b.refusals, id)
		}
	}
	return t, nil
}

// push brings every route configuration up to date. What Envoy refuses is looked for
// set by set; before is what was in force.
func (b *Backend) push(ctx context.Context, before map[redirect.SetNumber]*rbacv3.RBAC) error {
	err := b.pushRoutes(ctx)
	if !refusedBy(err) {
		return err
	}
	want := b.sets
	b.sets = maps.Clone(want)
	var changed []redirect.SetNumber
	for n, rules := range want {
		if proto.Equal(rules, before[n]) {
			continue
		}
		changed = append(changed, n)
		b.sets[n] = cmp.Or(before[n], denyAll())
	}
	slices.Sort(changed)
	return b.admit(ctx, changed, want)
}

func (b *Backend) pushRoutes(ctx context.Context) error {
	update := make(map[string]types.Resource, len(b.ports))
	for p := range b.ports {
		r, err := b.routes(p)
		if err != nil {
			return err
		}
		update[p.name()] = r
	}
	return b.store.change(ctx, resource.RouteType, update)
}

// routes makes the route configuration of a pair from the sets in force. A set
// that is not among them denies.
func (b *Backend) routes(p pair) (*routev3.RouteConfiguration, error) {
	rules := func(n redirect.SetNumber) *rbacv3.RBAC {
		if n == 0 {
			return nil
		}
		if r := b.sets[n]; r != nil {
			return r
		}
		return denyAll()
	}
	return routesOf(p, rules(p.egress), rules(p.ingress))
}

// dropForgotten takes away the listeners that deny because a set of theirs is gone.
func (b *Backend) dropForgotten(ctx context.Context) error {
	var names []string
	for p := range b.ports {
		if b.knows(p.egress) && b.knows(p.ingress) {
			continue
		}
		names = append(names, p.name())
		delete(b.ports, p)
	}
	if len(names) == 0 {
		return nil
	}
	if err := b.store.put(resource.ListenerType, nil, names...); err != nil {
		return err
	}
	err := b.store.settle(ctx, resource.ListenerType, names...)
	return errors.Join(err, b.store.put(resource.RouteType, nil, names...), b.savePorts())
}

func (b *Backend) knows(n redirect.SetNumber) bool { return n == 0 || b.sets[n] != nil }
