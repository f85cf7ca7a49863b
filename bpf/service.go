package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// ServiceSlots is the size of a service's Maglev table, a prime.
const ServiceSlots = len(gateSvcSlots{}.Slot)

// Service is one address, port and protocol of a service, as the gate knows it.
type Service struct {
	Number   uint16 // not zero; conntrack entries carry it
	Addr     netip.AddrPort
	Proto    policy.Proto
	HostOnly bool          // for the host's own sockets
	Affinity time.Duration // how long a client stays with its backend; 0: as it comes
	Backends map[uint32]netip.AddrPort
	Slots    []uint32 // numbers of backends, ServiceSlots of them; none: no backend
}

// Flags of a front, as in src/lib/service.h.
const (
	svcWhole = 1
	svcHost  = 2
)

// SetServiceAddress makes an address one that services have: what is sent to it
// is looked up among them. Whole: all of it is theirs, and other ports are refused.
func (g *Gate) SetServiceAddress(a netip.Addr, whole bool) error {
	v := gateSvcFront{}
	if whole {
		v.Flags = svcWhole
	}
	if err := g.objs.HgSvcFront1.Put(gateSvcKey{Addr: toAddr(a)}, v); err != nil {
		return fmt.Errorf("write service address %s to the datapath: %w", a, err)
	}
	return nil
}

// DeleteServiceAddress undoes SetServiceAddress.
func (g *Gate) DeleteServiceAddress(a netip.Addr) error {
	return ignoreMissing(g.objs.HgSvcFront1.Delete(gateSvcKey{Addr: toAddr(a)}))
}

// SetService writes a service. Backends that it had before stay until
// DeleteServiceBackend; from here on no new connection goes to those that are in no
// slot.
func (g *Gate) SetService(s Service) error {
	if len(s.Slots) != 0 && len(s.Slots) != ServiceSlots {
		return fmt.Errorf("write service %s to the datapath: a table of %d slots, want %d", s.Addr, len(s.Slots), ServiceSlots)
	}
	number, key := uint32(s.Number), svcKey(s)
	front := gateSvcFront{Number: number, Affinity: uint32(s.Affinity / time.Second)}
	if s.HostOnly {
		front.Flags = svcHost
	}
	slots := gateSvcSlots{Count: uint32(len(s.Backends))}
	copy(slots.Slot[:], s.Slots)
	err := g.objs.HgSvcRev1.Put(number, key)
	for n, b := range s.Backends {
		back := gateSvcBack{Addr: toAddr(b.Addr()), Port: b.Port(), Front: number}
		err = errors.Join(err, g.objs.HgSvcBack1.Put(n, back))
	}
	if err == nil {
		err = g.objs.HgSvcSlots1.Put(number, &slots)
	}
	if err == nil {
		err = g.objs.HgSvcFront1.Put(key, front)
	}
	if err != nil {
		return fmt.Errorf("write service %s to the datapath: %w", s.Addr, err)
	}
	return nil
}

// DeleteServiceBackend forgets a backend that is in no slot any more. Connections
// that it has go on.
func (g *Gate) DeleteServiceBackend(number uint32) error {
	return ignoreMissing(g.objs.HgSvcBack1.Delete(number))
}

// DeleteService forgets a service with its backends, and cuts its connections.
func (g *Gate) DeleteService(s Service) error {
	number := uint32(s.Number)
	err := errors.Join(ignoreMissing(g.objs.HgSvcFront1.Delete(svcKey(s))), ignoreMissing(g.objs.HgSvcSlots1.Delete(number)))
	for n := range s.Backends {
		err = errors.Join(err, g.DeleteServiceBackend(n))
	}
	if err == nil {
		_, err = g.CutService(s.Number, netip.AddrPort{})
	}
	if err == nil {
		err = ignoreMissing(g.objs.HgSvcRev1.Delete(number))
	}
	if err != nil {
		return fmt.Errorf("remove service %s from the datapath: %w", s.Addr, err)
	}
	return nil
}

// CutService forgets the connections that the gate translates for a service, to one
// backend or to all, and says how many: nothing of them passes any more.
func (g *Gate) CutService(number uint16, backend netip.AddrPort) (int, error) {
	n := 0
	var errs error
	for _, m := range []*ebpf.Map{g.objs.HgSvcNat1, g.objs.HgSvcNew1} {
		for range forgetPasses {
			found, err := translations(m, func(k *gateSvcNatKey, v *gateSvcNat) bool {
				to := netip.AddrPortFrom(fromAddr(v.Addr), v.Port)
				return k.Front == uint32(number) && (!backend.IsValid() || backend == to)
			})
			for k, v := range found {
				ct := ctKeyOf(&k, &v)
				errs = errors.Join(errs, g.forget(&ct),
					ignoreMissing(m.Delete(&k)))
			}
			n += len(found)
			if !errors.Is(err, ebpf.ErrIterationAborted) {
				errs = errors.Join(errs, err)
				break
			}
		}
	}
	return n, errs
}

// forget removes a connection and gives back what it took of its workload's share.
func (g *Gate) forget(k *gateCtKey) error {
	c := g.Conntrack()
	_, established := c.take(c.tcp, k)
	_, opening := c.take(c.any, k)
	return errors.Join(established, opening)
}

