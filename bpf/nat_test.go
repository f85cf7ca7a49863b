package bpf

import (
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// by is the packet as another workload sends it.
func (f frame) by(w workload) frame {
	f.src, f.srcMAC = w.addr(f.src.Is6()), w.mac
	return f
}

func (o *outer) holds() []Translation {
	o.Helper()
	var out []Translation
	o.must(o.g.Translations(func(t Translation) bool { out = append(out, t); return true }))
	return out
}

// Two endpoints use the same port towards the same server: the second gets another,
// and each its own answers.
func TestSamePort(t *testing.T) {
	o := newOuter(t, func(op *Options) { op.Masquerade = Masquerade{On: true, First: 20000, Last: 20999} })
	for _, v6 := range families {
		for name, f := range o.protocols(v6) {
			o.renew(nil, nil)
			leftA, leftB := o.sent(o.a, f), o.sent(o.b, f.by(o.b))
			a, b := nodePort(f, leftA.bytes()), nodePort(f, leftB.bytes())
			if a != nodePort(f, f.bytes()) || b < 20000 || b > 20999 {
				t.Errorf("%s: ports %d and %d", name, a, b)
			}
			o.answered(o.b, f.by(o.b), leftB, syn|ack)
			o.answered(o.a, f, leftA, syn|ack)
			if h := o.holds(); len(h) != 2 || !h[0].Live || !h[1].Live || h[0].Source == h[1].Source {
				t.Errorf("%s: holds %+v", name, h)
			}
			// Another server does not know of either.
			other := f
			other.dst = f.dst.Next()
			if left := o.sent(o.b, other.by(o.b)); nodePort(f, left.bytes()) != a {
				t.Errorf("%s: towards another server b has port %d", name, nodePort(f, left.bytes()))
			}
		}
	}
}

// With no port left new connections are refused, counted and named, and those that
// have one go on. One that ended leaves its port to the next.
func TestPortsExhausted(t *testing.T) {
	o := newOuter(t, func(op *Options) { op.Masquerade = Masquerade{On: true, First: 20000, Last: 20002} })
	for _, v6 := range families {
		for name, f := range o.protocols(v6) {
			o.renew(nil, nil)
			var frames, left []frame
			for i := range 4 {
				w := o.b
				w.id = uint16(i)
				for _, addr := range []*netip.Addr{&w.v4, &w.v6} { // four workloads, one port
					for range i {
						*addr = addr.Next()
					}
				}
				o.put(w, true)
				f := f.by(w)
				frames, left = append(frames, f), append(left, o.sent(w, f))
			}
			got := []uint16{}
			for i := range left {
				got = append(got, nodePort(f, left[i].bytes()))
			}
			want := []uint16{20000, 20001, 20002, nodePort(f, f.bytes())}
			slices.Sort(got)
			if slices.Sort(want); !slices.Equal(got, want) {
				t.Errorf("%s: ports %v", name, got)
			}
			o.expect("a fifth", o.sends(o.a, f), actionSend, 0, policy.Egress)
			o.expect("a fifth, leaving", o.leaves(o.a, f, 0), actionShot, 167, policy.Egress)
			for i := range frames {
				w := o.b
				w.v4, w.v6 = frames[i].src, frames[i].src
				o.answered(w, frames[i], left[i], syn|ack)
			}
			if _, err := o.g.Conntrack().Forget(frames[2].src); err != nil {
				t.Fatal(err)
			}
			o.sends(o.a, f)
			o.forget()
			if again := o.sent(o.a, f); nodePort(f, again.bytes()) != nodePort(f, left[2].bytes()) {
				t.Errorf("%s: port %d, but %d is free", name, nodePort(f, again.bytes()), nodePort(f, left[2].bytes()))
			}
		}
	}
}

// The ports of the host's own sockets are left to it.
func TestHostPortsRespected(t *testing.T) {
	o := newOuter(t)
	for name, c := range map[string]struct {
		listen func() (uint16, func() error)
		packet func(port uint16) frame
	}{
		"listener": {func() (uint16, func() error) {
			l, err := net.Listen("tcp4", "0.0.0.0:0")
			o.must(err)
			return ends(l.Addr()).Port(), l.Close
		}, func(port uint16) frame { return o.world(o.tcp(false, port, 80, syn)) }},
		"UDP socket": {func() (uint16, func() error) {
			l, err := net.ListenPacket("udp6", "[::]:0")
			o.must(err)
			return ends(l.LocalAddr()).Port(), l.Close
		}, func(port uint16) frame { return o.world(o.udp(true, port, 53)) }},
	} {
		port, closeIt := c.listen()
		f := c.packet(port)
		if left := o.sent(o.a, f); left.sport == port {
			t.Errorf("%s: the endpoint has port %d, which is the host's", name, port)
		}
		o.must(closeIt())
		o.renew(nil, nil)
		if left := o.sent(o.a, f); left.sport != port {
			t.Errorf("%s closed: the endpoint has port %d, not its own", name, left.sport)
		}
	}
}

// The host comes to use a port that an endpoint's connection holds towards the same
// server: it is the host's that is translated.
func TestHostGivesWay(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		for name, f := range o.protocols(v6) {
			o.renew(nil, nil)
			left := o.sent(o.a, f)
			own := f
			own.src, own.srcMAC, own.dstMAC = pick(v6, node4, node6), o.mac, gatewayMAC
			if name == "TCP" {
				r := o.leaves(workload{}, own.with(ack), 0)
				if r.action != actionNext || string(r.data) != string(own.with(ack).bytes()) {
					t.Error("an ACK of the host's was translated")
				}
			}
			r := o.leaves(workload{}, own, 0)
			port := nodePort(f, r.data)
			if want := own.asNode(port); r.action != actionNext || port == nodePort(f, left.bytes()) || string(r.data) != string(want.bytes()) {
				t.Errorf("%s: the host's leaves as %x, action %d, counted %q", name, r.data, r.action, o.counted())
			}
			back := own.asNode(port).reversed(syn | ack)
			r = o.enters(back)
			want := own.reversed(syn | ack)
			want.dstMAC, want.srcMAC = o.mac, net.HardwareAddr{2, 0, 0, 0, 0, 0xe}
			if r.action != actionNext || string(r.data) != string(want.bytes()) {
				t.Errorf("%s: the host's answer enters as\n%x, want\n%x, action %d", name, r.data, want.bytes(), r.action)
			}
			o.answered(o.a, f, left, syn|ack)
			// The endpoint's is gone, and forgotten by who collects: the host's goes on.
			_, err := o.g.Conntrack().Forget(o.a.addr(v6))
			o.must(err)
			_, err = o.g.Conntrack().Collect(o.Context())
			o.must(err)
			if r := o.leaves(workload{}, own.with(ack), 0); nodePort(f, r.data) != port {
				t.Errorf("%s: the host's next packet leaves by port %d, not %d", name, nodePort(f, r.data), port)
			}
		}
	}
}

