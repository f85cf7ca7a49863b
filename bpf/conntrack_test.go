package bpf

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// randomAddr favours bytes at which orders go wrong: signs, borders, halves.
func randomAddr(r *rand.Rand, v6 bool) netip.Addr {
	odd := []byte{0, 1, 0x7f, 0x80, 0xff, byte(r.Uint32())}
	var b [16]byte
	for i := range b {
		b[i] = odd[r.IntN(len(odd))]
	}
	if !v6 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	b[0] = []byte{0x20, 0x7f, 0x80, 0xfd}[r.IntN(4)] // not multicast, not a mapped IPv4
	return netip.AddrFrom16(b)
}

// Go finds what the gate wrote, and the gate finds it from the other end, for any
// two addresses and ports.
func TestKeyOrder(t *testing.T) {
	l := newLab(t)
	r := rand.New(rand.NewPCG(7, 7))
	for i := range 300 {
		src, dst := randomAddr(r, i%2 == 0), randomAddr(r, i%2 == 0)
		if i%5 == 0 {
			dst = src // only the ports differ
		}
		if i%7 == 0 {
			dst = src.Next()
		}
		if !dst.IsValid() || dst.Is6() != src.Is6() {
			continue
		}
		f := l.tcp(false, uint16(r.Uint32()), uint16(r.Uint32()), syn)
		f.src, f.dst = src, dst
		if f.source() == f.target() {
			continue
		}
		b := l.b
		if src == dst { // one address has one workload
			b = l.a
		}
		for addr, w := range map[netip.Addr]workload{dst: b, src: l.a} {
			l.must(l.g.SetEndpoint(Endpoint{Addr: addr, Ifindex: w.ifindex, Identity: w.identity, Subject: w.subject, MAC: w.mac, Ready: true}))
		}
		l.delivered("SYN", l.sends(l.a, f))
		checkFound(l, f, false)
		back := f.reversed(syn | ack)
		back.srcMAC, back.dstMAC = b.mac, gatewayMAC
		l.delivered("SYN-ACK", l.sends(b, back))
		checkFound(l, f, true)
		if t.Failed() {
			t.Fatalf("%s → %s", f.source(), f.target())
		}
		l.must(empty(l.g.objs.HgCtTcp1))
		l.must(l.g.DeleteEndpoint(src))
		l.must(l.g.DeleteEndpoint(dst))
	}
}

// checkFound wants exactly this connection, from its opener's side.
func checkFound(l *lab, f frame, answered bool) {
	l.Helper()
	ct := l.g.Conntrack()
	c, ok := ct.Lookup(f.source(), f.target())
	if !ok || c.Source != f.source() || c.Destination != f.target() || c.SeenReply != answered || c.SourceIdentity != identityA {
		l.Errorf("Lookup: %+v, %v", c, ok)
	}
	if c, ok := ct.Lookup(f.target(), f.source()); ok {
		l.Errorf("Lookup from the other end: %+v", c)
	}
	n := 0
	l.must(ct.All(func(x Connection) bool {
		n++
		if x.Source != c.Source || x.Destination != c.Destination || x.Proto != policy.ProtoTCP {
			l.Errorf("All: %+v, Lookup: %+v", x, c)
		}
		return true
	}))
	if n != 1 {
		l.Errorf("All has %d connections", n)
	}
}

func TestCollect(t *testing.T) {
	l := newLab(t)
	ct := l.g.Conntrack()
	for port := range uint16(10) {
		f := l.tcp(port%2 == 0, 40000+port, 80, 0)
		l.open(f)
		if port >= 6 {
			continue
		}
		k := f.key()
		e, _ := l.entry(f)
		e.Expires = uint64(monotonic() - int64(time.Second))
		l.must(l.g.objs.HgCtTcp1.Put(&k, &e))
	}
	l.delivered("half open", l.sends(l.a, l.tcp(false, 50000, 80, syn)))
	n, err := ct.Collect(t.Context())
	if err != nil || n != 6 {
		t.Errorf("collected %d, %v; want 6", n, err)
	}
	left := map[uint16]bool{}
	l.must(ct.All(func(c Connection) bool { left[c.Source.Port()] = true; return true }))
	for _, port := range []uint16{40006, 40007, 40008, 40009, 50000} {
		if !left[port] {
			t.Errorf("the connection from port %d is gone", port)
		}
	}
	if len(left) != 5 {
		t.Errorf("left: %v", left)
	}
	if n, err := ct.Collect(t.Context()); err != nil || n != 0 {
		t.Errorf("collected %d again, %v", n, err)
	}
	one := 0
	l.must(ct.All(func(Connection) bool { one++; return false }))
	if one != 1 {
		t.Errorf("All went on after it was told to stop: %d", one)
	}
}

// A process that got only descriptors reads the same.
func TestOpenConntrack(t *testing.T) {
	l := newLab(t)
	var fds [6]int
	for i, m := range l.g.ConntrackMaps() {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 0)
		l.must(err)
		fds[i] = fd
	}
	ct, err := OpenConntrack(fds)
	l.must(err)
	t.Cleanup(func() { ct.tcp.Close(); ct.any.Close(); ct.nat.Close(); unix.Munmap(ct.config) }) //nolint:errcheck // the test is over
	f := l.tcp(true, 40000, 80, 0)
	l.open(f)
	if c, ok := ct.Lookup(f.source(), f.target()); !ok || c.Packets != [2]uint64{2, 1} {
		t.Errorf("Lookup: %+v, %v", c, ok)
	}
	for _, n := range []uint32{1, 2, 0xffffffff, 3} {
		l.must(l.g.SetRevision(n))
		if got := ct.Revision(); got != n {
			t.Errorf("revision %d, want %d", got, n)
		}
	}
}