func translations(m *ebpf.Map, pick func(*gateSvcNatKey, *gateSvcNat) bool) (map[gateSvcNatKey]gateSvcNat, error) {
	found := map[gateSvcNatKey]gateSvcNat{}
	var k gateSvcNatKey
	var v gateSvcNat
	it := m.Iterate()
	for it.Next(&k, &v) {
		if pick(&k, &v) {
			found[k] = v
		}
	}
	return found, it.Err()
}

// As whom a workload meets itself, where a service leads it to itself, as in src/lib/itself.h.
var itself4, itself6 = netip.AddrFrom4([4]byte{169, 254, 42, 1}), netip.AddrFrom16([16]byte{0: 1, 12: 169, 13: 254, 14: 42, 15: 1})

// ctKeyOf is the connection that a translation is for.
func ctKeyOf(k *gateSvcNatKey, v *gateSvcNat) gateCtKey {
	client := fromAddr(k.Client)
	if k.Client == v.Addr {
		if client = itself6; fromAddr(v.Addr).Is4() {
			client = itself4
		}
	}
	return ctKey(netip.AddrPortFrom(client, k.Port), netip.AddrPortFrom(fromAddr(v.Addr), v.Port), policy.Proto(v.Proto))
}

// Services lists what is in the gate: services, and the addresses that are looked
// up, with whether all of them is a service's.
func (g *Gate) Services() ([]Service, map[netip.Addr]bool, error) {
	byNumber := map[uint32]*Service{}
	addrs := map[netip.Addr]bool{}
	var key gateSvcKey
	var front gateSvcFront
	it := g.objs.HgSvcFront1.Iterate()
	for it.Next(&key, &front) {
		if front.Number == 0 {
			addrs[fromAddr(key.Addr)] = front.Flags&svcWhole != 0
			continue
		}
		byNumber[front.Number] = &Service{
			Number: uint16(front.Number), Addr: netip.AddrPortFrom(fromAddr(key.Addr), key.Port), Proto: policy.Proto(key.Proto),
			HostOnly: front.Flags&svcHost != 0, Affinity: time.Duration(front.Affinity) * time.Second, Backends: map[uint32]netip.AddrPort{},
		}
	}
	err := it.Err()
	var number uint32
	var back gateSvcBack
	it = g.objs.HgSvcBack1.Iterate()
	for it.Next(&number, &back) {
		if s := byNumber[back.Front]; s != nil {
			s.Backends[number] = netip.AddrPortFrom(fromAddr(back.Addr), back.Port)
		}
	}
	err = errors.Join(err, it.Err())
	var out []Service
	for n, s := range byNumber {
		var slots gateSvcSlots
		if e := g.objs.HgSvcSlots1.Lookup(n, &slots); e == nil && slots.Count > 0 {
			s.Slots = append(s.Slots, slots.Slot[:]...)
		}
		out = append(out, *s)
	}
	return out, addrs, err
}

// ServiceOf is what clients call the service of that number.
func (g *Gate) ServiceOf(number uint16) (netip.AddrPort, policy.Proto, bool) {
	var k gateSvcKey
	if number == 0 || g.objs.HgSvcRev1.Lookup(uint32(number), &k) != nil {
		return netip.AddrPort{}, 0, false
	}
	return netip.AddrPortFrom(fromAddr(k.Addr), k.Port), policy.Proto(k.Proto), true
}

// SocketAsked is what a socket had asked for that was given this backend.
func (g *Gate) SocketAsked(cookie uint64, backend netip.AddrPort, proto policy.Proto) (netip.AddrPort, bool) {
	k := gateSvcSockKey{Cookie: cookie, Addr: toAddr(backend.Addr()), Port: backend.Port(), Proto: uint8(proto)}
	var asked gateSvcKey
	if g.objs.HgSvcSock1.Lookup(&k, &asked) != nil {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(fromAddr(asked.Addr), asked.Port), true
}

func svcKey(s Service) gateSvcKey {
	return gateSvcKey{Addr: toAddr(s.Addr.Addr()), Port: s.Addr.Port(), Proto: uint8(s.Proto)}
}

// collectServices removes translations of connections that are no more, and says
// how many. Those that can be evicted are left to it.
func (c *Conntrack) collectServices(ctx context.Context) (int, error) {
	if c.services == nil {
		return 0, nil
	}
	gone := func(k *gateSvcNatKey, v *gateSvcNat) bool {
		var e gateCtEntry
		key := ctKeyOf(k, v)
		found := c.tcp.Lookup(&key, &e) == nil || c.any.Lookup(&key, &e) == nil
		return !found || int64(e.Expires) < monotonic() || uint32(e.RevNat) != k.Front
	}
	n := 0
	var errs error
	_, err := paced(ctx, c.services, func(k *gateSvcNatKey, v *gateSvcNat) {
		// It may have been opened again since it was read.
		if gone(k, v) && c.services.Lookup(k, v) == nil && gone(k, v) {
			errs = errors.Join(errs, ignoreMissing(c.services.Delete(k)))
			n++
		}
	})
	return n, errors.Join(errs, err)
}