func TestUntranslated(t *testing.T) {
	o := newOuter(t)
	off := newOuter(t, func(op *Options) { op.Masquerade.On = false })
	for _, v6 := range families {
		f := o.world(o.udp(v6, 40000, 53))
		asItself := func(o *outer, f frame) {
			t.Helper()
			o = o.in(t)
			o.sends(o.a, f)
			o.forget()
			if r := o.leaves(o.a, f, 0); r.action != actionNext || string(r.data) != string(f.bytes()) {
				t.Errorf("%s leaves as %x, action %d", f.src, r.data, r.action)
			}
		}
		off.renew(nil, nil)
		asItself(off, f)
		back := f.reversed(0)
		back.dstMAC, back.srcMAC = off.mac, o.a.mac
		off.in(t).expect("answer", off.through(off.g.objs.HgFromNetwork, 0, 0, back), actionSend, 0, policy.Ingress)

		o = o.in(t)
		o.renew(nil, nil)
		o.must(o.g.SetUntranslated([]netip.Prefix{netip.PrefixFrom(f.dst, f.dst.BitLen()-8).Masked()}))
		asItself(o, f)
		o.must(o.g.SetUntranslated(nil))
		o.renew(nil, nil)
		o.sent(o.a, f)
		// An address that others can answer to.
		w := o.a
		w.v4, w.v6 = netip.MustParseAddr("203.0.113.9"), netip.MustParseAddr("2001:db8:77::9")
		o.put(w, true)
		asItself(o, f.by(w))
	}
}

