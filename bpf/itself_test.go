package bpf

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// meets is the packet as a workload has it from itself.
func (f frame) meets() frame {
	f.src = pick(f.src.Is6(), itself4, itself6)
	return f
}

// throughItself sends a packet of a to vip, which leads to a, and a's answer to it.
func (l *lab) throughItself(what string, f frame, there, back uint8) {
	l.Helper()
	at := f.at(l.a.backend(f.src.Is6())).meets()
	r := l.sends(l.a, f.asked().with(there))
	l.delivered(what, r)
	l.rewritten(at.with(there), l.a, r.data)
	answer := at.reversed(back)
	answer.srcMAC, answer.dstMAC = l.a.mac, gatewayMAC
	r = l.sends(l.a, answer)
	l.delivered(what+", its answer", r)
	l.rewritten(f.asked().reversed(back), l.a, r.data)
}

// A workload that is itself behind a service gets there, whatever policy says of others,
// and answers itself.
func TestServiceOfItself(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		l.reset(PolicyTable{}, nil)
		l.serve(v6, nil, l.a.backend(v6))
		f := l.tcp(v6, 40000, 0, 0)
		l.sends(l.a, f.asked().with(syn))
		seen := l.seen()
		if len(seen) != 1 || seen[0].Kind != EventVerdict || seen[0].Verdict != policy.Allow || seen[0].Source != f.source() || seen[0].Destination != l.a.backend(v6) {
			t.Errorf("%s: told %+v", family, seen)
		}
		l.forget()
		l.throughItself(family+" opening", f, syn, syn|ack)
		l.throughItself(family+" open", f, ack, ack)
		if got := l.g.Shares(); len(got) != 1 || got[0] != (Share{l.a.id, 1}) {
			t.Errorf("%s: shares %+v", family, got)
		}
		if _, err := l.g.Conntrack().Collect(t.Context()); err != nil {
			t.Error(err)
		}
		l.throughItself(family+" after collection", f, ack, ack)
		l.throughItself(family+" closing", f, ack|fin, ack|fin)
		l.throughItself(family+" again", f, syn, syn|ack)
		l.throughItself(family+" again", f, ack, ack)

		u := l.udp(v6, 40000, 0)
		u.payload = make([]byte, 64)
		for _, first := range []bool{true, false} {
			l.throughItself(family+" datagram in pieces", u.piece(first), 0, 0)
		}
		l.itselfTold(family, u)
		if n, err := l.g.CutService(serviceTCP, l.a.backend(v6)); err != nil || n != 1 {
			t.Errorf("%s: cut %d, %v", family, n, err)
		}
		l.dropped(family+": of what was cut", l.sends(l.a, f.asked().with(ack)), 163)
	}
}

// itselfTold wants errors about u and its answer to reach a as from the service, and
// to be told by the gateway of one without hops.
func (l *lab) itselfTold(what string, u frame) {
	l.Helper()
	v6 := u.src.Is6()
	kind := map[bool]uint8{false: 3, true: 1}[v6]
	u.fragment, u.payload = 0, []byte("payload")
	sent, met := u.asked(), u.at(l.a.backend(v6)).meets()
	about := func(quoted frame, from, to netip.Addr) frame {
		e := complaint(quoted, from, kind, 4)
		e.dst, e.srcMAC, e.dstMAC = to, l.a.mac, gatewayMAC
		return e
	}
	// The port is closed: said by a of what it met, heard by a of what it sent.
	r := l.sends(l.a, about(met, l.a.addr(v6), met.src))
	l.delivered(what+": error of the backend", r)
	want := about(met, vip(v6), sent.src)
	want.payload = slices.Clone(sent.bytes()[14 : 14+len(want.payload)])
	want.dstMAC, want.srcMAC = l.a.mac, gatewayMAC
	l.sameQuote(what, r.data, want)
	// And of the answer.
	r = l.sends(l.a, about(sent.reversed(0), l.a.addr(v6), vip(v6)))
	l.delivered(what+": error of the client", r)
	want = about(met.reversed(0), met.src, l.a.addr(v6))
	want.dstMAC, want.srcMAC = l.a.mac, gatewayMAC
	l.sameQuote(what, r.data, want)

	dying := sent
	dying.ttl = 1
	r = l.sends(l.a, dying)
	l.expect(what+": no hop left", r, actionSend, 196, policy.Egress)
}

