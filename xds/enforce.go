package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Enforce implements redirect.Backend. Listeners of a set that is in the snapshot
// no more are taken away: their ports belong to no route any longer. A rule that Envoy
// refuses is left out, which allows less, and is named by a redirect.SetsError.
func (b *Backend) Enforce(ctx context.Context, s redirect.Snapshot) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.noteSecrets(s, false)
	t, err := b.translate(s)
	if err != nil {
		return err
	}
	b.sets, b.given, b.numbers, b.failed = t.rules, t.given, t.numbers, t.failed
	b.noteOwed(s)
	if err := errors.Join(b.takeConfigs(ctx, s), b.offerSecrets(s.Secrets), b.restorePorts(), b.closeRefused(ctx), b.push(ctx, b.accepted), b.pushListeners(ctx),
		b.pushSecrets(ctx), b.dropForgotten(ctx), b.forgetConfigs(s), b.forgetSecrets()); err != nil {
		return fmt.Errorf("enforce revision %d by Envoy: %w", s.Revision, err)
	}
	if err := b.endOutdated(ctx); err != nil {
		return fmt.Errorf("enforce revision %d by Envoy: %w", s.Revision, err)
	}
	if err := b.keepRules(); err != nil {
		return fmt.Errorf("enforce revision %d by Envoy: %w", s.Revision, err)
	}
	b.owed.Store(nil)
	b.noteSecrets(s, true)
	b.accepted = maps.Clone(b.sets)
	inUse := maps.Clone(b.sets)
	b.inUse.Store(&inUse)
	b.judgeUnderway()
	b.noteFailed()
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
	rules   map[redirect.SetNumber]*program
	given   map[redirect.SetNumber]*policy.L7Set
	failed  map[redirect.SetNumber]string // what of these is not in force
	made    map[policy.SetID]*program
}

// translate makes the rules of every set. What cannot be translated denies.
func (b *Backend) translate(s redirect.Snapshot) (*translation, error) {
	t := &translation{
		numbers: make(map[policy.SetID]redirect.SetNumber, len(s.Sets)),
		rules:   make(map[redirect.SetNumber]*program, len(s.Sets)),
		given:   make(map[redirect.SetNumber]*policy.L7Set, len(s.Sets)),
		failed:  map[redirect.SetNumber]string{},
		made:    make(map[policy.SetID]*program, len(s.Sets)),
	}
	for id, n := range s.Sets {
		if n.Number == 0 || n.Set == nil || n.Number.Protocol() != n.Set.Protocol {
			return nil, fmt.Errorf("take set %x: number %#x does not fit it", id, uint32(n.Number))
		}
		if t.rules[n.Number] != nil {
			return nil, fmt.Errorf("take set %x: number %#x is another set's too", id, uint32(n.Number))
		}
		t.given[n.Number] = n.Set
		if n.Set.Protocol == policy.ProtocolListener { // Envoy judges by what it is told there
			t.numbers[id], t.rules[n.Number] = n.Number, closed()
			continue
		}
		p, err := b.translated(id, n.Set, &s)
		if err != nil {
			p, t.failed[n.Number] = closed(), err.Error()
		}
		for _, why := range b.refusals[id] {
			t.failed[n.Number] = why
		}
		t.numbers[id], t.rules[n.Number], t.made[id] = n.Number, p, p
	}
	b.made = t.made
	for id := range b.refusals {
		if _, ok := t.numbers[id]; !ok {
			delete(b.refusals, id)
		}
	}
	return t, nil
}

// translated makes a set's program, or finds the one of before: equal ids are equal rules.
func (b *Backend) translated(id policy.SetID, set *policy.L7Set, s *redirect.Snapshot) (*program, error) {
	secrets := set.Secrets(s.Secrets)
	if old := b.made[id]; old != nil && old.set != nil && old.audit == s.Audit && old.left == len(b.refusals[id]) && maps.Equal(old.secrets, secrets) {
		return old, nil
	}
	p, err := programOf(set.Reveal(secrets), options{audit: s.Audit, keep: leftOut(b.refusals[id])})
	if err == nil {
		p.left, p.secrets = len(b.refusals[id]), secrets
	}
	return p, err
}

// push brings every route configuration up to date. What Envoy refuses is looked for
// set by set; before is what was in force.
func (b *Backend) push(ctx context.Context, before map[redirect.SetNumber]*program) error {
	err := b.pushRoutes(ctx)
	if !refusedBy(err) {
		return err
	}
	want := b.sets
	b.sets = maps.Clone(want)
	var changed []redirect.SetNumber
	for n, rules := range want {
		if rules.equal(before[n]) {
			continue
		}
		changed = append(changed, n)
		b.sets[n] = cmp.Or(before[n], closed())
	}
	slices.Sort(changed)
	return b.admit(ctx, changed, want)
}

func (b *Backend) pushRoutes(ctx context.Context) error {
	update := make(map[string]types.Resource, len(b.ports))
	for p := range b.ports {
		if !p.routed() {
			continue
		}
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
	rules := func(n redirect.SetNumber) *program {
		if n == 0 {
			return nil
		}
		if r := b.sets[n]; r != nil {
			return r
		}
		return closed()
	}
	c, err := routesOf(p, rules(p.egress), rules(p.ingress))
	if err != nil {
		return nil, err
	}
	return b.routesOverTLS(p, c)
}

// pushListeners brings the listeners up to date, each by itself: one that is refused takes
// no other with it. Without an Envoy all are offered, for the next one.
func (b *Backend) pushListeners(ctx context.Context) error {
	var first error
	for p, port := range b.ports {
		var err error
		switch {
		case p.custom():
			err = b.pushCustom(ctx, p, port)
		case b.knows(p.egress) && b.knows(p.ingress): // else it goes
			err = b.pushListener(ctx, p, port)
		}
		if first == nil {
			first = err
		}
	}
	return first
}

// raw: no policy that enforces has a say in what is not HTTP.
func (b *Backend) raw(p pair) bool {
	for _, n := range []redirect.SetNumber{p.egress, p.ingress} {
		if n != 0 && (b.sets[n] == nil || !b.sets[n].raw) {
			return false
		}
	}
	return true
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
		delete(b.shut, p)
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

// failing says which sets are not in force, or not whole; empty: none.
func failing(failed map[redirect.SetNumber]string) string {
	numbers := slices.Sorted(maps.Keys(failed))
	switch len(numbers) {
	case 0:
		return ""
	case 1:
		return failed[numbers[0]]
	}
	return fmt.Sprintf("%d sets are not whole, among them: %s", len(numbers), failed[numbers[0]])
}
