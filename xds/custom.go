package xds

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// custom is what policies tell Envoy themselves: listeners, with what they lead to. Names
// of these resources have slashes, which ours have not. A listener is served under the
// name of its route, as ours are, when a policy refers to it.
type custom struct {
	listeners map[redirect.SetNumber]*policy.Listener // by the set that stands for one
	configs   map[string]*policy.EnvoyConfig
	served    map[resourceKey]bool
	// refused are configs that Envoy did not take, with its words: not offered again.
	refused map[string]refusedConfig
	routes  map[pair][]string // route configurations that a listener asks for
}

type refusedConfig struct {
	config *policy.EnvoyConfig
	err    error
}

func newCustom() *custom {
	return &custom{
		listeners: map[redirect.SetNumber]*policy.Listener{}, configs: map[string]*policy.EnvoyConfig{}, served: map[resourceKey]bool{},
		refused: map[string]refusedConfig{}, routes: map[pair][]string{},
	}
}

func (p pair) custom() bool { return p.egress.Protocol() == policy.ProtocolListener }

func (c *custom) routesOf(p pair) []string { return c.routes[p] }

// configTypes are in the order in which Envoy must find them: it takes no cluster before
// it has the cluster's endpoints.
func configTypes() []string {
	return []string{resource.EndpointType, resource.RouteType, resource.ClusterType}
}

// takeConfigs hands Envoy what listeners of policies lead to. A config that it refuses is
// left as it was, and the sets that need it fail.
func (b *Backend) takeConfigs(ctx context.Context, s redirect.Snapshot) error {
	clear(b.custom.listeners)
	for _, n := range s.Sets {
		if n.Set.Listener != nil {
			b.custom.listeners[n.Number] = n.Set.Listener
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.Configs)) {
		config := s.Configs[key]
		if r, ok := b.custom.refused[key]; ok {
			if sameConfig(r.config, config) {
				b.failListeners(key, r.err)
				continue
			}
			delete(b.custom.refused, key)
		}
		err := b.offerConfig(ctx, config)
		if refusedBy(err) {
			b.log.Error("Envoy refused a config of a policy; what it had of it before stays", "config", key, "error", err)
			b.custom.refused[key] = refusedConfig{config, err}
			b.failListeners(key, err)
			continue
		}
		if err != nil {
			return err
		}
		b.custom.configs[key] = config
	}
	return nil
}

// offerConfig gives Envoy all of a config but its listeners.
func (b *Backend) offerConfig(ctx context.Context, config *policy.EnvoyConfig) error {
	for _, typeURL := range configTypes() {
		update := map[string]types.Resource{}
		for i := range config.Resources {
			if r := &config.Resources[i]; r.Type == typeURL {
				m, err := unpack(r)
				if err != nil {
					return err
				}
				update[r.Name] = m
			}
		}
		if len(update) == 0 {
			continue
		}
		var err error
		if typeURL == resource.ClusterType && b.saved == nil { // Envoy asks for all of these
			err = b.store.change(ctx, typeURL, update)
		} else {
			err = b.store.put(typeURL, update)
		}
		if err != nil {
			return err
		}
		for name := range update {
			b.custom.served[resourceKey{typeURL, name}] = true
		}
	}
	return nil
}

func unpack(r *policy.EnvoyResource) (proto.Message, error) {
	m, err := (&anypb.Any{TypeUrl: r.Type, Value: r.Value}).UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("read %s for Envoy: %w", r.Name, err)
	}
	return m, nil
}

func sameConfig(a, b *policy.EnvoyConfig) bool {
	return slices.EqualFunc(a.Resources, b.Resources, func(x, y policy.EnvoyResource) bool {
		return x.Type == y.Type && x.Name == y.Name && string(x.Value) == string(y.Value)
	})
}

// failListeners says of the sets that stand for listeners of a config why they fail.
func (b *Backend) failListeners(key string, err error) {
	for n, l := range b.custom.listeners {
		if l.Key() == key {
			b.failed[n] = fmt.Sprintf("%s: %v", l, err)
		}
	}
}

