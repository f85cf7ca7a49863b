package bpf

import (
	"bytes"
	"net"
	"testing"
)

// expired is the gateway's answer to a packet whose hops are used up.
func expired(f frame) frame {
	a := frame{dstMAC: f.srcMAC, srcMAC: gatewayMAC, src: gateway4, dst: f.src, ttl: 64, proto: protoICMP, icmpType: 11}
	quote := 548
	if f.src.Is6() {
		a.src, a.proto, a.icmpType, quote = gateway6, protoICMPv6, 3, 1232
	}
	a.payload = f.bytes()[14:]
	a.payload = a.payload[:min(len(a.payload), quote)]
	return a
}

func TestTimeToLive(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for name, f := range map[string]frame{
			"TCP": l.tcp(v6, 40000, 80, syn), "UDP": l.udp(v6, 40000, 33434), "echo": l.echo(v6, 3),
			"odd length": func() frame { f := l.udp(v6, 1, 2); f.payload = make([]byte, 101); f.payload[100] = 9; return f }(),
			"long":       func() frame { f := l.udp(v6, 1, 2); f.payload = bytes.Repeat([]byte{7}, 1400); return f }(),
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := l.in(t)
				for _, ttl := range []uint8{0, 1, 2, 255} {
					l.reset(nil, nil)
					f := f
					f.ttl = ttl
					r := l.sends(l.a, f)
					if ttl > 1 {
						l.delivered("packet", r)
						l.rewritten(f, l.b, r.data)
						continue
					}
					if got := l.counted(); r.action != actionSend || got != "0 egress, 196 egress" { // policy let it through before
						t.Errorf("TTL %d: action %d, counted %q", ttl, r.action, got)
					}
					if want := expired(f).bytes(); !bytes.Equal(r.data, want) {
						t.Errorf("TTL %d: answered\n%x, want\n%x", ttl, r.data, want)
					}
				}
			})
		}
	}
}

// No answer to what policy drops, about errors and later fragments, nor without end.
func TestNotAnswered(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		silent := func(what string, f frame, counted string) {
			t.Helper()
			f.ttl = 1
			l.forget()
			if r := l.sends(l.a, f); r.action != actionShot || l.counted() != counted {
				t.Errorf("%s: action %d, counted %q", what, r.action, l.counted())
			}
		}
		l.reset(PolicyTable{}, nil)
		silent("denied", l.udp(v6, 1, 2), "133 egress")
		l.reset(nil, nil)
		u := l.udp(v6, 40000, 53)
		l.delivered("question", l.sends(l.b, u.reversed(0).from(l.b)))
		silent("an error", l.errorOf(u.reversed(0)), "0 egress, 196 egress")
		l.forget()
		first, later := l.fragments(u, 8)
		l.delivered("first fragment", l.sends(l.a, first))
		silent("a later fragment", later, "0 egress, 196 egress")
	}
	l.reset(nil, nil)
	answers := 0
	for range 200 {
		f := l.udp(false, 40000, 53)
		f.ttl = 1
		if l.sends(l.a, f).action == actionSend {
			answers++
		}
	}
	if answers < 20 || answers > 100 {
		t.Errorf("%d answers to 200 packets at once", answers)
	}
}

// from is the packet as that workload sends it to the gate.
func (f frame) from(w workload) frame {
	f.srcMAC, f.dstMAC = w.mac, gatewayMAC
	return f
}

// errorOf is a's error, port unreachable, about a packet that it got.
func (l *lab) errorOf(about frame) frame {
	e := frame{dstMAC: gatewayMAC, srcMAC: l.a.mac, src: about.dst, dst: about.src, ttl: 64, proto: protoICMP, icmpType: 3, icmpCode: 3}
	if e.src.Is6() {
		e.proto, e.icmpType, e.icmpCode = protoICMPv6, 1, 4
	}
	e.payload = about.bytes()[14:]
	return e
}

// fragments are a datagram in two, the first with so many bytes of transport.
func (l *lab) fragments(f frame, first int) (frame, frame) {
	one, two := f, f
	transport := f.transport()
	one.body, two.body = transport[:first], transport[first:]
	one.datagram, two.datagram = 77, 77
	if one.fragment, two.fragment = 0x2000, uint16(first/8); f.src.Is6() {
		one.fragment, two.fragment = 1, uint16(first)
	}
	return one, two
}

// Who is in another network is answered by the node, and told of what it sent.
func TestTimeToLiveFromOutside(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		o.serve(v6, nil, o.a.backend(v6))
		left := o.sent(o.a, o.world(o.udp(v6, 40000, 53)))
		own := o.world(o.udp(v6, 80, 50000)).reversed(0)
		for name, f := range map[string]frame{"to a workload": own, "to a service": own.asked(), "an answer": left.reversed(0)} {
			f.ttl, f.dstMAC, f.srcMAC = 1, o.mac, net.HardwareAddr{2, 0, 0, 0, 0, 0xe}
			r := o.enters(f)
			o.expectAll(family+" "+name, r, actionSend, "0 ingress, 196 egress")
			want := expired(f)
			want.src, want.srcMAC = pick(v6, node4, node6), o.mac
			if !bytes.Equal(r.data, want.bytes()) {
				t.Errorf("%s %s: answered\n%x, want\n%x", family, name, r.data, want.bytes())
			}
		}
	}
}
