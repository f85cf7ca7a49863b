package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Device is one of the node's own devices, by which other networks are reached.
type Device struct {
	Ifindex int
	V4, V6  netip.Addr // the node's address there; the zero Addr: none
}

// AttachDevice puts the gate on one of the node's own devices, in place of an
// earlier one. There is no moment without.
func (g *Gate) AttachDevice(ifindex int) error {
	if err := attach(ifindex, ebpf.AttachTCXIngress, g.objs.HgFromNetwork); err != nil {
		return err
	}
	return attach(ifindex, ebpf.AttachTCXEgress, g.objs.HgToNetwork)
}

// AttachedDevice reports whether the gate is on an interface as on one of the
// node's own devices.
func AttachedDevice(ifindex int) (bool, error) {
	found := false
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		progs, err := ours(ifindex, at)
		for _, p := range progs {
			if info, err := p.Info(); err == nil && (info.Name == gateProgHgFromNetwork || info.Name == gateProgHgToNetwork) {
				found = true
			}
		}
		closeAll(progs)
		if err != nil {
			return false, err
		}
	}
	return found, nil
}

// SetDevice tells the gate of a device that it is attached to.
func (g *Gate) SetDevice(d Device) error {
	v := gateDevice{V4: toAddr(d.V4), V6: toAddr(d.V6)}
	if err := g.objs.HgDevice1.Put(uint32(d.Ifindex), v); err != nil {
		return fmt.Errorf("write device %d to the datapath: %w", d.Ifindex, err)
	}
	return nil
}

// DeleteDevice forgets a device: nothing of an endpoint leaves by it.
func (g *Gate) DeleteDevice(ifindex int) error {
	if err := ignoreMissing(g.objs.HgDevice1.Delete(uint32(ifindex))); err != nil {
		return fmt.Errorf("remove device %d from the datapath: %w", ifindex, err)
	}
	return nil
}

// Devices lists what the gate knows.
func (g *Gate) Devices() ([]Device, error) {
	var out []Device
	var k uint32
	var v gateDevice
	it := g.objs.HgDevice1.Iterate()
	for it.Next(&k, &v) {
		d := Device{Ifindex: int(k)}
		if v.V4 != (gateAddr{}) {
			d.V4 = fromAddr(v.V4)
		}
		if v.V6 != (gateAddr{}) {
			d.V6 = fromAddr(v.V6)
		}
		out = append(out, d)
	}
	return out, it.Err()
}

// NodeAddresses lists what the gate takes for this machine's own.
func (g *Gate) NodeAddresses() ([]netip.Addr, error) {
	var out []netip.Addr
	var k gateAddr
	var v uint32
	it := g.objs.HgNode1.Iterate()
	for it.Next(&k, &v) {
		out = append(out, fromAddr(k))
	}
	return out, it.Err()
}

// SetNodeAddresses makes the node's addresses these.
func (g *Gate) SetNodeAddresses(addrs []netip.Addr) error {
	want := map[gateAddr]bool{}
	var errs error
	for _, a := range addrs {
		want[toAddr(a)] = true
		errs = errors.Join(errs, g.objs.HgNode1.Put(toAddr(a), uint32(1)))
	}
	var gone []gateAddr
	var k gateAddr
	var v uint32
	it := g.objs.HgNode1.Iterate()
	for it.Next(&k, &v) {
		if !want[k] {
			gone = append(gone, k)
		}
	}
	errs = errors.Join(errs, it.Err())
	for _, k := range gone {
		errs = errors.Join(errs, ignoreMissing(g.objs.HgNode1.Delete(k)))
	}
	if errs != nil {
		return fmt.Errorf("write the node's addresses to the datapath: %w", errs)
	}
	return nil
}
