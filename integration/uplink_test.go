package integration

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// outside is another network: a machine to which the node has an uplink, with
// addresses of its own farther away. It is the node's router, and knows the way
// back to the endpoints' addresses.
type outside struct{ *namespace }

// uplinkName is the node's device.
const uplinkName = "up0"

// nodeAddr is what the node is called on its uplink.
func nodeAddr(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.MustParseAddr("2001:db8:5::2")
	}
	return netip.MustParseAddr("192.0.2.2")
}

// routerAddr is the outside's at the other end of it.
func routerAddr(v ipVersion) netip.Addr { return nodeAddr(v).Prev() }

// farAddr is an address of the outside's that is on no link.
func farAddr(v ipVersion) netip.Addr {
	if v == 6 {
		return netip.MustParseAddr("2001:db8:ffff::7")
	}
	return netip.MustParseAddr("198.51.100.7")
}

func (o *outside) at(v ipVersion, port int) netip.AddrPort {
	return netip.AddrPortFrom(farAddr(v), uint16(port))
}

// uplink gives the node a device and another network behind it, and waits until the
// agent serves it.
func (n *node) uplink(t *testing.T) *outside {
	t.Helper()
	o := &outside{newNamespace(t)}
	err := n.do(func() error { return linkTo(o.namespace, uplinkName, "down0") })
	if err != nil {
		t.Fatal("add an uplink:", err)
	}
	n.links = append(n.links, uplinkName)
	if err := errors.Join(o.do(setUpOutside), n.do(setUpUplink)); err != nil {
		t.Fatal("set up the uplink:", err)
	}
	eventually(t, patience, "the uplink served", func() error {
		log, err := os.ReadFile(n.agentLog())
		if want := "ipv4=" + nodeAddr(4).String() + " ipv6=" + nodeAddr(6).String(); err == nil && !strings.Contains(string(log), want) {
			err = fmt.Errorf("the agent's log has no %q", want)
		}
		return err
	})
	return o
}

// linkTo makes a link from here to another namespace.
func linkTo(there *namespace, name, peer string) error {
	ns, err := os.Open(there.path)
	if err != nil {
		return err
	}
	defer ns.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(int(ns.Fd()))})
}

func setUpOutside() error {
	down, err := upWith("down0", routerAddr(4), routerAddr(6))
	if err != nil {
		return err
	}
	lo, err := netlink.LinkByName("lo")
	for _, v := range []ipVersion{4, 6} {
		err = errors.Join(err, netlink.AddrAdd(lo, &netlink.Addr{IPNet: single(farAddr(v)), Flags: unix.IFA_F_NODAD}))
		back := &net.IPNet{IP: gateway(v).AsSlice(), Mask: net.CIDRMask(64, 128)}
		if v == 4 {
			back.Mask = net.CIDRMask(16, 32)
		}
		back.IP = back.IP.Mask(back.Mask)
		err = errors.Join(err, netlink.RouteAdd(&netlink.Route{LinkIndex: down.Attrs().Index, Dst: back, Gw: nodeAddr(v).AsSlice()}))
	}
	return err
}

func setUpUplink() error {
	up, err := upWith(uplinkName, nodeAddr(4), nodeAddr(6))
	for _, v := range []ipVersion{4, 6} {
		if err == nil {
			err = netlink.RouteAdd(&netlink.Route{LinkIndex: up.Attrs().Index, Dst: anywhere(v), Gw: routerAddr(v).AsSlice()})
		}
	}
	return err
}

func anywhere(v ipVersion) *net.IPNet {
	bits := gateway(v).BitLen()
	return &net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
}

// upWith brings a device up with addresses, each with its link's prefix.
func upWith(name string, addrs ...netip.Addr) (netlink.Link, error) {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	for _, a := range addrs {
		bits := 24
		if a.Is6() {
			bits = 64
		}
		on := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}
		err = errors.Join(err, netlink.AddrAdd(link, &netlink.Addr{IPNet: on, Flags: unix.IFA_F_NODAD}))
	}
	return link, errors.Join(err, netlink.LinkSetUp(link))
}
