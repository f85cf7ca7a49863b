package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// What somebody outside sends in a name that is not his is dropped, whatever policy
// says of that name: here it lets the host and everybody in.
func TestForgedFromOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, PolicyTable{ingress(policy.IdentityHost, 0, 0, 0): allow(1), ingress(policy.IdentityWorld, 0, 0, 0): allow(1), egress(0, 0, 0, 0): allow(1)})
		o.serve(v6, nil, o.b.backend(v6))
		sources := map[string]netip.Addr{
			"the gateway": gateway4, "loopback": mustAddr("127.0.0.1"), "nobody": mustAddr("0.0.0.0"), "a group": mustAddr("224.0.0.1"),
			"all": mustAddr("255.255.255.255"), "reserved": mustAddr("240.0.0.1"),
		}
		if v6 {
			sources = map[string]netip.Addr{"the gateway": gateway6, "loopback": netip.IPv6Loopback(), "nobody": netip.IPv6Unspecified(), "a group": mustAddr("ff02::1")}
		}
		sources["the node"], sources["the node elsewhere"] = pick(v6, node4, node6), pick(v6, host4, host6)
		sources["a service"], sources["a workload"] = vip(v6), o.a.addr(v6)
		for name, src := range sources {
			for _, to := range []netip.AddrPort{o.b.backend(v6), netip.AddrPortFrom(vip(v6), servicePort)} {
				for _, f := range []frame{o.udp(v6, 5000, 0), o.tcp(v6, 5000, 0, syn)} {
					f = f.at(to)
					f.src = src
					o.expect(family+" as "+name, o.enters(f), actionShot, 132, policy.Ingress)
				}
			}
		}
		f := o.udp(v6, 5000, 0).at(o.b.backend(v6))
		f.src = pick(v6, world4, world6)
		o.expect(family+" as itself", o.enters(f), actionSend, 0, policy.Ingress)

		// A router on the way has no such name either.
		left := o.sent(o.b, o.world(o.udp(v6, 40000, 53)).by(o.b))
		delete(sources, "the gateway") // routers are called so on their own link
		for name, by := range sources {
			o.expect(family+": error of "+name, o.enters(complaint(left, by, map[bool]uint8{false: 3, true: 1}[v6], 3)), actionShot, 132, policy.Ingress)
		}
	}
}

// Errors about connections that others have, told by those who have no part in them.
func TestErrorsAboutOthers(t *testing.T) {
	o := newOuter(t)
	c := o.b
	c.v4, c.v6, c.mac, c.id, c.ifindex = mustAddr("10.1.0.3"), mustAddr("fd00:1::3"), []byte{2, 0, 0, 0, 0, 0xc}, 3, o.host
	for family, v6 := range families {
		o.renew(nil, nil)
		o.put(c, true)
		inside := o.udp(v6, 40000, 53)
		o.delivered("between workloads", o.sends(o.a, inside))
		outer := o.sent(o.a, o.world(o.udp(v6, 40001, 53)))
		kind := map[bool]uint8{false: 3, true: 1}[v6]
		router := pick(v6, router4, router6)
		for _, x := range []struct {
			name   string
			f      frame
			by     workload // the zero workload: outside
			reason uint8
			way    policy.Direction
		}{
			{"of a third workload, in its name", complaint(inside, c.addr(v6), kind, 3), c, 132, policy.Egress},
			{"of a third workload, in b's name", complaint(inside, o.b.addr(v6), kind, 3), c, 132, policy.Egress},
			{"of a router outside, between workloads", complaint(inside, router, kind, 3), workload{}, 132, policy.Ingress},
			{"of outside in b's name", complaint(inside, o.b.addr(v6), kind, 3), workload{}, 132, policy.Ingress},
			{"of outside, about another port", complaint(outer.asNode(9), router, kind, 3), workload{}, 0, policy.Ingress},
			{"of outside, of a's own address", complaint(o.world(o.udp(v6, 40002, 53)), router, kind, 3), workload{}, 239, policy.Egress},
		} {
			var r result
			if x.by.id > 0 {
				x.f.srcMAC, x.f.dstMAC = x.by.mac, gatewayMAC
				r = o.sends(x.by, x.f)
			} else {
				r = o.enters(x.f)
			}
			if x.reason == 0 { // nobody's: the host's
				o.expectAll(family+": "+x.name, r, actionNext, "")
				continue
			}
			if r.action != actionShot {
				o.Errorf("%s: %s: action %d", family, x.name, r.action)
			}
			if got := o.counted(); got != map[uint8]string{132: "132 " + x.way.String(), 239: "239 " + policy.Ingress.String()}[x.reason] {
				o.Errorf("%s: %s: counted %q", family, x.name, got)
			}
			o.forget()
		}
	}
}

