package bpf

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Datagrams of every size go through in fragments, both ways, to workloads and to
// the host; nobody listening is told.
func TestWireDatagrams(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		for where, ns := range map[string]netns.NsHandle{"workload": w.nsB, "host": w.ns} {
			t.Run(family+" "+where, func(t *testing.T) {
				l := w.in(t)
				to := l.b.addr(v6)
				if where == "host" {
					to = map[bool]netip.Addr{false: host4, true: host6}[v6]
				}
				var server net.PacketConn
				w.must(within(ns, func() (err error) {
					server, err = net.ListenPacket("udp", netip.AddrPortFrom(to, 5353).String())
					return err
				}))
				defer server.Close()
				go func() { // ends with the socket
					b := make([]byte, 1<<16)
					for {
						n, from, err := server.ReadFrom(b)
						if err != nil {
							return
						}
						server.WriteTo(b[:n], from) //nolint:errcheck // the client notices
					}
				}()
				c, err := w.dial(w.nsA, "udp", netip.AddrPortFrom(to, 5353), patience)
				w.must(err)
				defer c.Close()
				for _, size := range []int{0, 1, 1400, 1473, 3000, 20000, 65000} {
					want := bytes.Repeat([]byte("odd"), size/3+1)[:size]
					got := make([]byte, 1<<16)
					c.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
					_, err := c.Write(want)
					w.must(err)
					n, err := c.Read(got)
					if err != nil || !bytes.Equal(got[:n], want) {
						t.Errorf("%d bytes: %d came back, %v; counted %s", size, n, err, l.counted())
					}
				}
				refused, err := w.dial(w.nsA, "udp", netip.AddrPortFrom(to, 9), patience)
				w.must(err)
				defer refused.Close()
				refused.SetDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
				refused.Write([]byte("anybody?"))             //nolint:errcheck // the read tells
				if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
					t.Errorf("a closed port: %v, want connection refused", err)
				}
			})
		}
	}
}

// What a workload sends with one hop to live comes back from the gateway.
func TestWireTraceroute(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := w.in(t)
			network, gateway := "ip4:icmp", gateway4
			if v6 {
				network, gateway = "ip6:ipv6-icmp", gateway6
			}
			var ear net.PacketConn
			w.must(within(w.nsA, func() (err error) { ear, err = net.ListenPacket(network, l.a.addr(v6).String()); return err }))
			defer ear.Close()
			b := make([]byte, 2048)
			for hops := 1; hops <= 2; hops++ {
				c, err := w.dial(w.nsA, "udp", netip.AddrPortFrom(l.b.addr(v6), uint16(33434+hops)), patience)
				w.must(err)
				defer c.Close()
				w.must(setHops(c, v6, hops))
				_, err = c.Write(make([]byte, 32))
				w.must(err)
				ear.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
				want, kind := gateway, map[bool]byte{false: 11, true: 3}[v6]
				if hops == 2 {
					want, kind = l.b.addr(v6), map[bool]byte{false: 3, true: 1}[v6]
				}
				for {
					n, from, err := ear.ReadFrom(b)
					w.must(err)
					if n > 0 && v6 && b[0] >= 133 && b[0] <= 137 { // neighbours talk
						continue
					}
					got, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
					if got.Unmap() != want || b[0] != kind {
						t.Errorf("hop %d: type %d from %s, want %d from %s", hops, b[0], got, kind, want)
					}
					break
				}
			}
		})
	}
}

func setHops(c net.Conn, v6 bool, hops int) error {
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		if v6 {
			set = unix.SetsockoptInt(int(fd), unix.SOL_IPV6, unix.IPV6_UNICAST_HOPS, hops)
		} else {
			set = unix.SetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TTL, hops)
		}
	})
	return errors.Join(err, set)
}

