package xds

import (
	"context"
	"errors"
	"fmt"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/redirect"
)

// A listener that Envoy refuses would go on by the rules of before, or by none. So it closes
// what comes until it is to be another, and so do the listeners that lead to a cluster that
// Envoy refuses; both are remembered, and not offered again. All others are served.

// ownListener makes the listener of a pair by its plan, or the one that closes if Envoy has
// refused that.
func (b *Backend) ownListener(p pair, port redirect.ProxyPort) (*listenerv3.Listener, error) {
	plan := b.planned(p)
	if why := b.secrets.refusedClusters[plan.serverCluster()]; why != "" {
		b.failPair(p, why)
	}
	l, err := b.listenerBy(p, port, plan)
	if err != nil {
		return nil, err
	}
	r, ok := b.shut[p]
	if !ok || r.version != versionOf(l) {
		delete(b.shut, p)
		return l, nil
	}
	b.failPair(p, r.message)
	return b.listenerBy(p, port, b.planOf(p))
}

func (b *Backend) listenerBy(p pair, port redirect.ProxyPort, plan *tlsPlan) (*listenerv3.Listener, error) {
	if plan == nil {
		return listenerOf(p, port, b.raw(p))
	}
	var build builder
	l := build.tlsListener(p, port, plan)
	return l, errors.Join(build.check(l), b.offerCluster(plan))
}

// failPair says of the sets of a pair that nothing passes where both hold.
func (b *Backend) failPair(p pair, why string) {
	for _, n := range [2]redirect.SetNumber{p.egress, p.ingress} {
		if n != 0 && b.failed[n] == "" {
			b.failed[n] = "nothing passes at one of its ports: " + why
		}
	}
}

// pushListener brings one listener up to date.
func (b *Backend) pushListener(ctx context.Context, p pair, port redirect.ProxyPort) error {
	for again := false; ; again = true {
		l, err := b.listenerFor(p, port)
		if err != nil {
			return err
		}
		err = b.giveListener(ctx, p, l)
		var said *RefusedError
		if !errors.As(err, &said) || taken(err) {
			return err
		}
		why := "Envoy refused its listener: " + said.Message
		b.shut[p] = refusal{version: versionOf(l), message: why}
		closing, err := b.listenerFor(p, port)
		if err == nil {
			err = b.giveListener(ctx, p, closing)
		}
		sure := said.alone || again
		if err != nil || !sure {
			delete(b.shut, p) // another may be why: it is asked about by itself
		}
		if err != nil {
			return fmt.Errorf("close %s, which Envoy refused: %w", p.name(), err)
		}
		if sure {
			b.log.Error("a listener closes what comes", "listener", p.name(), "envoy", said.Message)
			return nil
		}
	}
}

// closeRefused sees to listeners that an Envoy which came anew has refused: it asks for no
// routes of theirs, for which whoever changes them would wait.
func (b *Backend) closeRefused(ctx context.Context) error {
	for p, port := range b.ports {
		if p.custom() || !b.knows(p.egress) || !b.knows(p.ingress) {
			continue
		}
		err := b.store.settle(ctx, resource.ListenerType, p.name())
		if refusedBy(err) && !taken(err) {
			err = b.pushListener(ctx, p, port)
		}
		if err != nil && !taken(err) {
			return err
		}
	}
	return nil
}

func (b *Backend) giveListener(ctx context.Context, p pair, l *listenerv3.Listener) error {
	if err := b.store.put(resource.ListenerType, map[string]types.Resource{p.name(): l}); err != nil {
		return err
	}
	return b.store.settle(ctx, resource.ListenerType, p.name())
}

// settleCluster waits until Envoy has the cluster of a plan, and says whether it refuses it.
func (b *Backend) settleCluster(ctx context.Context, plan *tlsPlan) (refused bool, err error) {
	name := plan.serverCluster()
	err = b.store.settle(ctx, resource.ClusterType, name)
	var said *RefusedError
	if errors.As(err, &said) && !said.alone {
		err = b.giveClusterAlone(ctx, plan)
	}
	if !errors.As(err, &said) {
		return false, err
	}
	b.secrets.refusedClusters[name] = fmt.Sprintf("Envoy refused the cluster %s: %s", name, said.Message)
	b.log.Error("listeners close what comes, as Envoy refused their cluster", "cluster", name, "envoy", said.Message)
	return true, b.store.put(resource.ClusterType, nil, name)
}

// giveClusterAlone asks again about a cluster that was refused together with others.
func (b *Backend) giveClusterAlone(ctx context.Context, plan *tlsPlan) error {
	name := plan.serverCluster()
	if err := b.store.put(resource.ClusterType, nil, name); err != nil {
		return err
	}
	if err := b.store.settle(ctx, resource.ClusterType, name); err != nil {
		return err
	}
	if err := b.offerCluster(plan); err != nil {
		return err
	}
	return b.store.settle(ctx, resource.ClusterType, name)
}