// sameQuote compares addresses and quotation, without checksums of what is quoted.
func (l *lab) sameQuote(what string, got []byte, want frame) {
	l.Helper()
	header := 20
	if want.src.Is6() {
		header = 40
	}
	w := want.bytes()
	at := 14 + header + 8 // the quotation
	if len(got) < at+header+4 || string(got[14+header-2*len(want.src.AsSlice()):14+header]) != string(w[14+header-2*len(want.src.AsSlice()):14+header]) ||
		string(got[at+header-2*len(want.src.AsSlice()):at+header+4]) != string(w[at+header-2*len(want.src.AsSlice()):at+header+4]) {
		l.Errorf("%s: got\n%x, want\n%x", what, got, w)
	}
	if want.src.Is4() && sum(got[14:34]) != 0xffff {
		l.Errorf("%s: the header's checksum is wrong: %x", what, got)
	}
}

// Nobody else speaks in the name by which a workload meets itself, nor is anything
// there.
func TestItselfIsNobody(t *testing.T) {
	o := newOuter(t)
	for family, v6 := range families {
		o.renew(nil, nil)
		o.serve(v6, nil, o.a.backend(v6))
		f := o.tcp(v6, 40000, 0, 0)
		o.throughItself(family, f, syn, syn|ack)
		o.throughItself(family, f, ack, ack)
		met := f.at(o.a.backend(v6)).meets()
		o.expect(family+": from outside", o.enters(met.with(ack)), actionShot, 132, policy.Ingress)
		o.expect(family+": an error from outside", o.enters(complaint(met.reversed(ack), met.src, map[bool]uint8{false: 3, true: 1}[v6], 3)), actionShot, 132, policy.Ingress)
		o.dropped(family+": from another workload", o.sends(o.b, met.with(ack)), 132)
		stray := met.reversed(ack)
		stray.srcMAC, stray.dstMAC, stray.dport = o.a.mac, gatewayMAC, 9
		for _, flags := range []uint8{syn, ack, rst} {
			o.dropped(fmt.Sprintf("%s: to nobody, %#x", family, flags), o.sends(o.a, stray.with(flags)), 163)
		}
		u := o.udp(v6, 40000, 9).to(met.src)
		o.dropped(family+": a datagram to nobody", o.sends(o.a, u), 163)
		if n, err := entries(o.g.objs.HgCtAny1); err != nil || n != 0 {
			t.Errorf("%s: %d connections are left of it, %v", family, n, err)
		}
	}
}

// Through a real kernel: one socket of a workload reaches another of the same by the
// service.
func TestWireServiceOfItself(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := w.in(t)
			l.reset(PolicyTable{}, nil)
			l.serve(v6, nil, l.a.backend(v6))
			came := (&wired{lab: l}).serve(w.nsA, l.a.addr(v6), backendPort)
			c, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(vip(v6), servicePort), patience)
			l.must(err)
			defer c.Close()
			echoed(t, c)
			if who := <-came; who.Addr() != pick(v6, itself4, itself6) || who.Port() != ends(c.LocalAddr()).Port() {
				t.Errorf("the server sees %s, the client is %s", who, c.LocalAddr())
			}
			// Much at once, in segments that the devices cut up.
			go func() { c.Write(make([]byte, 1<<20)) }() //nolint:errcheck // the read notices
			if n, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
				t.Errorf("%d bytes came back: %v", n, err)
			}
			// A closed UDP port is heard of.
			u, err := w.dial(w.nsA, "udp", netip.AddrPortFrom(vip(v6), servicePort), patience)
			l.must(err)
			defer u.Close()
			if _, err := u.Write([]byte("anybody?")); err != nil {
				t.Fatal(err)
			}
			if _, err := u.Read(make([]byte, 9)); !isRefused(err) {
				t.Errorf("a closed port: %v", err)
			}
		})
	}
}

func isRefused(err error) bool {
	op, ok := err.(*net.OpError)
	return ok && fmt.Sprint(op.Err) == "read: "+unix.ECONNREFUSED.Error()
}
