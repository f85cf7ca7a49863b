package bpf

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// Endpoint is a local workload as the gate knows it.
type Endpoint struct {
	Addr     netip.Addr
	Ifindex  int // host side of its veth
	ID       uint16
	Identity policy.Identity
	Subject  uint32 // its policy table; see Gate.SyncPolicy
	MAC      net.HardwareAddr
	Ready    bool // policy in force: it may have traffic
}

const flagReady = 1

// SetEndpoint writes an endpoint's address.
func (g *Gate) SetEndpoint(e Endpoint) error {
	v := gateEndpoint{Ifindex: uint32(e.Ifindex), Identity: uint32(e.Identity), Subject: e.Subject, Id: e.ID}
	copy(v.Mac[:], e.MAC)
	if e.Ready {
		v.Flags = flagReady
	}
	if err := g.objs.HgEndpoint1.Put(toAddr(e.Addr), v); err != nil {
		return fmt.Errorf("write endpoint %s to the datapath: %w", e.Addr, err)
	}
	return nil
}

// DeleteEndpoint forgets an address and its connections: nothing reaches it any
// more.
func (g *Gate) DeleteEndpoint(a netip.Addr) error {
	if err := ignoreMissing(g.objs.HgEndpoint1.Delete(toAddr(a))); err != nil {
		return fmt.Errorf("remove endpoint %s from the datapath: %w", a, err)
	}
	if _, err := g.Conntrack().Forget(a); err != nil {
		return fmt.Errorf("forget the connections of %s: %w", a, err)
	}
	return nil
}

// Endpoints lists what the gate knows.
func (g *Gate) Endpoints() ([]Endpoint, error) {
	var out []Endpoint
	var k gateAddr
	var v gateEndpoint
	it := g.objs.HgEndpoint1.Iterate()
	for it.Next(&k, &v) {
		out = append(out, Endpoint{
			Addr: fromAddr(k), Ifindex: int(v.Ifindex), ID: v.Id, Identity: policy.Identity(v.Identity),
			Subject: v.Subject, MAC: net.HardwareAddr(append([]byte(nil), v.Mac[:]...)), Ready: v.Flags&flagReady != 0,
		})
	}
	return out, it.Err()
}

// SetIdentity says whose a prefix is. Identity 0: nobody's, its traffic is dropped.
func (g *Gate) SetIdentity(p netip.Prefix, id policy.Identity) error {
	if err := g.objs.HgIpcache1.Put(ipcacheKey(p), gateIpcacheEntry{Identity: uint32(id)}); err != nil {
		return fmt.Errorf("write identity of %s to the datapath: %w", p, err)
	}
	return nil
}

// SetSpareIdentity is SetIdentity for prefixes that policies only allow: what is kept
// for those that they deny stays free.
func (g *Gate) SetSpareIdentity(p netip.Prefix, id policy.Identity) error {
	room := newRoom(g.objs.HgIpcache1, func() (uint64, error) {
		u, err := g.used()
		return u.Ipcache, err
	})
	if err := room.put(ipcacheKey(p), gateIpcacheEntry{Identity: uint32(id)}, false); err != nil {
		return fmt.Errorf("write identity of %s to the datapath: %w", p, err)
	}
	return nil
}

// DeleteIdentity forgets a prefix.
func (g *Gate) DeleteIdentity(p netip.Prefix) error {
	return ignoreMissing(g.objs.HgIpcache1.Delete(ipcacheKey(p)))
}

// Identities lists prefixes and whose they are.
func (g *Gate) Identities() (map[netip.Prefix]policy.Identity, error) {
	out := map[netip.Prefix]policy.Identity{}
	var k gateIpcacheKey
	var v gateIpcacheEntry
	it := g.objs.HgIpcache1.Iterate()
	for it.Next(&k, &v) {
		a, bits := netip.AddrFrom16(k.Addr), int(k.Prefixlen)
		if a.Is4In6() && bits >= 96 {
			a, bits = a.Unmap(), bits-96
		}
		out[netip.PrefixFrom(a, bits)] = policy.Identity(v.Identity)
	}
	return out, it.Err()
}

func ipcacheKey(p netip.Prefix) gateIpcacheKey {
	k := gateIpcacheKey{Prefixlen: uint32(p.Bits()), Addr: p.Masked().Addr().As16()}
	if p.Addr().Is4() {
		k.Prefixlen += 96
	}
	return k
}

// Route is a pair of numbered L7 sets.
type Route struct{ Egress, Ingress uint32 }

// AnyRoute is every pair of sets of one protocol.
func AnyRoute(p policy.Protocol) Route {
	n := uint32(p)<<24 | 0xffffff
	return Route{n, n}
}

// SetRoute says which proxy port serves a route. Port 0 takes it away: connections
// with that route are refused.
func (g *Gate) SetRoute(r Route, port uint16) error {
	k := gateRouteKey{Egress: r.Egress, Ingress: r.Ingress}
	if port == 0 {
		return ignoreMissing(g.objs.HgRoute1.Delete(k))
	}
	if err := g.objs.HgRoute1.Put(k, gateRoute{Port: port}); err != nil {
		return fmt.Errorf("write proxy port %d to the datapath: %w", port, err)
	}
	return nil
}

// Routes lists routes and their proxy ports.
func (g *Gate) Routes() (map[Route]uint16, error) {
	out := map[Route]uint16{}
	var k gateRouteKey
	var v gateRoute
	it := g.objs.HgRoute1.Iterate()
	for it.Next(&k, &v) {
		out[Route{k.Egress, k.Ingress}] = v.Port
	}
	return out, it.Err()
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
