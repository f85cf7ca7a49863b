package serve

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/agent/service"
	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

// AddService implements agentv1.AgentServer.
func (s *Server) AddService(ctx context.Context, r *agentv1.Service) (*agentv1.Service, error) {
	want, err := readService(r)
	if err == nil {
		err = s.Engine.AddService(ctx, want)
	}
	if err != nil {
		return nil, grpcError(err)
	}
	return s.service(want.Key())
}

func readService(r *agentv1.Service) (*service.Service, error) {
	s := &service.Service{
		Name: r.Name, Namespace: r.Namespace, Labels: r.Labels, Selector: r.Selector, TargetPort: r.TargetPort,
		Affinity: time.Duration(r.AffinityNs), Headless: r.Headless,
	}
	if s.Namespace == "" {
		s.Namespace = policy.DefaultNamespace
	}
	if r.NodePort > 65535 {
		return nil, fmt.Errorf("%w: node port %d is above 65535", service.ErrInvalid, r.NodePort)
	}
	s.NodePort = uint16(r.NodePort)
	for _, text := range r.Addresses {
		a, err := service.ParseAddress(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", service.ErrInvalid, err)
		}
		s.Addresses = append(s.Addresses, a)
	}
	for _, text := range r.Ports {
		p, err := service.ParsePort(text)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", service.ErrInvalid, err)
		}
		s.Ports = append(s.Ports, p)
	}
	var err error
	s.Backends, err = readBackends(r.Backends, s.Namespace)
	return s, err
}

func readBackends(texts []string, namespace string) ([]service.Backend, error) {
	var out []service.Backend
	for _, text := range texts {
		b, err := service.ParseBackend(text, namespace)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", service.ErrInvalid, err)
		}
		out = append(out, b)
	}
	return out, nil
}

// DeleteService implements agentv1.AgentServer.
func (s *Server) DeleteService(ctx context.Context, r *agentv1.ServiceName) (*agentv1.DeleteServiceResponse, error) {
	if err := s.Engine.DeleteService(ctx, key(r.Namespace, r.Name)); err != nil {
		return nil, grpcError(err)
	}
	return &agentv1.DeleteServiceResponse{}, nil
}

// GetService implements agentv1.AgentServer.
func (s *Server) GetService(_ context.Context, r *agentv1.ServiceName) (*agentv1.Service, error) {
	return s.service(key(r.Namespace, r.Name))
}

// ListServices implements agentv1.AgentServer.
func (s *Server) ListServices(context.Context, *agentv1.ListServicesRequest) (*agentv1.ListServicesResponse, error) {
	out := &agentv1.ListServicesResponse{}
	for _, info := range s.Engine.ServiceInfos() {
		out.Services = append(out.Services, describeService(info))
	}
	return out, nil
}

// AddBackends implements agentv1.AgentServer.
func (s *Server) AddBackends(ctx context.Context, r *agentv1.BackendsRequest) (*agentv1.Service, error) {
	k, backends, err := readBackendsRequest(r)
	if err == nil {
		err = s.Engine.AddBackends(ctx, k, backends)
	}
	if err != nil {
		return nil, grpcError(err)
	}
	return s.service(k)
}

// RemoveBackends implements agentv1.AgentServer.
func (s *Server) RemoveBackends(ctx context.Context, r *agentv1.BackendsRequest) (*agentv1.RemoveBackendsResponse, error) {
	k, backends, err := readBackendsRequest(r)
	if err != nil {
		return nil, grpcError(err)
	}
	cut, err := s.Engine.RemoveBackends(ctx, k, backends, r.Now)
	if err != nil {
		return nil, grpcError(err)
	}
	left, err := s.service(k)
	return &agentv1.RemoveBackendsResponse{Service: left, Cut: uint32(cut)}, err
}

func readBackendsRequest(r *agentv1.BackendsRequest) (string, []service.Backend, error) {
	k := key(r.Namespace, r.Name)
	namespace, _, _ := strings.Cut(k, "/")
	backends, err := readBackends(r.Backends, namespace)
	return k, backends, err
}

func (s *Server) service(key string) (*agentv1.Service, error) {
	info, err := s.Engine.GetService(key)
	if err != nil {
		return nil, grpcError(err)
	}
	return describeService(info), nil
}

func describeService(info reconcile.ServiceInfo) *agentv1.Service {
	out := &agentv1.Service{
		Name: info.Name, Namespace: info.Namespace, Labels: info.Labels, Selector: info.Selector, TargetPort: info.TargetPort,
		NodePort: uint32(info.NodePort), AffinityNs: int64(info.Affinity), Headless: info.Headless,
	}
	for _, p := range info.Ports {
		out.Ports = append(out.Ports, p.String())
	}
	for _, m := range info.Members {
		out.Members = append(out.Members, m.String())
	}
	for _, a := range info.Addresses {
		out.Addresses = append(out.Addresses, a.String())
	}
	for _, b := range info.Backends {
		out.Backends = append(out.Backends, b.String())
	}
	for a, f := range info.Fronts {
		front := &agentv1.ServiceFront{Address: a.String(), HostOnly: f.HostOnly}
		for _, b := range f.Backends {
			front.Backends = append(front.Backends, b.String())
		}
		out.Fronts = append(out.Fronts, front)
	}
	slices.SortFunc(out.Fronts, func(a, b *agentv1.ServiceFront) int { return strings.Compare(a.Address, b.Address) })
	return out
}

// listServices shows the services as the kernel knows them, and what part of new
// connections each backend gets.
func (s *Server) listServices(string) (*agentv1.ListMapResponse, error) {
	services, _, err := s.Maps.Services()
	if err != nil {
		return nil, err
	}
	out := &agentv1.ListMapResponse{Columns: []string{"Number", "Address", "Service", "Affinity", "Backend", "Slots"}}
	names := map[string]string{}
	for _, info := range s.Engine.ServiceInfos() {
		for a := range info.Fronts {
			names[a.String()] = info.Key()
		}
	}
	for _, x := range services {
		address := service.Address{AddrPort: x.Addr, Proto: x.Proto}.String()
		add := func(backend, slots any) {
			out.Rows = append(out.Rows, row(x.Number, address, names[address], x.Affinity, backend, slots))
		}
		for n, b := range x.Backends {
			add(b, count(x.Slots, n))
		}
		if len(x.Backends) == 0 {
			add(netip.AddrPort{}, 0)
		}
	}
	sortRows(out.Rows)
	return out, nil
}

func count(slots []uint32, number uint32) int {
	n := 0
	for _, s := range slots {
		if s == number {
			n++
		}
	}
	return n
}

// serviceMaps is what listServices reads: *bpf.Gate.
type serviceMaps interface {
	Services() ([]bpf.Service, map[netip.Addr]bool, error)
}
