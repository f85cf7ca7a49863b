package proxy

import (
	"fmt"
	"net/netip"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/redirect"
)

// zoneToProto writes what zoneFromProto reads.
func zoneToProto(z *redirect.Zone) *proxyv1.Zone {
	if z == nil {
		return nil
	}
	p := &proxyv1.Zone{Domain: z.Domain, Listen: addrsToProto(z.Listen), ResolvConf: z.ResolvConf}
	for name, addrs := range z.Names {
		p.Names = append(p.Names, &proxyv1.Name{Name: name, Addresses: addrsToProto(addrs)})
	}
	for name, addrs := range z.Groups {
		p.Groups = append(p.Groups, &proxyv1.Name{Name: name, Addresses: addrsToProto(addrs)})
	}
	for name, places := range z.Places {
		to := &proxyv1.Places{Name: name}
		for _, x := range places {
			to.Places = append(to.Places, &proxyv1.Place{Target: x.Target, Port: uint32(x.Port)})
		}
		p.Places = append(p.Places, to)
	}
	for _, c := range z.Clients {
		p.Clients = append(p.Clients, c.String())
	}
	for _, u := range z.Upstreams {
		p.Upstreams = append(p.Upstreams, u.String())
	}
	return p
}

func addrsToProto(addrs []netip.Addr) [][]byte {
	var out [][]byte
	for _, a := range addrs {
		out = append(out, a.AsSlice())
	}
	return out
}

func zoneFromProto(p *proxyv1.Zone) (*redirect.Zone, error) {
	if p == nil {
		return nil, nil
	}
	z := &redirect.Zone{
		Domain: p.Domain, ResolvConf: p.ResolvConf, Names: make(map[string][]netip.Addr, len(p.Names)),
		Groups: make(map[string][]netip.Addr, len(p.Groups)), Places: make(map[string][]redirect.Place, len(p.Places)),
	}
	var err error
	if z.Listen, err = addrsFromProto(p.Listen); err != nil {
		return nil, err
	}
	for _, n := range p.Names {
		if z.Names[n.Name], err = addrsFromProto(n.Addresses); err != nil {
			return nil, err
		}
	}
	for _, n := range p.Groups {
		if z.Groups[n.Name], err = addrsFromProto(n.Addresses); err != nil {
			return nil, err
		}
	}
	for _, n := range p.Places {
		for _, x := range n.Places {
			z.Places[n.Name] = append(z.Places[n.Name], redirect.Place{Target: x.Target, Port: uint16(x.Port)})
		}
	}
	for _, s := range p.Clients {
		c, err := netip.ParsePrefix(s)
		if err != nil {
			return nil, fmt.Errorf("read who may ask for names: %w", err)
		}
		z.Clients = append(z.Clients, c)
	}
	for _, s := range p.Upstreams {
		u, err := netip.ParseAddrPort(s)
		if err != nil {
			return nil, fmt.Errorf("read upstream name server: %w", err)
		}
		z.Upstreams = append(z.Upstreams, u)
	}
	return z, nil
}

func addrsFromProto(all [][]byte) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, b := range all {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return nil, fmt.Errorf("read a name's address: %d bytes are none", len(b))
		}
		out = append(out, a)
	}
	return out, nil
}

// namesStatus is empty when no names are given out.
func (p *process) namesStatus() string {
	switch on, err := p.names.Status(); {
	case err != nil:
		return err.Error()
	case on:
		return namesServed
	}
	return ""
}

const namesServed = "served"