// The proxy speaks as the client, from its port or another; both leave translated,
// and the answers are the proxy's.
func TestProxyLegOutside(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		f := o.world(o.tcp(v6, 40000, 80, syn))
		o.renew(redirecting(setOne, 0))
		o.must(o.g.SetRoute(AnyRoute(1), deadPort))
		o.expectAll("SYN of a, to a dead proxy", o.sends(o.a, f), actionShot, "0 egress, 232 egress")
		for _, port := range []uint16{40000, 45000} {
			f := f
			f.sport = port
			r := o.leaves(workload{}, f, redirect.MarkFromProxy)
			if want := f.asNode(port); r.action != actionNext || string(r.data) != string(want.bytes()) {
				t.Errorf("the proxy's SYN from %d leaves as %x, action %d, counted %q", port, r.data, r.action, o.counted())
			}
			o.forget()
			o.expectAll("its answer, and no socket", o.enters(f.asNode(port).reversed(syn|ack)), actionShot,
				map[uint16]string{40000: "0 ingress, 232 ingress", 45000: "0 ingress, 231 ingress"}[port])
		}
		o.expect("ACK of no connection", o.leaves(workload{}, o.world(o.tcp(v6, 41000, 80, ack)), redirect.MarkFromProxy), actionShot, 163, policy.Egress)
		o.expectAll("RST of what is forgotten", o.leaves(workload{}, o.world(o.tcp(v6, 41000, 80, rst)), redirect.MarkFromProxy), actionNext, "")
	}
}

// Nothing evicts the hold of an established connection, and without room for one
// more the next is refused before it is established.
func TestHoldsFull(t *testing.T) {
	o := newOuter(t, func(op *Options) { op.MaxTranslations = 1 })
	f := o.world(o.tcp(false, 40000, 80, 0))
	left := o.sent(o.a, f.with(syn))
	o.answered(o.a, f, left, syn|ack)
	o.sent(o.a, f.with(ack))
	full, refused := 0, f
	for i := range 64 { // the kernel lets a few more in: one a processor
		g := f
		g.sport += uint16(i + 1)
		l := o.sent(o.a, g.with(syn))
		o.answered(o.a, g, l, syn|ack)
		o.sends(o.a, g.with(ack))
		o.forget()
		r := o.leaves(o.a, g.with(ack), 0)
		if c := o.counted(); c == "240 egress" && r.action == actionShot {
			full, refused = full+1, g
		}
		o.forget()
	}
	if full == 0 {
		t.Fatal("the table never was full")
	}
	if e, _ := o.entry(refused); e.Flags&32 == 0 || time.Duration(int64(e.Expires)-monotonic()) > 11*time.Second {
		t.Errorf("the refused connection is %+v", e)
	}
	o.sent(o.a, f.with(ack))
	o.answered(o.a, f, left, ack)
	o.must(empty(o.g.objs.HgNatAny1)) // as a flood of what is not established would
	o.answered(o.a, f, left, ack)
	_, err := o.g.Conntrack().Collect(o.Context())
	o.must(err)
	o.answered(o.a, f, left, ack)
	_, err = o.g.Conntrack().Forget(o.a.v4)
	o.must(err)
	_, err = o.g.Conntrack().Collect(o.Context())
	o.must(err)
	if n, err := entries(o.g.objs.HgNatTcp1); n != 0 || err != nil {
		t.Errorf("%d holds are left of connections that are gone, %v", n, err)
	}
}

// complaint is an ICMP error about a packet.
func complaint(about frame, by netip.Addr, kind, code uint8) frame {
	f := frame{src: by, dst: about.src, proto: protoICMP, icmpType: kind, icmpCode: code, ttl: 60, srcMAC: about.srcMAC, dstMAC: about.dstMAC}
	if by.Is6() {
		f.proto = protoICMPv6
	}
	f.payload = about.bytes()[14:]
	if n := 20 + 8; !by.Is6() && len(f.payload) > n {
		f.payload = f.payload[:n]
	}
	return f
}