// forgetConfigs takes away what no config has any more, once no listener leads there.
func (b *Backend) forgetConfigs(s redirect.Snapshot) error {
	keep := map[resourceKey]bool{}
	for key, config := range b.custom.configs {
		if s.Configs[key] == nil {
			delete(b.custom.configs, key)
			delete(b.custom.refused, key)
			continue
		}
		for _, r := range config.Resources {
			keep[resourceKey{r.Type, r.Name}] = true
		}
	}
	gone := map[string][]string{}
	for key := range b.custom.served {
		if !keep[key] {
			gone[key.typeURL] = append(gone[key.typeURL], key.name)
			delete(b.custom.served, key)
		}
	}
	var errs error
	for typeURL, names := range gone {
		errs = errors.Join(errs, b.store.put(typeURL, nil, names...))
	}
	return errs
}

// listenerFor makes the listener of a route.
func (b *Backend) listenerFor(p pair, port redirect.ProxyPort) (*listenerv3.Listener, error) {
	if !p.custom() {
		return b.ownListener(p, port)
	}
	l := b.custom.listeners[p.egress]
	if l == nil {
		return nil, fmt.Errorf("%w: no set stands for this listener", redirect.ErrUnservable)
	}
	written, err := b.written(l)
	if err != nil {
		return nil, err
	}
	made, routes, err := customListener(p, port, l.String(), written)
	if err != nil {
		return nil, fmt.Errorf("make listener %s: %w", l, err)
	}
	b.custom.routes[p] = routes
	return made, nil
}

// written is a listener as it is in its config.
func (b *Backend) written(l *policy.Listener) (*listenerv3.Listener, error) {
	if config := b.custom.configs[l.Key()]; config != nil {
		for i := range config.Resources {
			if r := &config.Resources[i]; r.IsListener() && r.Name == l.String() {
				m, err := unpack(r)
				if err != nil {
					return nil, err
				}
				return m.(*listenerv3.Listener), nil
			}
		}
	}
	return nil, fmt.Errorf("%w: there is no listener %s", redirect.ErrUnservable, l)
}

// customFailure says why a listener cannot be served: it is not there, or its config was
// refused before it was ever taken.
func (b *Backend) customFailure(p pair) error {
	l := b.custom.listeners[p.egress]
	if l == nil {
		return fmt.Errorf("%w: no set stands for this listener", redirect.ErrUnservable)
	}
	if r, ok := b.custom.refused[l.Key()]; ok && b.custom.configs[l.Key()] == nil {
		return fmt.Errorf("%w: %w", redirect.ErrUnservable, r.err)
	}
	_, err := b.written(l)
	return err
}

// refuseCustom remembers that Envoy did not take a listener.
func (b *Backend) refuseCustom(p pair, err error) error {
	l := b.custom.listeners[p.egress]
	key := l.Key()
	b.custom.refused[key] = refusedConfig{b.custom.configs[key], err}
	b.failed[p.egress] = fmt.Sprintf("%s: %v", l, err)
	delete(b.custom.configs, key)
	delete(b.ports, p)
	return fmt.Errorf("%w: %w", redirect.ErrUnservable, err)
}

// pushCustom brings a listener of a policy up to date. One that Envoy refuses stays as it
// was.
func (b *Backend) pushCustom(ctx context.Context, p pair, port redirect.ProxyPort) error {
	if b.custom.listeners[p.egress] == nil {
		return nil // its set is gone, and it goes with it
	}
	l, err := b.listenerFor(p, port)
	if err == nil {
		err = b.store.change(ctx, resource.ListenerType, map[string]types.Resource{p.name(): l})
	}
	if err == nil {
		err = b.store.settle(ctx, resource.RouteType, b.custom.routesOf(p)...)
	}
	if refusedBy(err) || errors.Is(err, redirect.ErrUnservable) {
		b.failed[p.egress] = strings.TrimSpace(fmt.Sprintf("%s: %v", b.custom.listeners[p.egress], err))
		return nil
	}
	return err
}
