package endpoint

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// GatewayMAC is the hardware address of the host side of every veth: the gateway
// looks the same to every workload. Locally administered.
func GatewayMAC() net.HardwareAddr { return net.HardwareAddr{0x02, 0x68, 0x67, 0x00, 0x00, 0x01} }

// HostDevice is the device that has the gateway's addresses, and by which packets
// of the host enter the gate again on their way to the proxy. It is one end of a
// veth pair, which every kernel that runs workloads has; nothing is ever sent to
// the other end, hostPeer.
const (
	HostDevice = "hg_host"
	hostPeer   = "hg_host_peer"
)

// InterfacePrefix starts the names of the host's sides.
const InterfacePrefix = "hg"

// EnsureHostDevice makes the host device, with the gateways' addresses, and
// returns its index.
func EnsureHostDevice(gateways []netip.Addr) (int, error) {
	link, err := netlink.LinkByName(HostDevice)
	if err != nil {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = HostDevice
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: hostPeer}); err != nil {
			return 0, fmt.Errorf("add device %s: %w", HostDevice, err)
		}
		if link, err = netlink.LinkByName(HostDevice); err != nil {
			return 0, fmt.Errorf("find device %s: %w", HostDevice, err)
		}
	}
	// The host's own packets come in here, with its own source addresses.
	for _, device := range []string{HostDevice, hostPeer} { // no neighbours, no routers
		_ = setSysctl("ipv6", device, "addr_gen_mode", "1")
		_ = setSysctl("ipv6", device, "accept_ra", "0")
	}
	for name, value := range map[string]string{"accept_local": "1", "rp_filter": "0"} {
		if err := setSysctl("ipv4", HostDevice, name, value); err != nil {
			return 0, err
		}
	}
	// The gate asks for the way to other networks as if packets came in here. Whether
	// the host forwards between its other devices is not changed.
	_ = setSysctl("ipv6", HostDevice, "forwarding", "1")
	if err := setSysctl("ipv4", HostDevice, "forwarding", "1"); err != nil {
		return 0, err
	}
	for _, gw := range gateways {
		addr := &netlink.Addr{IPNet: fullLength(gw), Flags: unix.IFA_F_NODAD}
		if err := netlink.AddrReplace(link, addr); err != nil {
			return 0, fmt.Errorf("give %s the address %s: %w", HostDevice, gw, err)
		}
	}
	for _, name := range []string{hostPeer, HostDevice} {
		l, err := netlink.LinkByName(name)
		if err == nil {
			err = netlink.LinkSetUp(l)
		}
		if err != nil {
			return 0, fmt.Errorf("bring %s up: %w", name, err)
		}
	}
	return link.Attrs().Index, nil
}

// RemoveHostDevice takes the host device away.
func RemoveHostDevice() error {
	link, err := netlink.LinkByName(HostDevice)
	if err != nil {
		return ignoreMissingLink(err)
	}
	return netlink.LinkDel(link)
}

// Connect makes the veth pair of an endpoint, calls attach with the host side's
// index while it is still down, and brings both up. It fills in Interface, Ifindex
// and MAC. On an error nothing is left.
func Connect(e *Endpoint, gateways []netip.Addr, attach func(ifindex int) error) (err error) {
	ns, err := OpenNetns(e.Netns)
	if err != nil {
		return err
	}
	defer ns.Close()
	e.Interface = fmt.Sprintf("%s%05d", InterfacePrefix, e.ID)
	if err := addPair(e, ns); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Disconnect(e))
		}
	}()
	host, err := netlink.LinkByName(e.Interface)
	if err != nil {
		return fmt.Errorf("find interface %s: %w", e.Interface, err)
	}
	e.Ifindex = host.Attrs().Index
	if err := attach(e.Ifindex); err != nil {
		return err
	}
	if err := setUpInside(e, ns, gateways); err != nil {
		return err
	}
	return setUpHost(e, host, gateways)
}

// Disconnect takes the veth pair away, and with it all that hangs on it, and the
// endpoint's resolv.conf.
func Disconnect(e *Endpoint) error {
	if err := removeResolvConf(e); err != nil {
		return err
	}
	link, err := netlink.LinkByName(e.Interface)
	if err != nil {
		return ignoreMissingLink(err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("delete interface %s: %w", e.Interface, err)
	}
	return nil
}

// IsHostSide reports whether a device is the host's side of an endpoint.
func IsHostSide(l netlink.Link) bool {
	digits, ours := strings.CutPrefix(l.Attrs().Name, InterfacePrefix)
	_, err := strconv.ParseUint(digits, 10, 16)
	return ours && err == nil && len(digits) == 5 && l.Type() == "veth" && bytes.Equal(l.Attrs().HardwareAddr, GatewayMAC())
}

// Connected reports whether the pair is still there: it goes with the workload's
// namespace.
func Connected(e *Endpoint) bool {
	link, err := netlink.LinkByName(e.Interface)
	return err == nil && link.Attrs().Index == e.Ifindex
}

func addPair(e *Endpoint, ns netns.NsHandle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = e.Interface
	attrs.HardwareAddr = GatewayMAC()
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: e.Inside, PeerNamespace: netlink.NsFd(ns)}
	if err := netlink.LinkAdd(pair); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("namespace %s has an interface %s already: name another with --interface: %w", e.Netns, e.Inside, err)
		}
		return fmt.Errorf("add veth pair %s: %w", e.Interface, err)
	}
	return nil
}

