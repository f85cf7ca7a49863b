// Package service knows virtual addresses and what is behind them.
//
// A Service is what was asked for: addresses, and backends by address, by endpoint
// or by the labels of endpoints. Resolve makes of all services, and of the endpoints
// there are now, what the gate is to know; Writer brings the gate there; Sockets
// tells it in which network namespaces sockets may ask. The package decides nothing
// about policy: a connection to a service is judged as one to its backend.
package service

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/policy"
)

// ErrInvalid says that what was asked for cannot be.
var ErrInvalid = errors.New("not a valid service")

// Service is a service as it was asked for.
type Service struct {
	Name       string            `json:"name"`
	Namespace  string            `json:"namespace"`
	Labels     map[string]string `json:"labels,omitempty"`
	Addresses  []Address         `json:"addresses"`
	Headless   bool              `json:"headless,omitempty"` // no address of its own: its name stands for what is behind it
	Ports      []Port            `json:"ports,omitempty"`    // those that have names
	Backends   []Backend         `json:"backends,omitempty"`
	Selector   map[string]string `json:"selector,omitempty"` // of the endpoints behind it, instead of Backends
	TargetPort string            `json:"targetPort,omitempty"`
	NodePort   uint16            `json:"nodePort,omitempty"`
	Affinity   time.Duration     `json:"affinity,omitempty"`
}

// Key is "namespace/name".
func (s *Service) Key() string { return s.Namespace + "/" + s.Name }

// Clone returns a copy that shares nothing.
func (s *Service) Clone() *Service {
	c := *s
	c.Labels, c.Selector = maps.Clone(s.Labels), maps.Clone(s.Selector)
	c.Addresses, c.Backends, c.Ports = slices.Clone(s.Addresses), slices.Clone(s.Backends), slices.Clone(s.Ports)
	return &c
}

// Address is where clients find a service: 10.96.0.10:80/TCP.
type Address struct {
	netip.AddrPort
	Proto policy.Proto
}

