package bpf

import (
	"bytes"
	"encoding/binary"
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

// pathMTU is what a namespace has learned of the way to an address; 0: nothing.
func (w *wired) pathMTU(ns netns.NsHandle, to netip.Addr) int {
	w.Helper()
	mtu := 0
	w.must(within(ns, func() error {
		routes, err := netlink.RouteGet(to.AsSlice())
		if err == nil && len(routes) > 0 {
			mtu = routes[0].MTU
		}
		return err
	}))
	return mtu
}

// sniffer sees what arrives at and leaves a device of a namespace.
func (w *wired) sniffer(ns netns.NsHandle, device string) int {
	w.Helper()
	s := -1
	w.must(within(ns, func() error {
		dev, err := net.InterfaceByName(device)
		if err != nil {
			return err
		}
		all := uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8
		if s, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW, int(all)); err != nil {
			return err
		}
		return unix.Bind(s, &unix.SockaddrLinklayer{Protocol: all, Ifindex: dev.Index})
	}))
	w.Cleanup(func() { unix.Close(s) })
	w.must(unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(patience / time.Second)}))
	return s
}

// sniff waits for a frame that is as wanted.
func (w *wired) sniff(s int, wanted func(b []byte) bool) []byte {
	w.Helper()
	b := make([]byte, 1<<16)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		n, _, err := unix.Recvfrom(s, b, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		w.must(err)
		if wanted(b[:n]) {
			return bytes.Clone(b[:n])
		}
	}
	w.Fatal("the frame did not come")
	return nil
}

// tooBig is the error of who got a segment and could not pass on the next: it quotes
// where that would begin, for a stack believes no other.
func tooBig(v6 bool, segment []byte, payload, mtu int) frame {
	ip := segment[14:]
	e := frame{dstMAC: gatewayMAC, srcMAC: segment[:6], ttl: 64, proto: protoICMP, icmpType: 3, icmpCode: 4, id: 0}
	header, src, dst := 20, ip[12:16], ip[16:20]
	if v6 {
		header, src, dst = 40, ip[8:24], ip[24:40]
		e.proto, e.icmpType, e.icmpCode = protoICMPv6, 2, 0
	}
	e.src, _ = netip.AddrFromSlice(dst)
	e.dst, _ = netip.AddrFromSlice(src)
	quoted := bytes.Clone(ip[:header+20])
	sequence := quoted[header+4:]
	binary.BigEndian.PutUint32(sequence, binary.BigEndian.Uint32(sequence)+uint32(payload))
	e.payload = quoted
	e.icmpMTU = mtu
	return e
}

// The MTU of a path is learned by who sent the packet that was too big: the client,
// or the proxy's socket on either side of it.
func TestWirePathMTU(t *testing.T) {
	w := newWired(t)
	mtu := 1450
	line := []byte("through the gate")
	for family, v6 := range families {
		for _, proxied := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s proxied=%v", family, proxied), func(t *testing.T) {
				l := w.in(t)
				w := &wired{lab: l, nsA: w.nsA, nsB: w.nsB}
				// The kernel heeds smaller ones alone, and forgets IPv6's when it pleases.
				mtu -= 40
				l.reset(nil, nil)
				port := uint16(80)
				if proxied {
					port = 8080
					l.reset(redirecting(setOne, 0))
					w.proxied(v6, AnyRoute(1))
				}
				a, b := l.a.addr(v6), l.b.addr(v6)
				w.serve(w.nsB, b, port)
				fromB := w.sniffer(w.nsB, "wbp")
				fromA := w.sniffer(w.nsA, "wap")
				c, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(b, port), patience)
				l.must(err)
				defer c.Close()
				echoed(t, c)
				carries := func(source netip.Addr) func([]byte) bool {
					return func(f []byte) bool {
						return bytes.HasSuffix(f, line) && bytes.Contains(f[14:54], source.AsSlice()) && !bytes.Equal(f[:6], gatewayMAC)
					}
				}
				tellers := []struct {
					who    string
					socket int
					ns     netns.NsHandle
					device string
					source netip.Addr // of what was too big
					learns netns.NsHandle
				}{
					{"server", fromB, w.nsB, "wbp", a, w.nsA},
					{"client", fromA, w.nsA, "wap", b, w.nsB},
				}
				for _, teller := range tellers {
					segment := w.sniff(teller.socket, carries(teller.source))
					e := tooBig(v6, segment, len(line), mtu)
					learner, other := teller.learns, w.ns
					if proxied {
						learner, other = w.ns, teller.learns
					}
					before := w.pathMTU(other, e.src)
					if got := w.pathMTU(learner, e.src); got != 0 && got <= mtu {
						t.Fatalf("before: path MTU %d", got)
					}
					w.must(within(teller.ns, func() error { l.wire(teller.device, e.bytes()); return nil }))
					for end := time.Now().Add(patience); w.pathMTU(learner, e.src) != mtu; time.Sleep(5 * time.Millisecond) {
						if time.Now().After(end) {
							t.Fatalf("the %s tells: path MTU %d, want %d; counted %s", teller.who, w.pathMTU(learner, e.src), mtu, l.counted())
						}
					}
					if got := w.pathMTU(other, e.src); got != before {
						t.Errorf("the %s tells: who did not send it learned %d", teller.who, got)
					}
				}
				echoed(t, c)
			})
		}
	}
}

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
