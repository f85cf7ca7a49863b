package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
