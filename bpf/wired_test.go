package bpf

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/redirect"
)

// wired is the lab with real workloads: a and b in namespaces of their own, with
// the gate between them.
type wired struct {
	*lab
	nsA, nsB netns.NsHandle
}

func newWired(t testing.TB) *wired {
	t.Helper()
	l := newLab(t)
	w := &wired{lab: l}
	w.nsA, w.nsB = w.connect("wa", l.a), w.connect("wb", l.b)
	wa, wb, hg := up(t, "wa"), up(t, "wb"), up(t, "hg0")
	for dev, to := range map[netlink.Link]*workload{wa: &l.a, wb: &l.b} {
		l.must(netlink.LinkSetHardwareAddr(dev, gatewayMAC))
		w.sysctl("/proc/sys/net/ipv6/conf/"+dev.Attrs().Name+"/disable_ipv6", "0")
		for _, addr := range []netip.Addr{to.v4, to.v6} {
			l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: dev.Attrs().Index, Dst: whole(addr), Scope: netlink.SCOPE_LINK}))
			l.must(netlink.NeighAdd(&netlink.Neigh{
				LinkIndex: dev.Attrs().Index, IP: addr.AsSlice(), HardwareAddr: to.mac, State: netlink.NUD_PERMANENT,
			}))
		}
		l.must(l.g.AttachWorkload(dev.Attrs().Index))
	}
	w.sysctl("/proc/sys/net/ipv6/conf/hg0/disable_ipv6", "0")
	// What the host answers enters there, from addresses that are its own.
	w.sysctl("/proc/sys/net/ipv4/conf/hg0/accept_local", "1")
	w.sysctl("/proc/sys/net/ipv4/conf/hg0/rp_filter", "0")
	l.must(l.g.AttachHost(hg.Attrs().Index))
	lo := up(t, "lo")
	for _, addr := range []netip.Addr{host4, host6} {
		l.must(netlink.AddrAdd(lo, &netlink.Addr{IPNet: whole(addr), Flags: unix.IFA_F_NODAD}))
	}
	l.must(redirect.InstallRules())
	return w
}

func whole(a netip.Addr) *net.IPNet {
	return &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}
}

func (w *wired) sysctl(path, value string) {
	w.Helper()
	if err := os.WriteFile(path, []byte(value), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.Fatal(err)
	}
}

// connect gives the other end of a veth to a workload. It knows nothing but its
// address and the gateway.
func (w *wired) connect(name string, to workload) netns.NsHandle {
	w.Helper()
	made := make(chan netns.NsHandle)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		ns, err := netns.New()
		if err != nil {
			ns = netns.None()
		}
		made <- ns
	}()
	ns := <-made
	if !ns.IsOpen() {
		w.Fatal("make a network namespace")
	}
	w.Cleanup(func() { ns.Close() })
	peer, err := netlink.LinkByName(name + "p")
	w.must(err)
	w.must(netlink.LinkSetHardwareAddr(peer, to.mac))
	w.must(netlink.LinkSetNsFd(peer, int(ns)))
	w.must(within(ns, func() error {
		dev, err := netlink.LinkByName(name + "p")
		if err != nil {
			return err
		}
		err = os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"p/disable_ipv6", []byte("0"), 0o644)
		for _, addr := range []netip.Addr{to.v4, to.v6} {
			err = errors.Join(err, netlink.AddrAdd(dev, &netlink.Addr{IPNet: whole(addr), Flags: unix.IFA_F_NODAD}))
		}
		err = errors.Join(err, netlink.LinkSetUp(dev))
		for _, via := range []netip.Addr{gateway4, gateway6} {
			all := &net.IPNet{IP: make(net.IP, via.BitLen()/8), Mask: net.CIDRMask(0, via.BitLen())}
			err = errors.Join(err, netlink.RouteAdd(&netlink.Route{
				LinkIndex: dev.Attrs().Index, Dst: all, Gw: via.AsSlice(), Flags: int(netlink.FLAG_ONLINK),
			}))
		}
		return err
	}))
	return ns
}

// within runs f in a namespace, on a thread that ends with it.
func within(ns netns.NsHandle, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// patience is how long something that must happen may take on a busy machine.
const patience = 30 * time.Second

// serve echoes at an address of a namespace, and tells who came.
func (w *wired) serve(ns netns.NsHandle, at netip.Addr, port uint16) <-chan netip.AddrPort {
	w.Helper()
	var ln net.Listener
	w.must(within(ns, func() (err error) {
		lc := net.ListenConfig{}
		lc.SetMultipathTCP(false)
		ln, err = lc.Listen(context.Background(), "tcp", netip.AddrPortFrom(at, port).String())
		return err
	}))
	w.Cleanup(func() { ln.Close() })
	came := make(chan netip.AddrPort, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			came <- ends(c.RemoteAddr())
			go func() { io.Copy(c, c); c.Close() }() //nolint:errcheck // the client notices
		}
	}()
	return came
}

func ends(a net.Addr) netip.AddrPort {
	p := netip.MustParseAddrPort(a.String())
	return netip.AddrPortFrom(p.Addr().Unmap(), p.Port())
}

func (w *wired) dial(ns netns.NsHandle, network string, to netip.AddrPort, limit time.Duration) (c net.Conn, err error) {
	err = within(ns, func() error {
		d := net.Dialer{Timeout: limit}
		d.SetMultipathTCP(false)
		c, err = d.Dial(network, to.String())
		return err
	})
	return c, err
}

// echoed sends a line and wants it back.
func echoed(t testing.TB, c net.Conn) {
	t.Helper()
	line := []byte("through the gate")
	got := make([]byte, len(line))
	c.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
	if _, err := c.Write(line); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(line) {
		t.Fatalf("%q, %v", got, err)
	}
}

// proxied accepts one connection on the gate's route and carries it on, as the
// client, from the same port where it can.
func (w *wired) proxied(v6 bool, route Route) <-chan [2]netip.AddrPort {
	w.Helper()
	at := "127.0.0.1:0"
	if v6 {
		at = "[::1]:0"
	}
	var ln net.Listener
	w.must(within(w.ns, func() (err error) {
		ln, err = redirect.ListenTransparent(context.Background(), netip.MustParseAddrPort(at))
		return err
	}))
	w.Cleanup(func() { ln.Close() })
	w.must(w.g.SetRoute(route, ends(ln.Addr()).Port()))
	came := make(chan [2]netip.AddrPort, 10)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			from, to := ends(c.RemoteAddr()), ends(c.LocalAddr())
			came <- [2]netip.AddrPort{from, to}
			go within(w.ns, func() error { //nolint:errcheck // the client notices
				defer c.Close()
				local := from
				if to.Addr() == host4 || to.Addr() == host6 {
					// Server and proxy share a stack: the client's port is taken in it.
					local = netip.AddrPortFrom(from.Addr(), 0)
				}
				fd, err := redirect.DialTransparent(local, to)
				if err != nil {
					return err
				}
				if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(patience.Milliseconds())); err != nil {
					return err
				}
				f := os.NewFile(uintptr(fd), "up")
				defer f.Close()
				up, err := net.FileConn(f)
				if err != nil {
					return err
				}
				defer up.Close()
				go io.Copy(up, c) //nolint:errcheck // ends with either
				io.Copy(c, up)    //nolint:errcheck // ends with either
				return nil
			})
		}
	}()
	return came
}