// Pieces that would write over what was judged, in every order.
func TestOverlappingFragments(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		unit := map[bool]uint16{false: 1, true: 8}[v6]
		piece := func(dport, at uint16, more bool, n int) frame {
			f := l.udp(v6, 40000, dport)
			f.payload = make([]byte, n)
			f.datagram, f.fragment = 5, at*unit
			if more {
				f.fragment |= map[bool]uint16{false: 0x2000, true: 1}[v6]
			}
			if at > 0 {
				f.body = make([]byte, n)
			}
			return f
		}
		only53 := PolicyTable{egress(0, policy.ProtoUDP, 53, 16): allow(1)}
		first := piece(53, 0, true, 24) // 32 bytes: units 0 to 3
		l.reset(only53, nil)
		l.delivered("first", l.sends(l.a, first))
		for at, reason := range map[uint16]uint8{1: 157, 2: 157, 3: 157} {
			l.dropped(family+": over it", l.sends(l.a, piece(53, at, true, 16)), reason)
		}
		l.delivered("behind it", l.sends(l.a, piece(53, 4, true, 16)))
		// Another first of the same datagram is judged by itself, and changes nothing.
		l.dropped(family+": first to another port", l.sends(l.a, piece(54, 0, true, 24)), 133)
		l.dropped(family+": over the one let through", l.sends(l.a, piece(53, 3, false, 8)), 157)
		l.delivered("behind it", l.sends(l.a, piece(53, 6, false, 8)))
		tiny := piece(53, 0, true, 0)
		tiny.body = tiny.transport()[:8]
		tiny.proto = protoTCP
		l.dropped(family+": half a TCP header", l.sends(l.a, tiny), 134)
	}
}

// A flood of openings from forged sources, which the server answers, stays where it
// evicts its own kind: nothing that is established is refused for it.
func TestHalfOpenFlood(t *testing.T) {
	o := newOuter(t)
	o.must(o.g.SetSettings(Settings{Share: 4}))
	for _, v6 := range families {
		o.renew(nil, nil)
		for port := range uint16(64) {
			f := o.world(o.tcp(v6, backendPort, 20000+port, 0)).reversed(syn) // to a
			o.expect("SYN", o.enters(f), actionSend, 0, policy.Ingress)
			back := f.reversed(syn | ack)
			back.srcMAC, back.dstMAC = o.a.mac, gatewayMAC
			o.expect("SYN-ACK", o.sends(o.a, back), actionSend, 0, policy.Egress)
		}
		if n, err := entries(o.g.objs.HgCtTcp1); n != 0 || err != nil {
			t.Errorf("%d connections that nobody confirmed are established, %v", n, err)
		}
		o.open(o.tcp(v6, 40000, 80, 0))
	}
}

// A reset by who is not the peer: whoever goes on lives on, whatever its numbers.
func TestForgedReset(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		f := o.world(o.tcp(v6, 40000, 80, 0))
		left := o.sent(o.a, f.with(syn))
		o.answered(o.a, f, left, syn|ack)
		o.sent(o.a, f.with(ack))
		o.answered(o.a, f, left, ack)
		o.answered(o.a, f, left, rst) // of nobody
		life := func() time.Duration {
			e, _ := o.entry(f)
			return time.Duration(int64(e.Expires) - monotonic())
		}
		if got := life(); got > 10*time.Second {
			t.Errorf("%s: after a reset it lives %v", family, got)
		}
		o.answered(o.a, f, left, ack)
		if got := life(); got < time.Hour {
			t.Errorf("%s: its peer goes on, and it lives %v", family, got)
		}
	}
}

// Both ends open at once; and who opens the other way round, on ports of a connection
// that is over, is judged by itself.
func TestOpenedFromBothEnds(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		f := l.tcp(v6, 40000, 80, 0)
		l.reset(nil, PolicyTable{ingress(0, 0, 0, 0): allow(1)}) // b may open nothing
		l.expect(family+": b's SYN", l.answers(f, syn), actionShot, 133, policy.Egress)
		l.delivered("a's SYN", l.sends(l.a, f.with(syn)))
		l.delivered("b's SYN, of a's connection", l.answers(f, syn))
		l.delivered("a's SYN-ACK", l.sends(l.a, f.with(syn|ack)))
		l.delivered("b's SYN-ACK", l.answers(f, syn|ack))
		l.delivered("a's reset", l.sends(l.a, f.with(rst)))
		l.expect(family+": b's SYN on what is over", l.answers(f, syn), actionShot, 133, policy.Egress)
		for name, flags := range map[string]uint8{"SYN-ACK": syn | ack, "ACK": ack, "FIN": fin | ack, "RST": rst} {
			l.dropped(family+": b's "+name+" of what never was", l.answers(l.tcp(v6, 40001, 80, 0), flags), 163)
		}
	}
}
