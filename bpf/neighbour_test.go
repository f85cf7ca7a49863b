package bpf

import (
	"bytes"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
)

func TestARP(t *testing.T) {
	l := newLab(t)
	r := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, arp(1, l.a.mac, l.a.v4, gateway4))
	if r.action != actionSend {
		t.Fatalf("asked for the gateway: action %d", r.action)
	}
	want := arp(2, gatewayMAC, gateway4, l.a.v4)
	copy(want, l.a.mac)
	copy(want[32:], l.a.mac)
	if !bytes.Equal(r.data, want) {
		t.Errorf("answer\n%x, want\n%x", r.data, want)
	}
	l.forget()
	spoil := func(at int, b ...byte) []byte {
		p := arp(1, l.a.mac, l.a.v4, gateway4)
		copy(p[at:], b)
		return p
	}
	for name, p := range map[string][]byte{
		"somebody else":           arp(1, l.a.mac, l.a.v4, l.b.v4),
		"its own address":         arp(1, l.a.mac, l.a.v4, l.a.v4),
		"an answer":               arp(2, l.a.mac, gateway4, l.b.v4),
		"another operation":       arp(3, l.a.mac, l.a.v4, gateway4),
		"another protocol":        spoil(16, 0x86, 0xdd),
		"a long link address":     spoil(18, 20),
		"a long protocol address": spoil(19, 16),
		"a short message":         spoil(0)[:41],
	} {
		r := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, p)
		l.dropped(name, r, 235)
		if e := l.seen(); len(e) != 0 {
			t.Errorf("%s: %d events of what every machine sends by itself", name, len(e))
		}
	}
	// The host's own messages pass to the workload.
	if r := l.run(l.g.objs.HgToWorkload, l.a.ifindex, 0, arp(1, gatewayMAC, gateway4, l.a.v4)); r.action != actionShot {
		t.Errorf("from the host: action %d", r.action)
	}
}

func TestNeighbourSolicitation(t *testing.T) {
	l := newLab(t)
	linkLocal := netip.MustParseAddr("fe80::a")
	for _, source := range []netip.Addr{l.a.v6, linkLocal} {
		for _, unicast := range []bool{false, true} { // first contact; later probes
			f := solicit(l.a.mac, source, gateway6)
			if unicast {
				f.dst, f.dstMAC = gateway6, gatewayMAC
			}
			r := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, f.bytes())
			if r.action != actionSend {
				t.Fatalf("%s asked for the gateway: action %d", source, r.action)
			}
			g := gateway6.As16()
			want := frame{
				dstMAC: l.a.mac, srcMAC: gatewayMAC, src: gateway6, dst: source, proto: protoICMPv6, icmpType: 136, ttl: 255,
				id: 0xe000, payload: append(append(g[:], 2, 1), gatewayMAC...), // router, solicited, override
			}
			if !bytes.Equal(r.data, want.bytes()) {
				t.Errorf("answer\n%x, want\n%x", r.data, want.bytes())
			}
			// Independent of how the expectation was made (RFC 8200, 8.1).
			if s := sum(r.data[22:54], []byte{0, 0, 0, 32, 0, 0, 0, protoICMPv6}, r.data[54:]); s != 0xffff {
				t.Errorf("checksum does not hold: %#x", s)
			}
			l.forget()
		}
	}
}

func TestNeighbourMessagesDropped(t *testing.T) {
	l := newLab(t)
	ask := solicit(l.a.mac, l.a.v6, gateway6)
	typed := func(n uint8) frame { f := ask; f.icmpType = n; return f }
	for name, f := range map[string]frame{
		"for another workload": solicit(l.a.mac, l.a.v6, l.b.v6),
		"duplicate detection": func() frame {
			f := solicit(l.a.mac, netip.IPv6Unspecified(), l.a.v6)
			f.payload = f.payload[:16]
			return f
		}(),
		"gateway as duplicate": func() frame {
			f := solicit(l.a.mac, netip.IPv6Unspecified(), gateway6)
			f.payload = f.payload[:16]
			return f
		}(),
		"from beyond a router":  func() frame { f := ask; f.ttl = 254; return f }(),
		"longer than it may be": func() frame { f := ask; f.payload = append(f.payload[:24:24], 1, 2); return f }(),
		"router solicitation":   typed(133),
		"router advertisement":  typed(134),
		"advertisement":         typed(136),
		"redirect":              typed(137),
	} {
		l.dropped(name, l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, f.bytes()), 235)
		if e := l.seen(); len(e) != 0 {
			t.Errorf("%s: %d events of what every machine sends by itself", name, len(e))
		}
	}
	// The host has no question of its own, and passes on nobody's.
	if r := l.gets(l.a, solicit(gatewayMAC, gateway6, l.a.v6), 0); r.action != actionShot {
		t.Errorf("solicitation of the host: action %d", r.action)
	}
	l.forget()
	f := l.udp(true, 5353, 5353).to(netip.MustParseAddr("ff02::fb"))
	f.src = host6
	l.expect("multicast of the host", l.gets(l.a, f, 0), actionShot, 230, policy.Ingress)
}
