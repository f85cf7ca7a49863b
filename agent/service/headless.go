package service

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Port is one that has a name, by which SRV records tell of it: http=8080/TCP. Of a
// service with addresses it is a port of these, of one without a port of what is behind
// it, by number or by what endpoints call it.
type Port struct {
	Name  string
	Port  string
	Proto policy.Proto
}

// ParsePort reads NAME=PORT/PROTOCOL; without a protocol it is TCP.
func ParsePort(s string) (Port, error) {
	name, rest, _ := strings.Cut(s, "=")
	port, proto, found := strings.Cut(rest, "/")
	if !found {
		proto = "TCP"
	}
	p := Port{strings.ToLower(name), port, protos()[strings.ToUpper(proto)]}
	if !policy.IsPortName(p.Name) || !isPort(p.Port) || p.Proto == 0 {
		return Port{}, fmt.Errorf("%q is not NAME=PORT/PROTOCOL: write, for example, http=8080/TCP", s)
	}
	return p, nil
}

func (p Port) proto() string {
	for name, proto := range protos() {
		if proto == p.Proto {
			return name
		}
	}
	return ""
}

// String writes what ParsePort reads.
func (p Port) String() string { return p.Name + "=" + p.Port + "/" + p.proto() }

// MarshalText implements encoding.TextMarshaler.
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Port) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePort(string(text))
	return err
}

// validatePorts checks the ports that have names, and what a service without an
// address cannot have.
func (s *Service) validatePorts(bad func(string, ...any)) {
	for i, p := range s.Ports {
		if slices.ContainsFunc(s.Ports[:i], func(o Port) bool { return o.Name == p.Name && o.Proto == p.Proto }) {
			bad("port %s/%s is named twice", p.Name, p.proto())
		}
		if !s.Headless && !slices.ContainsFunc(s.Addresses, p.isOf) {
			bad("none of its addresses has the port %s/%s, which --port calls %s: write the number of one", p.Port, p.proto(), p.Name)
		}
	}
	if !s.Headless {
		return
	}
	switch {
	case len(s.Addresses) > 0:
		bad("it is headless, and has no address of its own: leave --vip out, or --headless")
	case s.NodePort != 0:
		bad("it is headless, and no node port leads to it: leave --node-port out, or give it a --vip")
	case s.Affinity != 0:
		bad("it is headless: its clients choose for themselves, and stay with whom they like; leave --affinity out")
	case s.TargetPort != "":
		bad("it is headless, and has no port that another could stand for: write --port NAME=%s", s.TargetPort)
	}
}

func (p Port) isOf(a Address) bool {
	return a.Proto == p.Proto && p.Port == strconv.Itoa(int(a.Port()))
}

// member is one of those that the name of a headless service stands for.
type member struct {
	name  string // below the service's
	addrs []netip.Addr
	port  string             // its own; empty: what the service says
	of    *endpoint.Endpoint // nil: an address outside
}

func (m *member) portFor(p Port) (uint16, bool) {
	port := p.Port
	if m.port != "" {
		port = m.port
	}
	if n, err := strconv.ParseUint(port, 10, 16); err == nil {
		return uint16(n), true
	}
	if m.of == nil {
		return 0, false
	}
	named, ok := m.of.Ports[port]
	return named.Port, ok && named.Proto == p.Proto
}

// members are in the order of endpoints and backends.
func (v *View) members(s *Service) []member {
	var out []member
	byKey := map[string]*endpoint.Endpoint{}
	for _, e := range v.Endpoints {
		byKey[e.Key()] = e
		if s.selects(e) {
			out = append(out, s.member(e, ""))
		}
	}
	for _, b := range s.Backends {
		if e := byKey[b.Endpoint]; e != nil {
			out = append(out, s.member(e, b.Port))
		} else if b.Endpoint == "" {
			// Letters, digits and '-': a name that resolvers take.
			name := strings.NewReplacer(".", "-", ":", "-").Replace(b.Addr.StringExpanded())
			out = append(out, member{name: name, addrs: []netip.Addr{b.Addr}, port: b.Port})
		}
	}
	return out
}

func (s *Service) member(e *endpoint.Endpoint, port string) member {
	name := e.Name
	if e.Namespace != s.Namespace {
		name += "." + e.Namespace
	}
	return member{name: name, addrs: slices.Clone(e.IPs), port: port, of: e}
}

// Members are the addresses that a headless service's name stands for now.
func (v *View) Members(s *Service) []netip.Addr {
	var out []netip.Addr
	for _, m := range v.members(s) {
		for _, a := range m.addrs {
			if s.Headless && !slices.Contains(out, a) {
				out = append(out, a)
			}
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// Name adds what the names of services stand for to a zone: an address of its own, or
// for a headless one all that are behind it, and each of those by a name of its own.
func Name(services []*Service, v View, z *redirect.Zone) {
	for _, s := range services {
		name := s.Name + "." + s.Namespace + ".svc"
		for _, a := range s.Addresses {
			if !slices.Contains(z.Names[name], a.Addr()) {
				z.Names[name] = append(z.Names[name], a.Addr())
			}
		}
		for _, p := range s.Ports {
			if n, err := strconv.ParseUint(p.Port, 10, 16); err == nil && !s.Headless {
				z.Places[p.under(name)] = []redirect.Place{{Target: name, Port: uint16(n)}}
			}
		}
		if !s.Headless {
			continue
		}
		z.Groups[name] = v.Members(s)
		for _, m := range v.members(s) {
			own := m.name + "." + name
			z.Names[own] = append(z.Names[own], m.addrs...)
			for _, p := range s.Ports {
				if port, ok := m.portFor(p); ok {
					z.Places[p.under(name)] = append(z.Places[p.under(name)], redirect.Place{Target: own, Port: port})
				}
			}
		}
	}
}

// under is where SRV records of a port stand (RFC 2782).
func (p Port) under(name string) string {
	return "_" + p.Name + "._" + strings.ToLower(p.proto()) + "." + name
}
