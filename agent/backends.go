package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// BackendFactory makes one of the backends of a node.
type BackendFactory struct {
	New func(BackendConfig) (Backend, error)
	// PerRoute: it serves each route on a port of its own. Otherwise it has one port
	// for all routes of its protocols, and tells it by OnPort.
	PerRoute bool
	// MaxRoutes is how many routes it may be asked to serve so; 0: any number.
	MaxRoutes int
}

// backends are all of a node's, as one. Each has the protocols that none before it has.
type backends struct {
	all        []Backend
	byProtocol map[policy.Protocol]int
	perRoute   map[policy.Protocol]bool
	maxRoutes  int // that need a port of their own; 0: any number

	mu        sync.Mutex
	protocols map[policy.SetID]policy.Protocol // of the last snapshot
}

func newBackends(factories []BackendFactory, config func(index int) BackendConfig) (*backends, error) {
	bs := &backends{byProtocol: map[policy.Protocol]int{}, perRoute: map[policy.Protocol]bool{}}
	for i, f := range factories {
		b, err := f.New(config(i))
		if err != nil {
			return nil, err
		}
		bs.all = append(bs.all, b)
		bs.maxRoutes = max(bs.maxRoutes, f.MaxRoutes)
		for _, p := range b.Protocols() {
			if _, taken := bs.byProtocol[p]; !taken {
				bs.byProtocol[p], bs.perRoute[p] = i, f.PerRoute
			}
		}
	}
	return bs, nil
}

// of are the protocols that a backend has.
func (bs *backends) of(index int) []policy.Protocol {
	var out []policy.Protocol
	for p, i := range bs.byProtocol {
		if i == index {
			out = append(out, p)
		}
	}
	return out
}

// Protocols implements redirect.Backend.
func (bs *backends) Protocols() []policy.Protocol {
	var out []policy.Protocol
	for p := range bs.byProtocol {
		out = append(out, p)
	}
	return out
}

// Run runs all until the context ends.
func (bs *backends) Run(ctx context.Context) error {
	errs := make([]error, len(bs.all))
	var wg sync.WaitGroup
	for i, b := range bs.all {
		wg.Go(func() { errs[i] = b.Run(ctx) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// Enforce implements redirect.Backend: each gets its part, all at once.
func (bs *backends) Enforce(ctx context.Context, s redirect.Snapshot) error {
	parts := make([]redirect.Snapshot, len(bs.all))
	for i := range parts {
		parts[i] = s
		parts[i].Sets = map[policy.SetID]redirect.NumberedSet{}
	}
	protocols := make(map[policy.SetID]policy.Protocol, len(s.Sets))
	for id, n := range s.Sets {
		i, ok := bs.byProtocol[n.Number.Protocol()]
		if !ok {
			return fmt.Errorf("enforce L7 rules: no proxy understands %s", n.Number.Protocol())
		}
		parts[i].Sets[id], protocols[id] = n, n.Number.Protocol()
	}
	bs.mu.Lock()
	bs.protocols = protocols
	bs.mu.Unlock()
	errs := make([]error, len(bs.all))
	var wg sync.WaitGroup
	for i, b := range bs.all {
		wg.Go(func() { errs[i] = b.Enforce(ctx, parts[i]) })
	}
	wg.Wait()
	return joinEnforced(errs)
}

// joinEnforced makes one answer of several: which sets failed is only the answer where
// nothing worse happened.
func joinEnforced(errs []error) error {
	failed := map[redirect.SetNumber]string{}
	var worse error
	for _, err := range errs {
		if sets := (*redirect.SetsError)(nil); errors.As(err, &sets) {
			maps.Copy(failed, sets.Failed)
		} else {
			worse = errors.Join(worse, err)
		}
	}
	if worse == nil && len(failed) > 0 {
		return &redirect.SetsError{Failed: failed}
	}
	return worse
}

// Serve implements redirect.Backend.
func (bs *backends) Serve(ctx context.Context, r redirect.Route) (redirect.ProxyPort, error) {
	bs.mu.Lock()
	p, ok := bs.protocols[r.Egress]
	if !ok {
		p, ok = bs.protocols[r.Ingress]
	}
	bs.mu.Unlock()
	if !ok {
		return 0, errors.New("serve route: its sets are not in force")
	}
	return bs.all[bs.byProtocol[p]].Serve(ctx, r)
}

// Status implements redirect.Backend: that of the first that is not well, or else of the
// first.
func (bs *backends) Status() redirect.Status {
	first := bs.all[0].Status()
	for i, b := range bs.all {
		if s := b.Status(); s.State != "ready" && len(bs.of(i)) > 0 {
			s.Detail = s.Name + ": " + s.Detail
			return s
		}
	}
	return first
}

// discovery is that of the first that hands out what it enforces by xDS; nil: none does.
func (bs *backends) discovery() func(string) (redirect.Discovery, error) {
	for _, b := range bs.all {
		if d, ok := b.(redirect.Discoverer); ok {
			return d.Discovery
		}
	}
	return nil
}

// measureBackends adds what proxies count themselves to the metrics.
func (a *Agent) measureBackends() error {
	for _, b := range a.backend.all {
		if m, ok := b.(interface{ Metrics() prometheus.Collector }); ok {
			if err := a.seeing.registry.Register(m.Metrics()); err != nil {
				return fmt.Errorf("register metrics of a proxy: %w", err)
			}
		}
	}
	return nil
}

// Guide implements redirect.Guide.
func (bs *backends) Guide(services []redirect.LookedUp) error {
	var errs error
	for _, b := range bs.all {
		if g, ok := b.(redirect.Guide); ok {
			errs = errors.Join(errs, g.Guide(services))
		}
	}
	return errs
}
