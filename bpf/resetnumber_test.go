package bpf

import (
	"testing"
	"time"

	"github.com/headgate/headgate/redirect"
)

// Numbers of a connection, as b and a have them when it is open.
const (
	numberA, numberB = 0x70000000, 0xfffffff0
)

// numbered opens a connection with these numbers.
func (l *lab) numbered(f frame) {
	l.Helper()
	f.seq = numberA - 1
	l.delivered("SYN", l.sends(l.a, f.with(syn)))
	b := f
	b.seq, b.ackn = numberB-1, numberA
	l.delivered("SYN-ACK", l.answers(b, syn|ack))
	f.seq, f.ackn = numberA, numberB
	l.delivered("ACK", l.sends(l.a, f.with(ack)))
}

func (l *lab) closing(f frame) bool {
	l.Helper()
	e, where := l.entry(f)
	if where != "tcp" {
		l.Fatalf("the connection is in %q", where)
	}
	return e.Flags&ctClosing != 0
}

// A reset ends a connection if it has the number that its receiver expects next; near
// it, unless the receiver goes on; and else not (RFC 5961).
func TestResetByItsNumber(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for name, c := range map[string]struct {
			ahead    uint32 // of what a expects of b
			closes   bool
			survives bool // a's going on
		}{
			"exact":           {0, true, false},
			"just ahead":      {1, true, true},
			"window's end":    {0xffff, true, true},
			"beyond":          {0x10000, false, true},
			"just before":     {0xffffffff, false, true},
			"far off":         {0x80000000, false, true},
			"across the wrap": {0x20, true, true},
		} {
			l.reset(nil, nil)
			f := l.tcp(v6, 40000, 80, 0)
			l.numbered(f)
			bogus := f
			bogus.seq = numberB
			bogus.seq += c.ahead
			l.delivered(name, l.answers(bogus, rst|ack)) // its receiver judges for itself
			if got := l.closing(f); got != c.closes {
				t.Errorf("%s: %s: closing %v, want %v", family, name, got, c.closes)
			}
			f.seq, f.ackn = numberA, numberB
			l.delivered("a goes on", l.sends(l.a, f.with(ack)))
			if got := l.closing(f); got == c.survives {
				t.Errorf("%s: %s, and a goes on: closing %v", family, name, got)
			}
		}
	}
}

// What an entry of an earlier release has in place of the numbers is none: a reset ends the
// connection, whatever its number.
func TestResetOfEarlierEntry(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		l.reset(nil, nil)
		f := l.tcp(v6, 40000, 80, 0)
		l.numbered(f)
		e, _ := l.entry(f)
		e.Flags &^= ctAcked
		e.Acked = [2]uint32{0x5eed5eed, 0x5eed5eed}
		k := f.key()
		l.must(l.g.objs.HgCtTcp1.Put(&k, &e))
		b := f
		b.seq = numberB
		l.delivered(family, l.answers(b, rst|ack))
		if !l.closing(f) {
			t.Errorf("%s: the reset is judged by what was no number", family)
		}
	}
}

// After data a reset has the number behind it, acknowledged or not.
func TestResetAfterData(t *testing.T) {
	l := newLab(t)
	f := l.tcp(false, 40000, 80, 0)
	l.numbered(f)
	data := f
	data.seq, data.ackn = numberB, numberA
	l.delivered("data", l.answers(data, ack))
	after := data
	after.seq += uint32(len(f.payload))
	l.delivered("reset behind data that is not acknowledged", l.answers(after, rst))
	if !l.closing(f) {
		t.Error("it lives on")
	}
	crossing := f
	crossing.seq, crossing.ackn = numberA, after.seq
	l.delivered("an acknowledgement that crosses it", l.sends(l.a, crossing.with(ack)))
	l.delivered("and its answer", l.answers(after, rst))
	if !l.closing(f) {
		t.Error("it lives on after the second reset")
	}
	l.delivered("what is late", l.sends(l.a, crossing.with(ack)))
	if !l.closing(f) {
		t.Error("what was on its way brought it back")
	}
	// The opener resets what it was told of.
	l.reset(nil, nil)
	l.numbered(f)
	own := f
	own.seq = numberA
	l.delivered("the opener's", l.sends(l.a, own.with(rst)))
	if e, _ := l.entry(f); e.Flags&ctClosing == 0 || time.Duration(int64(e.Expires)-monotonic()) > 11*time.Second {
		t.Errorf("after the opener's: %+v", e)
	}
}

// Of a connection that a proxy carries what the proxy sends says which numbers are
// right, at either end.
func TestForgedResetOfProxied(t *testing.T) {
	l := newLab(t)
	l.reset(redirecting(setOne, 0))
	port := listen(t, "127.0.0.1:0")
	l.must(l.g.SetRoute(AnyRoute(1), port))
	f := l.tcp(false, 40000, 80, syn)
	l.sends(l.a, f)
	toClient := f.reversed(syn | ack)
	toClient.srcMAC, toClient.dstMAC, toClient.ackn = gatewayMAC, l.a.mac, numberA
	l.gets(l.a, toClient, redirect.MarkFromProxy)
	f.ackn = 0x12345678 // of the proxy's numbers, which the server does not have
	l.sends(l.a, f.with(ack))
	toServer := f.with(syn)
	toServer.srcMAC, toServer.dstMAC = gatewayMAC, l.b.mac
	l.gets(l.b, toServer, redirect.MarkFromProxy)
	l.answers(f, syn|ack)
	toServer.ackn = numberB
	l.gets(l.b, toServer.with(ack), redirect.MarkFromProxy)
	l.forget()

	if e, where := l.entry(f); e.Acked != [2]uint32{numberB, numberA} || where != "tcp" {
		t.Fatalf("in %q: %+v", where, e)
	}
	server := f
	server.seq = 0x12345678
	l.answers(server, rst|ack)
	if l.closing(f) {
		t.Error("a reset with the number of the other leg closes it")
	}
	server.seq = numberB
	l.answers(server, rst|ack)
	if !l.closing(f) {
		t.Error("the server's reset does not close it")
	}
}