// setUpInside gives the workload's side its addresses and routes.
func setUpInside(e *Endpoint, ns netns.NsHandle, gateways []netip.Addr) error {
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("enter network namespace %s: %w", e.Netns, err)
	}
	defer h.Close()
	link, err := h.LinkByName(e.Inside)
	if err != nil {
		return fmt.Errorf("find %s in %s: %w", e.Inside, e.Netns, err)
	}
	e.MAC = link.Attrs().HardwareAddr.String()
	for _, ip := range e.IPs {
		if err := h.AddrAdd(link, &netlink.Addr{IPNet: fullLength(ip), Flags: unix.IFA_F_NODAD}); err != nil {
			return fmt.Errorf("give %s the address %s: %w", e.Inside, ip, err)
		}
	}
	for _, up := range []string{"lo", e.Inside} {
		l, err := h.LinkByName(up)
		if err == nil {
			err = h.LinkSetUp(l)
		}
		if err != nil {
			return fmt.Errorf("bring %s in %s up: %w", up, e.Netns, err)
		}
	}
	for _, gw := range gateways {
		if !hasFamily(e.IPs, gw) {
			continue
		}
		for _, r := range []*netlink.Route{
			{LinkIndex: link.Attrs().Index, Dst: fullLength(gw), Scope: netlink.SCOPE_LINK},
			{LinkIndex: link.Attrs().Index, Dst: everywhere(gw), Gw: gw.AsSlice()},
		} {
			if err := h.RouteAdd(r); err != nil {
				return fmt.Errorf("add the route by %s in %s: %w", gw, e.Netns, err)
			}
		}
	}
	return nil
}

// setUpHost routes the endpoint's addresses to the host's side. The neighbour is
// fixed: nothing is asked on that link.
func setUpHost(e *Endpoint, host netlink.Link, gateways []netip.Addr) error {
	// No link-local address, no router discovery: the host is no neighbour there.
	_ = setSysctl("ipv6", e.Interface, "addr_gen_mode", "1")
	_ = setSysctl("ipv6", e.Interface, "accept_ra", "0")
	if err := setSysctl("ipv4", e.Interface, "rp_filter", "0"); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(host); err != nil {
		return fmt.Errorf("bring %s up: %w", e.Interface, err)
	}
	for _, ip := range e.IPs {
		family := netlink.FAMILY_V4
		if ip.Is6() {
			family = netlink.FAMILY_V6
		}
		n := &netlink.Neigh{
			LinkIndex: e.Ifindex, Family: family, State: unix.NUD_PERMANENT, IP: ip.AsSlice(), HardwareAddr: e.HardwareAddr(),
		}
		if err := netlink.NeighSet(n); err != nil {
			return fmt.Errorf("set the neighbour %s on %s: %w", ip, e.Interface, err)
		}
		// A veth loses nothing and has no bandwidth to probe for: what paces (BBR) costs
		// the proxy a timer a packet here, and stalls. Other networks keep the host's.
		r := &netlink.Route{LinkIndex: e.Ifindex, Dst: fullLength(ip), Scope: netlink.SCOPE_LINK, Congctl: "reno"}
		for _, gw := range gateways {
			if gw.Is4() == ip.Is4() {
				r.Src = gw.AsSlice()
			}
		}
		if err := netlink.RouteReplace(r); err != nil {
			return fmt.Errorf("route %s to %s: %w", ip, e.Interface, err)
		}
	}
	return nil
}

func setSysctl(family, device, name, value string) error {
	path := filepath.Join("/proc/sys/net", family, "conf", device, name)
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil {
		return fmt.Errorf("set %s: %w", path, err)
	}
	return nil
}

func fullLength(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func everywhere(a netip.Addr) *net.IPNet {
	if a.Is4() {
		return &net.IPNet{IP: net.IPv4zero.To4(), Mask: net.CIDRMask(0, 32)}
	}
	return &net.IPNet{IP: net.IPv6zero, Mask: net.CIDRMask(0, 128)}
}

func hasFamily(ips []netip.Addr, of netip.Addr) bool {
	for _, ip := range ips {
		if ip.Is4() == of.Is4() {
			return true
		}
	}
	return false
}

func ignoreMissingLink(err error) error {
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	return err
}
