package integration

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// TestSpoofedSources sends from addresses that are not the sender's: nobody's,
// another endpoint's, the host's.
func TestSpoofedSources(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	victim := n.workload(t, "victim", "app=victim")
	spoofer := n.workload(t, "spoofer", "app=spoofer")
	inbox := server.listenUDP(t, 9000)
	server.serveEcho(t, 80)
	unused := map[ipVersion]string{4: "10.210.77.7", 6: "fd00:210::77"}
	eachVersion(t, func(t *testing.T, v ipVersion) {
		spoofer.pinGateway(t, gateway(v), server.at(v, 80))
		for what, source := range map[string]netip.Addr{
			"unused": netip.MustParseAddr(unused[v]), "another endpoint's": victim.addr(v), "the host's": gateway(v),
		} {
			t.Run(what, func(t *testing.T) {
				spoofer.takeAddress(t, source)
				before := n.dropped(t, "Invalid source ip")
				c, err := spoofer.connect(context.Background(), unix.SOCK_DGRAM, netip.AddrPortFrom(source, 0), server.at(v, 9000))
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				send(t, c, "spoofed")
				noDatagram(t, inbox, "spoofed")
				ctx, cancel := context.WithTimeout(context.Background(), refusalTime)
				defer cancel()
				if c, err := spoofer.connect(ctx, unix.SOCK_STREAM, netip.AddrPortFrom(source, 0), server.at(v, 80)); !isTimeout(err) {
					t.Errorf("connecting from %s: %v, %v", source, c, err)
				}
				eventually(t, patience, "drops counted", func() error {
					if now := n.dropped(t, "Invalid source ip"); now < before+2 {
						return fmt.Errorf("%d dropped, before %d", now, before)
					}
					return nil
				})
				c.Close()
				spoofer.leaveAddress(t, source)
			})
		}
	})
	t.Run("hardware address", func(t *testing.T) { spoofedHardware(t, n, spoofer, server) })
}

// pinGateway makes what the workload knows of its gateway stay: with a spoofed address
// of its own it might not find it again, and would send nothing.
func (w *workload) pinGateway(t *testing.T, ip netip.Addr, server netip.AddrPort) {
	t.Helper()
	w.mustOpen(t, server).Close()
	w.change(t, func(link netlink.Link) error {
		known, err := netlink.NeighList(link.Attrs().Index, 0)
		if err != nil {
			return err
		}
		for _, k := range known {
			if found, ok := netip.AddrFromSlice(k.IP); ok && found.Unmap() == ip {
				k.State = unix.NUD_PERMANENT
				return netlink.NeighSet(&k)
			}
		}
		return fmt.Errorf("%s is not among the neighbours %v", ip, known)
	})
}

func (w *workload) takeAddress(t *testing.T, ip netip.Addr) {
	t.Helper()
	w.change(t, func(link netlink.Link) error {
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: single(ip), Flags: unix.IFA_F_NODAD})
	})
}

func (w *workload) leaveAddress(t *testing.T, ip netip.Addr) {
	t.Helper()
	w.change(t, func(link netlink.Link) error { return netlink.AddrDel(link, &netlink.Addr{IPNet: single(ip)}) })
}

// change does something to the workload's interface, as who is root in it can.
func (w *workload) change(t *testing.T, f func(netlink.Link) error) {
	t.Helper()
	err := w.do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		return f(link)
	})
	if err != nil {
		t.Fatal(err)
	}
}

func single(ip netip.Addr) *net.IPNet {
	return &net.IPNet{IP: ip.AsSlice(), Mask: net.CIDRMask(ip.BitLen(), ip.BitLen())}
}

func spoofedHardware(t *testing.T, n *node, spoofer, server *workload) {
	before := n.dropped(t, "Invalid source mac")
	spoofer.change(t, func(link netlink.Link) error {
		return netlink.LinkSetHardwareAddr(link, net.HardwareAddr{2, 0, 0, 0, 0, 9})
	})
	spoofer.mustNotConnect(t, server.at(4, 80))
	if now := n.dropped(t, "Invalid source mac"); now == before {
		t.Error("no drop was counted")
	}
	own, err := net.ParseMAC(spoofer.MAC)
	if err != nil {
		t.Fatal(err)
	}
	spoofer.change(t, func(link netlink.Link) error { return netlink.LinkSetHardwareAddr(link, own) })
	s := spoofer.mustOpen(t, server.at(4, 80))
	_ = s.SetDeadline(time.Now().Add(patience))
	s.echoes(t)
}
