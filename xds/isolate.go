package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/headgate/headgate/redirect"
)

// refusedBy reports that Envoy refused something.
func refusedBy(err error) bool {
	var refused *RefusedError
	return errors.As(err, &refused)
}

// admit puts sets in force at Envoy, of which it refused some when they were offered
// together, and finds these by halves. Until then what b.sets has of them holds.
func (b *Backend) admit(ctx context.Context, numbers []redirect.SetNumber, want map[redirect.SetNumber]*program) error {
	if len(numbers) == 0 {
		return nil
	}
	before := maps.Clone(b.sets)
	for _, n := range numbers {
		b.sets[n] = want[n]
	}
	err := b.pushRoutes(ctx)
	if !refusedBy(err) {
		return err
	}
	b.sets = before
	if len(numbers) == 1 {
		b.sets[numbers[0]] = closed()
		names := want[numbers[0]].rules
		if len(names) == 0 {
			return err
		}
		return b.admitRules(ctx, numbers[0], names, want[numbers[0]])
	}
	half := len(numbers) / 2
	if err := b.admit(ctx, numbers[:half], want); err != nil {
		return err
	}
	return b.admit(ctx, numbers[half:], want)
}

// admitRules does the same with the rules of one set. A rule that is refused allows
// nothing, or denies everything; the others hold.
func (b *Backend) admitRules(ctx context.Context, n redirect.SetNumber, names []string, want *program) error {
	if len(names) == 0 {
		return nil
	}
	before := b.sets[n]
	more, err := want.only(slices.Concat(before.kept, names))
	if err != nil {
		return err
	}
	b.sets[n] = more
	err = b.pushRoutes(ctx)
	if !refusedBy(err) {
		return err
	}
	b.sets[n] = before
	if len(names) == 1 {
		b.refuse(n, names[0], err)
		return nil
	}
	half := len(names) / 2
	if err := b.admitRules(ctx, n, names[:half], want); err != nil {
		return err
	}
	return b.admitRules(ctx, n, names[half:], want)
}

// refuse remembers what Envoy said of a rule.
func (b *Backend) refuse(n redirect.SetNumber, name string, err error) {
	var refused *RefusedError
	errors.As(err, &refused)
	said := refused.Message
	why := fmt.Sprintf("%s is left out: Envoy refused it: %s", refOf(name), said)
	b.failed[n] = why
	b.log.Error("a rule allows nothing", "rule", refOf(name), "envoy", said)
	for id, number := range b.numbers {
		if number != n {
			continue
		}
		if b.refusals[id] == nil {
			b.refusals[id] = map[string]string{}
		}
		b.refusals[id][name] = why
	}
}