func protos() map[string]policy.Proto {
	return map[string]policy.Proto{"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP}
}

// ParseAddress reads IP:PORT/PROTOCOL; without a protocol it is TCP.
func ParseAddress(s string) (Address, error) {
	end, name, found := strings.Cut(s, "/")
	if !found {
		name = "TCP"
	}
	proto, known := protos()[strings.ToUpper(name)]
	at, err := netip.ParseAddrPort(end)
	if err != nil || !known || at.Port() == 0 || at.Addr().Zone() != "" || at.Addr().Is4In6() {
		return Address{}, fmt.Errorf("%q is not IP:PORT/PROTOCOL: write, for example, 10.96.0.10:80/TCP or [fd00:96::10]:53/UDP", s)
	}
	return Address{at, proto}, nil
}

// String writes what ParseAddress reads.
func (a Address) String() string {
	for name, p := range protos() {
		if p == a.Proto {
			return a.AddrPort.String() + "/" + name
		}
	}
	return a.AddrPort.String()
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(text []byte) (err error) {
	*a, err = ParseAddress(string(text))
	return err
}

// Backend is one that was named: an address, or an endpoint.
type Backend struct {
	Addr     netip.Addr // of no endpoint
	Endpoint string     // or its name, "namespace/name"
	Port     string     // number, or what the endpoint calls it; empty: the service's target port
}

// ParseBackend reads IP:PORT or ENDPOINT[:PORT]; an endpoint without a namespace is
// in that of the service.
func ParseBackend(s, namespace string) (Backend, error) {
	if at, err := netip.ParseAddrPort(s); err == nil {
		if at.Port() == 0 || at.Addr().Zone() != "" || at.Addr().Is4In6() {
			return Backend{}, fmt.Errorf("backend %q is not IP:PORT", s)
		}
		return Backend{Addr: at.Addr(), Port: strconv.Itoa(int(at.Port()))}, nil
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return Backend{}, fmt.Errorf("backend %q has no port: write IP:PORT, with [] around an IPv6 address", s)
	}
	name, port, hasPort := strings.Cut(s, ":")
	if ns, short, full := strings.Cut(name, "/"); full {
		namespace, name = ns, short
	}
	if err := errors.Join(policy.ValidateName(name), policy.ValidateNamespace(namespace)); err != nil {
		return Backend{}, fmt.Errorf("backend %q is neither IP:PORT nor ENDPOINT[:PORT]: %w", s, err)
	}
	if hasPort && !isPort(port) {
		return Backend{}, fmt.Errorf("backend %q: %q is neither a port nor the name of one", s, port)
	}
	return Backend{Endpoint: namespace + "/" + name, Port: port}, nil
}

func isPort(s string) bool {
	if n, err := strconv.ParseUint(s, 10, 16); err == nil {
		return n > 0
	}
	return policy.IsPortName(s)
}

// String writes what ParseBackend reads.
func (b Backend) String() string {
	switch {
	case b.Endpoint == "":
		port, _ := strconv.ParseUint(b.Port, 10, 16)
		return netip.AddrPortFrom(b.Addr, uint16(port)).String()
	case b.Port == "":
		return b.Endpoint
	}
	return b.Endpoint + ":" + b.Port
}

// MarshalText implements encoding.TextMarshaler.
func (b Backend) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (b *Backend) UnmarshalText(text []byte) (err error) {
	*b, err = ParseBackend(string(text), policy.DefaultNamespace)
	return err
}

// Validate checks a service by itself. Pools are the addresses of endpoints, which
// no service may have.
func (s *Service) Validate(pools []netip.Prefix) error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := errors.Join(policy.ValidateName(s.Name), policy.ValidateNamespace(s.Namespace)); err != nil {
		errs = append(errs, err)
	} else if strings.Contains(s.Name, ".") || len(s.Name) > 63 {
		bad("%q is not the name of a service: write at most 63 letters, digits and '-', for it is one label of a DNS name", s.Name)
	}
	if len(s.Addresses) == 0 && !s.Headless {
		bad("it has no address: name one with --vip IP:PORT/PROTOCOL, or let its name stand for what is behind it with --headless")
	}
	s.validatePorts(bad)
	for i, a := range s.Addresses {
		ip := a.Addr()
		switch {
		case !ip.IsGlobalUnicast():
			bad("%s is no address that a service can have: take one that nothing else on this network has", ip)
		case slices.ContainsFunc(pools, func(p netip.Prefix) bool { return p.Contains(ip) && ip != p.Addr().Next() }):
			bad("%s is an endpoint's address: take one outside the agent's --endpoint-cidr", ip)
		case slices.Contains(s.Addresses[:i], a):
			bad("address %s is given twice", a)
		case s.NodePort != 0 && a.Port() != s.Addresses[0].Port():
			bad("one node port cannot stand for the ports %d and %d: make two services", s.Addresses[0].Port(), a.Port())
		}
	}
	if len(s.Backends) > 0 && len(s.Selector) > 0 {
		bad("it has backends and a selector: name the endpoints, or let their labels choose them")
	}
	if s.TargetPort != "" && !isPort(s.TargetPort) {
		bad("target port %q is neither a port nor the name of one", s.TargetPort)
	}
	if s.Affinity < 0 || s.Affinity > 24*time.Hour || s.Affinity%time.Second != 0 {
		bad("affinity lasts from 1 second to 86400, not %s", s.Affinity)
	}
	for i, b := range s.Backends {
		if slices.Contains(s.Backends[:i], b) {
			bad("backend %s is given twice", b)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

// Conflict says what stands in the way of adding s to others.
func (s *Service) Conflict(others []*Service) error {
	for _, o := range others {
		for _, a := range s.Addresses {
			if slices.Contains(o.Addresses, a) {
				return fmt.Errorf("%w: %s is the address of service %s", ErrInvalid, a, o.Key())
			}
		}
		if s.NodePort != 0 && s.NodePort == o.NodePort {
			return fmt.Errorf("%w: node port %d is that of service %s", ErrInvalid, s.NodePort, o.Key())
		}
	}
	for _, o := range others {
		for _, b := range o.Backends {
			if b.Addr.IsValid() && slices.ContainsFunc(s.Addresses, func(a Address) bool { return a.Addr() == b.Addr }) {
				return fmt.Errorf("%w: address %s is backend %s of service %s: name there what is behind it", ErrInvalid, b.Addr, b, o.Key())
			}
		}
	}
	for _, b := range s.Backends {
		for _, o := range append(slices.Clone(others), s) {
			if b.Addr.IsValid() && slices.ContainsFunc(o.Addresses, func(a Address) bool { return a.Addr() == b.Addr }) {
				return fmt.Errorf("%w: backend %s is the address of service %s: name what is behind it", ErrInvalid, b, o.Key())
			}
		}
	}
	return nil
}