// Much data, plain and proxied, at every MTU of the veths, and while it changes;
// in segments that the kernel joins to more than 64 KiB too.
func TestWireSizes(t *testing.T) {
	w := newWired(t)
	for _, c := range []struct {
		name       string
		mtuA, mtuB int
		big        uint32 // bytes a device may join
	}{
		{"1500", 1500, 1500, 0},
		{"jumbo", 9000, 9000, 0},
		{"jumbo to small", 9000, 1280, 0},
		{"small to jumbo", 1280, 9000, 0},
		{"more than 64 KiB", 1500, 1500, 150000},
	} {
		for family, v6 := range families {
			for _, proxied := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s %s proxied=%v", c.name, family, proxied), func(t *testing.T) {
					l := w.in(t)
					w := &wired{lab: l, nsA: w.nsA, nsB: w.nsB}
					l.reset(nil, nil)
					port := uint16(80)
					if proxied {
						port = 8080
						l.reset(redirecting(setOne, 0))
						w.proxied(v6, AnyRoute(1))
					}
					w.size(w.nsA, "wa", c.mtuA, c.big)
					w.size(w.nsB, "wb", c.mtuB, c.big)
					w.serve(w.nsB, l.b.addr(v6), port)
					conn, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(l.b.addr(v6), port), patience)
					w.must(err)
					defer conn.Close()
					half := func() {
						w.size(w.nsA, "wa", 1400, c.big)
						w.size(w.nsB, "wb", 1400, c.big)
					}
					w.stream(conn, 8<<20, half)
				})
			}
		}
	}
}

// size gives both ends of a veth an MTU, and how much they may join.
func (w *wired) size(ns netns.NsHandle, name string, mtu int, big uint32) {
	w.Helper()
	set := func(device string) error {
		dev, err := netlink.LinkByName(device)
		if err != nil {
			return err
		}
		err = netlink.LinkSetMTU(dev, mtu)
		if big > 0 {
			err = errors.Join(err, netlink.LinkSetGSOMaxSize(dev, int(big)), netlink.LinkSetGSOIPv4MaxSize(dev, int(big)),
				netlink.LinkSetGROMaxSize(dev, int(big)), netlink.LinkSetGROIPv4MaxSize(dev, int(big)))
		}
		return err
	}
	w.must(set(name))
	w.must(within(ns, func() error { return set(name + "p") }))
}

// stream sends so much, wants it back as it was, and calls half in the middle.
func (w *wired) stream(c net.Conn, n int, half func()) {
	w.Helper()
	block := bytes.Repeat([]byte("0123456789abcdef"), 1<<12)
	c.SetDeadline(time.Now().Add(time.Minute)) //nolint:errcheck // it fails then
	sent := make(chan error, 1)
	go func() {
		for range n / len(block) {
			if _, err := c.Write(block); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	got := make([]byte, len(block))
	for i := range n / len(block) {
		if i == n/len(block)/2 {
			half()
		}
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, block) {
			w.Fatalf("block %d: %v; counted %.300s", i, err, w.counted())
		}
	}
	w.must(<-sent)
}

// A tagged frame is another network's, and its tag is not in the packet any more
// when the gate sees it.
func TestWireVLAN(t *testing.T) {
	w := newWired(t)
	f := w.udp(false, 40000, 53).bytes()
	tag := func(b []byte, kind ...byte) []byte { return append(append(bytes.Clone(b[:12]), kind...), b[12:]...) }
	for name, b := range map[string][]byte{
		"VLAN":          tag(f, 0x81, 0, 0, 5),
		"priority":      tag(f, 0x81, 0, 0xe0, 0),
		"provider":      tag(f, 0x88, 0xa8, 0, 5),
		"two tags":      tag(tag(f, 0x81, 0, 0, 6), 0x88, 0xa8, 0, 5),
		"tagged ARP":    tag(arp(1, w.a.mac, w.a.v4, gateway4), 0x81, 0, 0, 5),
		"tagged beyond": tag(f, 0x81, 0, 0x0f, 0xff),
	} {
		t.Run(name, func(t *testing.T) {
			l := w.in(t)
			l.reset(nil, nil)
			ear := w.sniffer(w.nsB, "wbp")
			l.must(within(w.nsA, func() error { l.wire("wap", b); return nil }))
			for end := time.Now().Add(patience); strings.Count(l.counted(), "182 egress") != 1; time.Sleep(time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("counted %q, want one 182", l.counted())
				}
			}
			l.must(unix.SetsockoptTimeval(ear, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 1000}))
			got := make([]byte, 2048)
			for {
				n, _, err := unix.Recvfrom(ear, got, 0)
				if errors.Is(err, syscall.EINTR) {
					continue
				}
				if err != nil {
					break
				}
				if bytes.HasSuffix(got[:n], b[len(b)-15:]) {
					t.Errorf("arrived: %x", got[:n])
				}
			}
		})
	}
}
