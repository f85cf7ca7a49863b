package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// Masquerade says as whom endpoints appear to other networks.
type Masquerade struct {
	On bool // by the node's address, where their own is private
	// First and Last port among which one is found for a connection whose own port
	// is taken; 0: the default.
	First, Last uint16
}

// Of the ports that no host uses for its own connections by default.
const defaultFirstPort, defaultLastPort = 1024, 29999

// Ports are First and Last, or the default.
func (m Masquerade) Ports() (first, last uint16) {
	if m.First == 0 || m.Last < m.First {
		return defaultFirstPort, defaultLastPort
	}
	return m.First, m.Last
}

// Translation is a connection that other networks know by an address of the node.
type Translation struct {
	Proto         policy.Proto
	Source        netip.AddrPort // whose it is
	Node          netip.AddrPort // what it is known as
	Remote        netip.AddrPort
	Live, Settled bool // its connection lives; its hold is out of the reach of eviction
}

// Translations calls f for each hold on a port of the node, established TCP first.
func (g *Gate) Translations(f func(Translation) bool) error {
	ct := g.Conntrack()
	var k gateNatKey
	var h gateNatHold
	for _, m := range []*ebpf.Map{g.objs.HgNatTcp1, g.objs.HgNatAny1} {
		it := m.Iterate()
		for it.Next(&k, &h) {
			t := Translation{
				Proto: policy.Proto(k.Proto), Source: netip.AddrPortFrom(fromAddr(h.Addr), h.Port),
				Node: netip.AddrPortFrom(fromAddr(k.Node), k.NodePort), Remote: netip.AddrPortFrom(fromAddr(k.Remote), k.RemotePort),
				Live: ct.holds(&k, &h, monotonic()), Settled: m == g.objs.HgNatTcp1,
			}
			if !f(t) {
				return nil
			}
		}
		if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
			return fmt.Errorf("read translated connections: %w", err)
		}
	}
	return nil
}

// holds says, as nat_holds does in the gate, whether the connection that a hold
// leads to lives and is known by it.
func (c *Conntrack) holds(k *gateNatKey, h *gateNatHold, now int64) bool {
	return c.known(netip.AddrPortFrom(fromAddr(h.Addr), h.Port), k, func(e *gateCtEntry) bool {
		return e.NatPort == k.NodePort && e.NatAddr == k.Node && int64(e.Expires) >= now
	})
}

// yielded says that the host has a connection that gave way to this hold. The hold
// stays, for it is what tells the gate to translate the host's packets.
func (c *Conntrack) yielded(k *gateNatKey, now int64) bool {
	return c.known(netip.AddrPortFrom(fromAddr(k.Node), k.NodePort), k, func(e *gateCtEntry) bool {
		return e.NatPort != 0 && int64(e.Expires) >= now
	})
}

func (c *Conntrack) known(from netip.AddrPort, k *gateNatKey, f func(*gateCtEntry) bool) bool {
	key := ctKey(from, netip.AddrPortFrom(fromAddr(k.Remote), k.RemotePort), policy.Proto(k.Proto))
	var e gateCtEntry
	if c.tcp.Lookup(&key, &e) != nil && c.any.Lookup(&key, &e) != nil && c.tcp.Lookup(&key, &e) != nil {
		return false
	}
	return f(&e)
}

// collectHolds removes what nobody's connection holds any more, of established TCP.
func (c *Conntrack) collectHolds(ctx context.Context) (int, error) {
	n := 0
	var errs error
	_, err := paced(ctx, c.nat, func(k *gateNatKey, h *gateNatHold) {
		now := monotonic()
		if c.holds(k, h, now) || c.yielded(k, now) {
			return
		}
		// It may have been taken again since it was read: look once more.
		if c.nat.Lookup(k, h) == nil && !c.holds(k, h, now) {
			errs = errors.Join(errs, ignoreMissing(c.nat.Delete(k)))
			n++
		}
	})
	return n, errors.Join(errs, err)
}

// SetUntranslated makes these the destinations that endpoints reach by their own
// address.
func (g *Gate) SetUntranslated(prefixes []netip.Prefix) error {
	want := map[gateIpcacheKey]bool{}
	var errs error
	for _, p := range prefixes {
		want[ipcacheKey(p)] = true
		errs = errors.Join(errs, g.objs.HgNatNot1.Put(ipcacheKey(p), uint32(1)))
	}
	var gone []gateIpcacheKey
	var k gateIpcacheKey
	var v uint32
	it := g.objs.HgNatNot1.Iterate()
	for it.Next(&k, &v) {
		if !want[k] {
			gone = append(gone, k)
		}
	}
	errs = errors.Join(errs, it.Err())
	for _, k := range gone {
		errs = errors.Join(errs, ignoreMissing(g.objs.HgNatNot1.Delete(k)))
	}
	if errs != nil {
		return fmt.Errorf("write what is not translated to the datapath: %w", errs)
	}
	return nil
}
