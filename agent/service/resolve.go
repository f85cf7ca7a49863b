package service

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
)

// Front is one address of a service with its backends, as the gate is to know it.
type Front struct {
	Of       string // the service's key
	HostOnly bool   // for the host's own sockets
	Affinity time.Duration
	Backends []netip.AddrPort // sorted
}

// View is what services are made of now.
type View struct {
	Endpoints []*endpoint.Endpoint
	Node      []netip.Addr // this machine's addresses
	// Usable reports whether connections may go to an endpoint's address; nil: to all.
	Usable func(netip.Addr) bool
}

// Wanted is what the gate is to know.
type Wanted struct {
	Fronts map[Address]Front
	// Addresses that services have; true: nothing else is there.
	Addresses map[netip.Addr]bool
}

// Resolve makes what the gate is to know of services.
func Resolve(services []*Service, v View) Wanted {
	w := Wanted{Fronts: map[Address]Front{}, Addresses: map[netip.Addr]bool{}}
	for _, s := range services {
		for _, a := range s.Addresses {
			f := Front{Of: s.Key(), Affinity: s.Affinity, Backends: v.backends(s, a)}
			w.Fronts[a] = f
			w.Addresses[a.Addr()] = !slices.Contains(v.Node, a.Addr())
		}
		if s.NodePort != 0 && !s.Headless {
			v.nodePorts(s, &w)
		}
	}
	return w
}

// nodePorts adds the node's own addresses, and for the host's sockets the loopback's.
func (v *View) nodePorts(s *Service, w *Wanted) {
	loopback := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	for _, p := range s.protocols() {
		for _, ip := range slices.Concat(v.Node, loopback) {
			a := Address{netip.AddrPortFrom(ip, s.NodePort), p}
			if _, taken := w.Fronts[a]; taken || !ip.IsGlobalUnicast() && !ip.IsLoopback() {
				continue
			}
			// What the node port stands for is the address with that protocol.
			as := Address{netip.AddrPortFrom(ip, s.Addresses[0].Port()), p}
			w.Fronts[a] = Front{Of: s.Key(), HostOnly: ip.IsLoopback(), Affinity: s.Affinity, Backends: v.backends(s, as)}
			if _, known := w.Addresses[ip]; !known {
				w.Addresses[ip] = false
			}
		}
	}
}

// protocols are those that the service is asked by.
func (s *Service) protocols() []policy.Proto {
	var out []policy.Proto
	for _, a := range s.Addresses {
		if !slices.Contains(out, a.Proto) {
			out = append(out, a.Proto)
		}
	}
	return out
}

// backends of a service behind one of its addresses: of the same IP version, at the
// port that is meant.
func (v *View) backends(s *Service, a Address) []netip.AddrPort {
	found := map[netip.AddrPort]bool{}
	add := func(ip netip.Addr, port uint16, ok bool) {
		if ok && ip.Is4() == a.Addr().Is4() {
			found[netip.AddrPortFrom(ip, port)] = true
		}
	}
	byKey := map[string]*endpoint.Endpoint{}
	for _, e := range v.Endpoints {
		byKey[e.Key()] = e
		if s.selects(e) {
			port, ok := s.portAt(e, "", a)
			for _, ip := range v.usable(e) {
				add(ip, port, ok)
			}
		}
	}
	for _, b := range s.Backends {
		if b.Endpoint == "" {
			port, err := strconv.ParseUint(b.Port, 10, 16)
			add(b.Addr, uint16(port), err == nil && v.allowed(b.Addr))
			continue
		}
		if e := byKey[b.Endpoint]; e != nil {
			port, ok := s.portAt(e, b.Port, a)
			for _, ip := range v.usable(e) {
				add(ip, port, ok)
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), netip.AddrPort.Compare)
}

func (v *View) usable(e *endpoint.Endpoint) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(e.IPs), func(ip netip.Addr) bool { return !v.allowed(ip) })
}

// allowed asks about addresses of endpoints; others are not known, and used.
func (v *View) allowed(ip netip.Addr) bool {
	if v.Usable == nil {
		return true
	}
	return !v.IsEndpoint(ip) || v.Usable(ip)
}

// IsEndpoint reports whether an endpoint has that address.
func (v *View) IsEndpoint(ip netip.Addr) bool {
	return slices.ContainsFunc(v.Endpoints, func(e *endpoint.Endpoint) bool { return slices.Contains(e.IPs, ip) })
}

// selects reports whether an endpoint is behind the service by its labels.
func (s *Service) selects(e *endpoint.Endpoint) bool {
	if len(s.Selector) == 0 || e.Namespace != s.Namespace {
		return false
	}
	for k, v := range s.Selector {
		if got, ok := e.Labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// portAt is the port of an endpoint that an address stands for: the backend's own,
// the service's target port, or the same.
func (s *Service) portAt(e *endpoint.Endpoint, port string, a Address) (uint16, bool) {
	if port == "" {
		port = s.TargetPort
	}
	if port == "" {
		return a.Port(), true
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		return uint16(n), true
	}
	named, ok := e.Ports[port]
	return named.Port, ok && named.Proto == a.Proto
}

// ForPolicy is what rules that name services are about, as Cilium has it: the
// workloads that a selector picks, or else the backends' addresses, which as CIDRs
// never name an endpoint.
func ForPolicy(services []*Service, v View) []policy.Service {
	var out []policy.Service
	for _, s := range services {
		p := policy.Service{Namespace: s.Namespace, Name: s.Name, Labels: s.Labels, Selector: s.Selector}
		if len(s.Selector) == 0 {
			for _, a := range v.Members(s) {
				if !v.IsEndpoint(a) {
					p.Addresses = append(p.Addresses, a)
				}
			}
			for _, a := range s.Addresses {
				for _, b := range v.backends(s, a) {
					if !slices.Contains(p.Addresses, b.Addr()) && !v.IsEndpoint(b.Addr()) {
						p.Addresses = append(p.Addresses, b.Addr())
					}
				}
			}
		}
		out = append(out, p)
	}
	return out
}
