package reconcile

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/service"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Services is the gate's side of services: *service.Writer and *service.Sockets.
type Services interface {
	Load() error
	Sync(service.Wanted) error
	SyncNetns([]*endpoint.Endpoint) error
	Cut([]service.Address, netip.AddrPort) (int, error)
}

func (e *Engine) serviceList() []*service.Service {
	out := make([]*service.Service, 0, len(e.services))
	for _, key := range sortedKeys(e.services) {
		out = append(out, e.services[key])
	}
	return out
}

// view is what services are made of.
func (e *Engine) view(usable func(netip.Addr) bool) service.View {
	v := service.View{Usable: usable}
	for _, key := range sortedKeys(e.endpoints) {
		v.Endpoints = append(v.Endpoints, e.endpoints[key])
	}
	for p, id := range e.cfg.Fixed {
		if id == policy.IdentityHost && p.IsSingleIP() {
			v.Node = append(v.Node, p.Addr())
		}
	}
	return v
}

// serving reports whether an endpoint's address has traffic already.
func (e *Engine) serving(a netip.Addr) bool { return e.written[a].Ready }

// writeServices tells the gate of services. Before endpoints change it takes away
// what goes, afterwards it adds what came: no new connection meets a backend that is
// not there.
func (e *Engine) writeServices(usable func(netip.Addr) bool) error {
	if e.cfg.Services == nil {
		return nil
	}
	v := e.view(usable)
	wanted := service.Resolve(e.serviceList(), v)
	err := e.cfg.Services.Sync(wanted)
	if usable == nil {
		err = errors.Join(err, e.cfg.Services.SyncNetns(v.Endpoints))
		if g, ok := e.cfg.Backend.(redirect.Guide); ok {
			err = errors.Join(err, g.Guide(lookedUp(wanted, e.serviceList())))
		}
	}
	if err != nil {
		return fmt.Errorf("put services in force: %w", err)
	}
	return nil
}

// AddService adds a service and returns when it is in force.
func (e *Engine) AddService(ctx context.Context, s *service.Service) error {
	_, err := e.change(ctx, func() error {
		if e.services[s.Key()] != nil {
			return fmt.Errorf("service %s %w", s.Key(), ErrExists)
		}
		if err := errors.Join(s.Validate(e.cfg.Pools), s.Conflict(e.serviceList())); err != nil {
			return err
		}
		if err := e.knownBackends(s); err != nil {
			return err
		}
		e.services[s.Key()] = s.Clone()
		return nil
	})
	return ignoreProxy(err)
}

// knownBackends refuses a name that no endpoint has. One that goes later, and comes
// again, is a backend again. Other networks are not led to this machine itself.
func (e *Engine) knownBackends(s *service.Service) error {
	v := e.view(nil)
	for _, b := range s.Backends {
		if s.NodePort != 0 && b.Addr.IsValid() && (b.Addr.IsLoopback() || slices.Contains(v.Node, b.Addr)) {
			return fmt.Errorf("%w: backend %s is this machine itself, where no node port leads: name others, or leave the node port out", service.ErrInvalid, b)
		}
		if b.Endpoint != "" && e.endpoints[b.Endpoint] == nil {
			return fmt.Errorf("backend %s: endpoint %s %w", b, b.Endpoint, ErrNotFound)
		}
	}
	return nil
}

// DeleteService removes a service and cuts the connections that go through it.
func (e *Engine) DeleteService(ctx context.Context, key string) error {
	_, err := e.change(ctx, func() error {
		if e.services[key] == nil {
			return fmt.Errorf("service %s %w", key, ErrNotFound)
		}
		delete(e.services, key)
		return nil
	})
	return ignoreProxy(err)
}