// Routers and servers complain about what they saw, and the endpoint hears of what
// it sent; and the other way round.
func TestErrorsTranslated(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		for name, f := range o.protocols(v6) {
			o.renew(nil, nil)
			o.sent(o.b, f.by(o.b))
			left := o.sent(o.a, f) // by another port than its own
			kind := map[bool]uint8{false: 3, true: 1}[v6]
			for _, by := range []netip.Addr{pick(v6, router4, router6), f.dst} {
				r := o.enters(complaint(left, by, kind, 4))
				o.expectAll(name+": error of "+by.String(), r, actionSend, "0 ingress")
				want := complaint(left, by, kind, 4)
				want.dst = f.src
				want.payload = slices.Clone(f.bytes()[14 : 14+len(want.payload)])
				o.sameError(r.data, want)
			}
			o.expectAll(name+": about nobody's", o.enters(complaint(f.asNode(1), f.dst, kind, 4)), actionNext, "")
			if name != "UDP" {
				continue
			}
			// The endpoint has closed its socket.
			answer, atNode := f.reversed(0), left.reversed(0)
			r := complaint(answer, f.src, kind, 3)
			r.srcMAC, r.dstMAC = o.a.mac, gatewayMAC
			o.expectAll("error of a", o.sends(o.a, r), actionSend, "0 egress")
			out := o.leaves(o.a, r, 0)
			want := complaint(atNode, pick(v6, node4, node6), kind, 3)
			o.sameError(out.data, want)
		}
	}
}

// sameError compares two ICMP errors, but for link addresses, hops and the checksum
// of what is quoted, and checks that the error's own adds up.
func (l *lab) sameError(data []byte, want frame) {
	l.Helper()
	at := 14 + 20
	if want.src.Is6() {
		at = 14 + 40
	}
	got := want
	got.src, got.dst = addrAt(data, want.src.Is6(), true), addrAt(data, want.src.Is6(), false)
	if got.src != want.src || got.dst != want.dst {
		l.Errorf("error from %s to %s, want %s to %s", got.src, got.dst, want.src, want.dst)
	}
	if s := sum(got.pseudo(len(data)-at), data[at:]); s != 0xffff {
		l.Errorf("the error's checksum is off by %#x", ^s)
	}
	if !want.src.Is6() {
		if s := sum(data[14:34]); s != 0xffff {
			l.Errorf("the header's checksum is off by %#x", ^s)
		}
		if s := sum(data[at+8 : at+28]); s != 0xffff {
			l.Errorf("the quoted header's checksum is off by %#x", ^s)
		}
	}
	quoted, wanted := slices.Clone(data[at+8:]), slices.Clone(want.payload)
	for _, q := range [][]byte{quoted, wanted} {
		inner := at - 14
		for _, i := range []int{inner + 2, inner + 6, inner + 16} { // where transports have a checksum
			if i+2 <= len(q) {
				binary.BigEndian.PutUint16(q[i:], 0)
			}
		}
	}
	if want.src.Is4() { // its hops are part of its checksum
		for _, q := range [][]byte{quoted, wanted} {
			q[10], q[11] = 0, 0
		}
	}
	if !slices.Equal(quoted, wanted) {
		l.Errorf("quoted\n%x, want\n%x", quoted, wanted)
	}
}

func addrAt(b []byte, v6, source bool) netip.Addr {
	at, n := 26, 4
	if v6 {
		at, n = 22, 16
	}
	if !source {
		at += n
	}
	a, _ := netip.AddrFromSlice(b[at : at+n])
	return a
}

// A datagram in pieces, out and in: the later ones follow the first.
func TestFragmentsTranslated(t *testing.T) {
	o := newOuter(t)
	for _, v6 := range families {
		o.renew(nil, nil)
		f := o.world(o.udp(v6, 40000, 53))
		f.payload = make([]byte, 64)
		o.sent(o.b, f.by(o.b))
		plain := o.sent(o.a, f)
		for _, first := range []bool{true, false} {
			out := f.piece(first)
			o.expect("fragment", o.sends(o.a, out), actionSend, 0, policy.Egress)
			r := o.leaves(o.a, out, 0)
			want := plain.piece(first)
			if r.action != actionNext || string(r.data) != string(want.bytes()) {
				t.Errorf("fragment, first %v, leaves as\n%x, want\n%x, action %d, counted %q", first, r.data, want.bytes(), r.action, o.counted())
			}
		}
		back, answer := plain.reversed(0), f.reversed(0)
		o.expectAll("later fragment alone", o.enters(back.piece(false)), actionNext, "")
		for _, first := range []bool{true, false} {
			r := o.enters(back.piece(first))
			o.expect("fragment of the answer", r, actionSend, 0, policy.Ingress)
			want := answer.piece(first)
			want.dstMAC, want.srcMAC, want.ttl = o.a.mac, gatewayMAC, want.ttl-1
			if string(r.data) != string(want.bytes()) {
				t.Errorf("a gets fragment, first %v,\n%x, want\n%x", first, r.data, want.bytes())
			}
		}
	}
}
