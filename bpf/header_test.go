package bpf

import (
	"slices"
	"testing"
)

// options8 is a header of so many units of 8 bytes; its options are padding.
func options8(kind uint8, units int) extension {
	b := make([]byte, 8*units)
	b[1], b[2], b[3] = byte(units-1), 1, byte(8*units-4)
	return extension{kind, b}
}

// routing is a routing header.
func routing(kind, left uint8) extension {
	return extension{43, []byte{0, 2, kind, left, 23: 0}}
}

// The gate finds the transport behind extension headers, or refuses them.
func TestExtensionHeaders(t *testing.T) {
	l := newLab(t)
	hop, destination := options8(0, 1), options8(60, 3)
	ah := extension{51, []byte{0, 4, 23: 0}}
	whole := fragmentHeader(0, 1)
	for _, c := range []struct {
		name   string
		chain  []extension
		reason uint8
	}{
		{"hop-by-hop", []extension{hop}, 0},
		{"long hop-by-hop", []extension{options8(0, 17)}, 0},
		{"destination options", []extension{destination}, 0},
		{"all, in order", []extension{hop, destination, routing(4, 0), whole, ah, destination}, 0},
		{"one more", []extension{hop, destination, routing(4, 0), whole, ah, destination, destination}, 156},
		{"hop-by-hop in the middle", []extension{destination, hop}, 156},
		{"two hop-by-hop", []extension{hop, hop}, 156},
		{"routing type 0", []extension{routing(0, 1)}, 254},
		{"routing type 0, at its end", []extension{routing(0, 0)}, 254},
		{"home address", []extension{routing(2, 1)}, 254},
		{"segment routing, on its way", []extension{routing(4, 1)}, 254},
		{"segment routing, at its end", []extension{routing(4, 0)}, 0},
		{"ESP", []extension{{50, make([]byte, 8)}}, 142},
		{"mobility", []extension{{135, make([]byte, 8)}}, 142},
		{"no next header", []extension{hop, {59, make([]byte, 8)}}, 142},
		{"length beyond the packet", []extension{{60, []byte{0, 255, 0, 0, 0, 0, 0, 0}}}, 134},
		{"AH beyond the packet", []extension{{51, []byte{0, 255, 0, 0, 0, 0, 0, 0}}}, 134},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(PolicyTable{egress(0, 6, 80, 16): allow(1)}, nil)
			f := l.tcp(true, 40000, 80, syn)
			f.extensions = c.chain
			r := l.sends(l.a, f)
			if c.reason != 0 {
				l.dropped("packet", r, c.reason)
				return
			}
			l.delivered("packet", r)
			l.rewritten(f, l.b, r.data)
			f.dport = 81
			l.dropped("denied port", l.sends(l.a, f), 133)
			// The same packet, cut anywhere.
			f.dport, f.payload = 80, nil
			b := f.bytes()
			for n := 54; n < len(b); n++ {
				l.dropped("cut", l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, b[:n]), 134)
			}
		})
	}
}

// Options are parsed past, whatever they are; those that choose the way are not.
func TestSourceRoute(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		name    string
		options []byte
		reason  uint8
	}{
		{"router alert", []byte{148, 4, 0, 0}, 0},
		{"record route", []byte{7, 7, 4, 0, 0, 0, 0, 0}, 0},
		{"timestamp", []byte{68, 8, 5, 0, 0, 0, 0, 0}, 0},
		{"security label", []byte{134, 10, 0, 0, 0, 1, 1, 4, 0, 0, 0, 0}, 0},
		{"padding", slices.Repeat([]byte{1}, 40), 0},
		{"what an option contains", []byte{68, 8, 131, 137, 131, 3, 4, 0}, 0},
		{"behind the end", []byte{1, 0, 131, 3}, 0},
		{"loose source route", []byte{131, 7, 4, 10, 1, 0, 2, 0}, 254},
		{"strict source route", []byte{137, 7, 4, 10, 1, 0, 2, 0}, 254},
		{"behind others", []byte{1, 148, 4, 0, 0, 1, 131, 3, 4, 0, 0, 0}, 254},
		{"as the last byte", append(slices.Repeat([]byte{1}, 39), 131), 254},
		{"length 0", []byte{148, 0, 0, 0}, 134},
		{"length 1", []byte{148, 1, 0, 0}, 134},
		{"length beyond the header", []byte{148, 5, 0, 0}, 134},
		{"no length", []byte{1, 1, 1, 148}, 134},
		{"no length, at the very end", append(slices.Repeat([]byte{1}, 39), 148), 134},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(nil, nil)
			f := l.udp(false, 40000, 53)
			f.options = c.options
			r := l.sends(l.a, f)
			if c.reason != 0 {
				l.dropped("packet", r, c.reason)
				return
			}
			l.delivered("packet", r)
			l.rewritten(f, l.b, r.data)
		})
	}
}

// UDP may come without a checksum (RFC 768; over IPv6, RFC 6936): its receiver
// decides, and the gate adds none.
func TestZeroChecksum(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f := l.udp(v6, 40000, 53)
		at := map[bool]int{false: 14 + 20 + 6, true: 14 + 40 + 6}[v6]
		r := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, raw(f, at, 0, 0))
		l.delivered("packet", r)
		if r.data[at] != 0 || r.data[at+1] != 0 {
			t.Errorf("checksum %x", r.data[at:at+2])
		}
	}
}

// A keep-alive, one byte before what was acknowledged, keeps the entry for as long
// as any other packet, from either end.
func TestKeepAlive(t *testing.T) {
	l := newLab(t)
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	f.payload = []byte{0}
	for name, probe := range map[string]func() result{
		"of the opener":    func() result { return l.sends(l.a, f.with(ack)) },
		"of the other end": func() result { return l.answers(f, ack) },
	} {
		k := f.key()
		e, _ := l.entry(f)
		e.Expires = uint64(monotonic() + 1e9)
		l.must(l.g.objs.HgCtTcp1.Put(&k, &e))
		l.delivered(name, probe())
		if e, _ := l.entry(f); int64(e.Expires)-monotonic() < 21590e9 {
			t.Errorf("%s: the entry lives %d ns more", name, int64(e.Expires)-monotonic())
		}
	}
}
