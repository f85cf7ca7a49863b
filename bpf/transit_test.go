package bpf

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const transitPort = 30080

// opened makes a port of the node that leads to another network, over TCP and UDP.
func (o *outer) opened(v6 bool) (port, backend netip.AddrPort) {
	o.Helper()
	port = netip.AddrPortFrom(pick(v6, node4, node6), transitPort)
	backend = netip.AddrPortFrom(pick(v6, world4, world6), backendPort)
	o.must(o.g.SetServiceAddress(port.Addr(), false))
	for i, proto := range []policy.Proto{policy.ProtoTCP, policy.ProtoUDP} {
		s := Service{Number: uint16(20 + i), Addr: port, Proto: proto, Backends: map[uint32]netip.AddrPort{uint32(900 + i): backend}}
		s.fill()
		o.must(o.g.SetService(s))
	}
	return port, backend
}

// client is a packet of somebody in another network to there.
func (o *outer) client(f frame, to netip.AddrPort) frame {
	f.src = pick(f.src.Is6(), mustAddr("203.0.113.99"), mustAddr("2001:db8:99::99"))
	f.dstMAC, f.srcMAC = o.mac, net.HardwareAddr{2, 0, 0, 0, 0, 0xe}
	return f.at(to)
}

// passes wants a packet to be sent on as that, and to leave so.
func (o *outer) passes(what string, f, want frame) {
	o.Helper()
	r := o.enters(f)
	o.expect(what, r, actionSend, 0, policy.Ingress)
	want.ttl--
	want.dstMAC, want.srcMAC = o.mac, net.HardwareAddr{2, 0, 0, 0, 0, 0xe}
	if string(r.data) != string(want.bytes()) {
		o.Errorf("%s: sent on as\n%x, want\n%x", what, r.data, want.bytes())
	}
	out := o.through(o.g.objs.HgToNetwork, o.uplink, r.mark, want)
	if out.action != actionNext || string(out.data) != string(want.bytes()) || r.mark&redirect.MarkMask != 0x900 {
		o.Errorf("%s: leaves with action %d, mark %#x, as\n%x", what, out.action, r.mark, out.data)
	}
}

// A client outside comes to a port of the node that leads outside: the backend sees the
// node, the client the port that it asked.
func TestTransit(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		for name, f := range map[string]frame{"TCP": o.tcp(v6, 40000, 0, 0), "UDP": o.udp(v6, 40000, 0)} {
			o.renew(nil, nil)
			port, backend := o.opened(v6)
			there := o.client(f, port)
			onward := there.at(backend).asNode(40000)
			what := family + " " + name
			if name == "TCP" {
				o.expectAll(what+" of no connection", o.enters(there.with(ack)), actionNext, "")
			}
			for _, flags := range [][2]uint8{{syn, syn | ack}, {ack, ack}, {ack, ack}} {
				o.passes(what, there.with(flags[0]), onward.with(flags[0]))
				o.passes(what+", answer", onward.reversed(flags[1]), there.reversed(flags[1]))
			}
			if h := o.holds(); len(h) != 1 || h[0].Settled != (name == "TCP") || !h[0].Live {
				t.Errorf("%s: holds %+v", what, h)
			}
			// Errors about it, and packets that go no further.
			kind := map[bool]uint8{false: 3, true: 2}[v6]
			r := o.enters(complaint(onward, pick(v6, router4, router6), kind, 4))
			o.expect(what+": router's error", r, actionSend, 0, policy.Ingress)
			want := complaint(there, pick(v6, router4, router6), kind, 4)
			want.payload = slices.Clone(there.bytes()[14 : 14+len(want.payload)])
			o.sameError(r.data, want)
			for way, f := range map[string]frame{"there": there.with(ack), "back": onward.reversed(ack)} {
				f.ttl = 1
				r = o.enters(f)
				o.expect(what+": no hop left, "+way, r, actionSend, 196, policy.Egress)
				want := expired(f)
				want.src = pick(v6, node4, node6)
				o.sameError(r.data, want)
			}
			// A second client with the same port gets another of the node's.
			second := there
			second.src = second.src.Next()
			r = o.enters(second.with(syn))
			o.expect(what+": second client", r, actionSend, 0, policy.Ingress)
			if got := nodePort(onward, r.data); got == 40000 {
				t.Errorf("%s: two clients have one port", what)
			}
		}
	}
}

// Nobody is led on in a name that is not his, by an address that is only routed here,
// or against host policy, which sees the backend's port.
func TestTransitRefused(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		port, backend := o.opened(v6)
		f := o.client(o.tcp(v6, 40000, 0, syn), port)
		forged := f
		forged.src = pick(v6, host4, host6)
		o.expect(family+": as the host", o.enters(forged), actionShot, 132, policy.Ingress)
		o.serve(v6, nil, backend)
		o.expect(family+": by a virtual address", o.enters(o.client(o.tcp(v6, 40000, 0, syn), netip.AddrPortFrom(vip(v6), servicePort))), actionShot, 158, policy.Ingress)

		o.must(o.g.SyncPolicy(subjectHost, nil, PolicyTable{ingress(0, policy.ProtoTCP, transitPort, 16): allow(1)}))
		o.must(o.g.SetSettings(Settings{Host: HostEnforce, HostSubject: subjectHost}))
		o.expect(family+": against host policy", o.enters(f), actionShot, 133, policy.Ingress)
		allowed := PolicyTable{ingress(0, policy.ProtoTCP, backendPort, 16): allow(1)}
		o.must(o.g.SyncPolicy(subjectHost, nil, allowed))
		onward := f.at(backend).asNode(40000)
		o.passes(family+": SYN", f, onward)
		o.passes(family+": SYN-ACK", onward.reversed(syn|ack), f.reversed(syn|ack))
		o.must(o.g.SyncPolicy(subjectHost, allowed, PolicyTable{}))
		o.must(o.g.SetRevision(7))
		o.expect(family+": revoked", o.enters(onward.reversed(ack)), actionShot, 133, policy.Ingress)
		o.expect(family+": revoked", o.enters(f.with(ack)), actionShot, 133, policy.Ingress)
		o.must(o.g.SetSettings(Settings{}))
	}
}

// A datagram in pieces, and its answer.
func TestTransitFragments(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		port, backend := o.opened(v6)
		there := o.client(o.udp(v6, 40000, 0), port)
		there.payload = make([]byte, 64)
		onward := there.at(backend).asNode(40000)
		for _, first := range []bool{true, false} {
			o.passes(family+": fragment", there.piece(first), onward.piece(first))
		}
		for _, first := range []bool{true, false} {
			o.passes(family+": fragment of the answer", onward.reversed(0).piece(first), there.reversed(0).piece(first))
		}
	}
}

// piece is the first fragment of a datagram, or what follows 64 bytes of payload.
func (f frame) piece(first bool) frame {
	v6 := f.src.Is6()
	f.datagram, f.fragment = 99, map[bool]uint16{false: 0x2000, true: 1}[v6]
	if !first {
		f.body = []byte("the rest")
		f.fragment = map[bool]uint16{false: 9, true: 9 << 3}[v6]
	}
	return f
}
