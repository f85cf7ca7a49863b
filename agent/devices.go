package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
)

// nodeLink is a device of this machine as the choice of devices sees it.
type nodeLink struct {
	index    int
	name     string
	kind     string // of link layer: "ether", "loopback"
	up       bool
	known    bool // to the gate already
	attached bool // the gate is on it as on a workload's
	addrs    []nodeAddr
}

type nodeAddr struct {
	ip     netip.Addr
	second bool // not for connections that begin here: secondary, temporary, deprecated
}

// chooseDevices says on which devices other networks are reached: those named, or
// each that is up and has an address that others can send to. One that was chosen
// stays while it is there, lest packets pass it by while it has no address.
func chooseDevices(links []nodeLink, names []string) ([]bpf.Device, error) {
	var out []bpf.Device
	var errs error
	for _, name := range names {
		if !slices.ContainsFunc(links, func(l nodeLink) bool { return l.name == name }) {
			errs = errors.Join(errs, fmt.Errorf("device %s is not there: nothing goes by it until it is", name))
		}
	}
	for _, l := range links {
		named := slices.Contains(names, l.name)
		switch {
		case ownDevice(l):
			if named {
				errs = errors.Join(errs, fmt.Errorf("device %s is headgate's own: it leads to no other network", l.name))
			}
			continue
		case named && l.kind != "ether":
			errs = errors.Join(errs, fmt.Errorf("device %s carries no Ethernet frames (%s), and is not served", l.name, l.kind))
			continue
		case len(names) > 0 && !named, l.kind != "ether":
			continue
		case len(names) == 0 && !l.known && (!l.up || len(l.addrs) == 0):
			continue
		}
		out = append(out, bpf.Device{Ifindex: l.index, V4: addressOf(l, links, true), V6: addressOf(l, links, false)})
	}
	return out, errs
}

func ownDevice(l nodeLink) bool {
	return l.attached || l.name == endpoint.HostDevice || strings.HasPrefix(l.name, endpoint.HostDevice+"_")
}

// addressOf is what the node is called on a device: its first address there, or one
// of the loopback device's, as nodes have whose links are unnumbered.
func addressOf(l nodeLink, links []nodeLink, v4 bool) netip.Addr {
	if a := firstAddress(l.addrs, v4); a.IsValid() {
		return a
	}
	for _, l := range links {
		if l.kind == "loopback" {
			return firstAddress(l.addrs, v4)
		}
	}
	return netip.Addr{}
}

func firstAddress(addrs []nodeAddr, v4 bool) netip.Addr {
	var second netip.Addr
	for _, a := range addrs {
		if a.ip.Is4() != v4 {
			continue
		}
		if !a.second {
			return a.ip
		}
		if !second.IsValid() {
			second = a.ip
		}
	}
	return second
}

// syncDevices puts the gate on the node's devices, and tells it of their addresses.
func (a *Agent) syncDevices(context.Context) error {
	known, err := a.gate.Devices()
	if err != nil {
		return err
	}
	links, err := nodeLinks(known)
	if err != nil {
		return err
	}
	want, errs := chooseDevices(links, a.cfg.Devices)
	var addrs []netip.Addr
	for _, l := range links {
		for _, x := range l.addrs {
			addrs = append(addrs, x.ip)
		}
	}
	errs = errors.Join(errs, a.gate.SetNodeAddresses(addrs))
	for _, d := range want {
		// The hooks first: what the gate sends by a device must meet them.
		if err := a.gate.AttachDevice(d.Ifindex); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		if !slices.Contains(known, d) {
			errs = errors.Join(errs, a.gate.SetDevice(d))
			a.log.Info("serving a device of the node", "ifindex", d.Ifindex, "ipv4", d.V4, "ipv6", d.V6)
		}
	}
	for _, d := range known {
		if slices.ContainsFunc(want, func(w bpf.Device) bool { return w.Ifindex == d.Ifindex }) {
			continue
		}
		errs = errors.Join(errs, a.gate.DeleteDevice(d.Ifindex))
		if slices.ContainsFunc(links, func(l nodeLink) bool { return l.index == d.Ifindex }) {
			errs = errors.Join(errs, bpf.Detach(d.Ifindex))
		}
	}
	return errs
}

func nodeLinks(known []bpf.Device) ([]nodeLink, error) {
	list, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list this machine's devices: %w", err)
	}
	addrs, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var out []nodeLink
	for _, l := range list {
		at := l.Attrs()
		n := nodeLink{
			index: at.Index, name: at.Name, kind: at.EncapType, up: at.Flags&net.FlagUp != 0,
			attached: endpoint.IsHostSide(l),
			known:    slices.ContainsFunc(known, func(d bpf.Device) bool { return d.Ifindex == at.Index }),
		}
		for _, x := range addrs {
			ip, ok := netip.AddrFromSlice(x.IP)
			if ip = ip.Unmap(); !ok || x.LinkIndex != at.Index || !ip.IsGlobalUnicast() {
				continue
			}
			const second = unix.IFA_F_SECONDARY | unix.IFA_F_DEPRECATED | unix.IFA_F_DADFAILED
			n.addrs = append(n.addrs, nodeAddr{ip, x.Flags&second != 0})
		}
		out = append(out, n)
	}
	return out, nil
}
