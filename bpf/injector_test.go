package bpf

import (
	"bytes"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// injects is what becomes of what the proxy writes to its device.
func (l *lab) injects(f frame) result {
	l.Helper()
	return l.run(l.g.objs.HgFromInjector, l.host, 0, f.bytes())
}

// What the proxy writes to its device belongs to a connection that it carries, and is
// for a workload of this node; all else is dropped with a reason.
func TestInjector(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		at := "127.0.0.1:0"
		if v6 {
			at = "[::1]:0"
		}
		port := datagrams(t, at, redirect.MarkFromProxy)
		question := l.udp(v6, 40000, 53)
		for _, c := range []struct {
			name   string
			set    uint32 // of the client's egress
			change func(l *lab, f *frame)
			reason uint8
		}{
			{"a question, and its answer", setDNS, nil, 0},
			{"no rules for names", 0, nil, 163},
			{"of another port", setDNS, func(_ *lab, f *frame) { f.sport++ }, 163},
			{"TCP", setDNS, func(_ *lab, f *frame) { f.proto, f.flags = protoTCP, ack }, 134},
			{"to nobody here", setDNS, func(_ *lab, f *frame) {
				if f.dst = world4; v6 {
					f.dst = world6
				}
			}, 150},
			{"to the host", setDNS, func(_ *lab, f *frame) {
				if f.dst = host4; v6 {
					f.dst = host6
				}
			}, 150},
			{"not ready", setDNS, func(l *lab, _ *frame) { l.put(l.b, false) }, 203},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				if c.set != 0 {
					l.reset(redirecting(c.set, 0))
				} else {
					l.reset(nil, nil)
				}
				l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), port))
				l.sends(l.a, question)
				l.forget()
				f := question
				if c.change != nil {
					c.change(l, &f)
				}
				r := l.injects(f)
				if c.reason != 0 {
					l.expect("datagram", r, actionShot, c.reason, policy.Ingress)
					return
				}
				l.expect("question", r, actionSend, 0, policy.Ingress)
				l.linked(f, l.b, r.data)
				back := f.reversed(0)
				r = l.injects(back)
				l.expect("answer", r, actionSend, 0, policy.Ingress)
				l.linked(back, l.a, r.data)
			})
		}
	}
}

// linked checks that a packet has got link addresses, and is the same otherwise.
func (l *lab) linked(f frame, to workload, got []byte) {
	l.Helper()
	f.dstMAC, f.srcMAC = to.mac, gatewayMAC
	if !bytes.Equal(got, f.bytes()) {
		l.Errorf("delivered\n%x, want\n%x", got, f.bytes())
	}
}

// The real device: what is written to it arrives.
func TestInjectorReaches(t *testing.T) {
	w := newWired(t)
	ifindex, err := redirect.EnsureInjector()
	w.must(err)
	t.Cleanup(func() {
		if err := redirect.RemoveInjector(); err != nil {
			t.Error(err)
		}
	})
	again, err := redirect.EnsureInjector()
	w.must(err)
	if again != ifindex {
		t.Errorf("the device is made anew: %d, then %d", ifindex, again)
	}
	w.must(w.g.AttachInjector(ifindex))
	w.must(redirect.RaiseInjector())
	queue, err := redirect.OpenInjector()
	w.must(err)
	defer queue.Close()
	if fd := int(queue.Fd()); !redirect.IsInjector(fd) || redirect.IsInjector(0) {
		t.Error("a queue of the device is not known from another descriptor")
	}
	var lost atomic.Uint64
	sender := redirect.NewSender([2]int{-1, -1}, &lost)
	sender.Inject(int(queue.Fd()), func(a netip.Addr) bool { return a == w.a.addr(a.Is6()) || a == w.b.addr(a.Is6()) })
	for family, v6 := range families {
		at := "127.0.0.1:0"
		if v6 {
			at = "[::1]:0"
		}
		w.reset(redirecting(setDNS, 0))
		w.must(w.g.SetRoute(AnyRoute(policy.ProtocolDNS), datagrams(t, at, redirect.MarkFromProxy)))
		asked := w.udp(v6, 40000, 53)
		w.sends(w.a, asked)
		w.forget()
		var server net.PacketConn
		w.must(within(w.nsB, func() (err error) {
			server, err = net.ListenPacket("udp", asked.target().String())
			return err
		}))
		defer server.Close()
		w.must(server.SetReadDeadline(time.Now().Add(patience)))
		for _, data := range []string{"question", "odd", strings.Repeat("long", 350)} { // checksums are of pairs of bytes
			sender.Forget(time.Now())
			sender.Queue(asked.source(), asked.target(), []byte(data))
			got := make([]byte, 2000)
			n, from, err := server.ReadFrom(got)
			w.must(err)
			if string(got[:n]) != data || from.String() != asked.source().String() {
				t.Errorf("%s: the workload gets %q from %s", family, got[:n], from)
			}
			// Beside what the workloads' own kernels say of themselves, as long as they come up.
			if got := w.counted(); strings.Count(got, "0 ingress") != 1 {
				t.Errorf("%s: counted %q, want it to pass", family, got)
			}
			w.forget()
		}
	}
	sender.Flush()
	if n := lost.Load(); n != 0 {
		t.Errorf("%d datagrams went the other way", n)
	}
	sender.Queue(w.udp(false, 1, 1).source(), netip.AddrPortFrom(world4, 53), []byte("to the world"))
	sender.Flush()
	if n := lost.Load(); n != 1 {
		t.Errorf("%d datagrams for the world went by the host's stack, want 1", n)
	}
}

// Who may only read the map of endpoints cannot say who somebody is.
func TestEndpointsToRead(t *testing.T) {
	l := newLab(t)
	f, err := l.g.EndpointsToRead()
	l.must(err)
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	l.must(err)
	f.Close()
	ends, err := OpenEndpoints(fd)
	l.must(err)
	defer ends.m.Close()
	if !ends.Has(l.a.v4) || !ends.Has(l.a.v6) || ends.Has(host4) {
		t.Error("who is here is not known")
	}
	k := toAddr(l.a.v4)
	if err := ends.m.Update(&k, &gateEndpoint{}, ebpf.UpdateAny); err == nil {
		t.Error("the map can be written")
	}
	if err := ends.m.Delete(&k); err == nil {
		t.Error("an endpoint can be removed")
	}
}