// AddBackends gives a service more backends.
func (e *Engine) AddBackends(ctx context.Context, key string, backends []service.Backend) error {
	_, err := e.change(ctx, func() error {
		old := e.services[key]
		if old == nil {
			return fmt.Errorf("service %s %w", key, ErrNotFound)
		}
		s := old.Clone()
		s.Backends = append(s.Backends, backends...)
		others := slices.DeleteFunc(e.serviceList(), func(o *service.Service) bool { return o == old })
		if err := errors.Join(s.Validate(e.cfg.Pools), s.Conflict(others)); err != nil {
			return err
		}
		if err := e.knownBackends(s); err != nil {
			return err
		}
		e.services[key] = s
		return nil
	})
	return ignoreProxy(err)
}

// RemoveBackends takes backends from new connections. With now, those that they
// have are cut too; it says how many.
func (e *Engine) RemoveBackends(ctx context.Context, key string, backends []service.Backend, now bool) (cut int, err error) {
	var gone map[service.Address][]netip.AddrPort
	_, err = e.change(ctx, func() error {
		old := e.services[key]
		if old == nil {
			return fmt.Errorf("service %s %w", key, ErrNotFound)
		}
		s := old.Clone()
		for _, b := range backends {
			i := slices.Index(s.Backends, b)
			if i < 0 {
				return fmt.Errorf("backend %s of service %s %w", b, key, ErrNotFound)
			}
			s.Backends = slices.Delete(s.Backends, i, i+1)
		}
		gone = lost(old, s, e.view(nil))
		e.services[key] = s
		return nil
	})
	if err = ignoreProxy(err); err != nil || !now || e.cfg.Services == nil {
		return 0, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for a, all := range gone {
		for _, b := range all {
			n, failed := e.cfg.Services.Cut([]service.Address{a}, b)
			cut, err = cut+n, errors.Join(err, failed)
		}
	}
	return cut, err
}

// lost are the backends that a service had behind each address, and has no more.
func lost(before, after *service.Service, v service.View) map[service.Address][]netip.AddrPort {
	had, has := service.Resolve([]*service.Service{before}, v), service.Resolve([]*service.Service{after}, v)
	out := map[service.Address][]netip.AddrPort{}
	for a, f := range had.Fronts {
		for _, b := range f.Backends {
			if !slices.Contains(has.Fronts[a].Backends, b) {
				out[a] = append(out[a], b)
			}
		}
	}
	return out
}

// ServiceInfo is a service with what is behind it now.
type ServiceInfo struct {
	*service.Service
	Fronts  map[service.Address]service.Front
	Members []netip.Addr // of a headless one
}

// GetService returns a copy.
func (e *Engine) GetService(key string) (ServiceInfo, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.services[key]
	if s == nil {
		return ServiceInfo{}, fmt.Errorf("service %s %w", key, ErrNotFound)
	}
	return e.serviceInfo(s), nil
}

// ServiceInfos returns copies, sorted by name.
func (e *Engine) ServiceInfos() []ServiceInfo {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []ServiceInfo
	for _, s := range e.serviceList() {
		out = append(out, e.serviceInfo(s))
	}
	return out
}

func (e *Engine) serviceInfo(s *service.Service) ServiceInfo {
	v := e.view(nil)
	return ServiceInfo{s.Clone(), service.Resolve([]*service.Service{s}, v).Fronts, v.Members(s)}
}

// zone is what names stand for now.
func (e *Engine) zone() *redirect.Zone {
	if e.cfg.Names == nil {
		return nil
	}
	z := *e.cfg.Names
	z.Names, z.Groups, z.Places = map[string][]netip.Addr{}, map[string][]netip.Addr{}, map[string][]redirect.Place{}
	service.Name(e.serviceList(), e.view(nil), &z)
	for _, ep := range e.endpoints {
		z.Names[ep.Name+"."+ep.Namespace+".endpoint"] = slices.Clone(ep.IPs)
	}
	return &z
}

// ignoreProxy: what needs the proxy is in force once it is back.
func ignoreProxy(err error) error {
	if closedByProxy(err) {
		return nil
	}
	return err
}
