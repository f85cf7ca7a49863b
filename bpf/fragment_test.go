package bpf

import (
	"fmt"
	"testing"

	"github.com/headgate/headgate/policy"
)

// Later fragments go where their first went, by its ports; before it, nowhere.
func TestFragments(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for name, f := range map[string]frame{"UDP": l.udp(v6, 40000, 53), "echo": l.echo(v6, 9)} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := l.in(t)
				port := f.dport
				if name == "echo" {
					port = uint16(f.icmpType)
				}
				l.reset(PolicyTable{egress(identityB, policy.Proto(f.proto), port, 16): allow(1)}, nil)
				f.payload = make([]byte, 100)
				first, later := l.fragments(f, 16)
				l.dropped("later before first", l.sends(l.a, later), 175)
				r := l.sends(l.a, first)
				l.delivered("first", r)
				l.rewritten(first, l.b, r.data)
				for range 2 { // nothing says which is the last
					r = l.sends(l.a, later)
					l.delivered("later", r)
					l.rewritten(later, l.b, r.data)
				}
				if e, _ := l.entry(f); e.Packets != [2]uint64{3, 0} {
					t.Errorf("the connection is %+v", e)
				}
				another := later
				another.datagram++
				l.dropped("of another datagram", l.sends(l.a, another), 175)
				another = later
				another.src, another.dst = f.dst, f.src
				l.dropped("the other way", l.sends(l.b, another.from(l.b)), 175)
				overlap := later
				overlap.fragment = map[bool]uint16{false: 0x2001, true: 9}[v6]
				l.dropped("over the first", l.sends(l.a, overlap), 157)
				// Policy takes it back in the middle.
				l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
				l.must(l.g.SetRevision(2))
				l.dropped("later, under another policy", l.sends(l.a, later), 133)
			})
		}
	}
}

// What the first fragment must have, and what is no first fragment.
func TestFirstFragments(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for _, c := range []struct {
			name   string
			proto  uint8
			first  int // bytes of transport
			reason uint8
		}{
			{"TCP without its header", protoTCP, 8, 134},
			{"TCP without its last bytes", protoTCP, 16, 134},
			{"TCP", protoTCP, 24, 0},
			{"UDP without its header", protoUDP, 0, 134},
			{"UDP", protoUDP, 8, 0},
			{"SCTP without its first chunk", protoSCTP, 8, 134},
			{"GRE", protoGRE, 8, 142},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(nil, nil)
				f := l.packet(v6, c.proto)
				f.sport, f.dport, f.flags = 40000, 80, syn
				first, later := l.fragments(f, c.first)
				first.body = append([]byte{}, first.body...) // not nil
				if c.first == 0 {
					first.fragment = map[bool]uint16{false: 0x2000, true: 1}[v6]
				}
				r := l.sends(l.a, first)
				if c.reason == 0 {
					l.delivered("first", r)
					l.delivered("later", l.sends(l.a, later))
					return
				}
				l.dropped("first", r, c.reason)
				if c.first > 0 {
					l.dropped("later", l.sends(l.a, later), 175)
				}
				// Behind its length there may be anything: it does not count.
				b := append(first.bytes(), f.transport()...)
				l.dropped("padded", l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, b), c.reason)
			})
		}
	}
}

// A first fragment that was dropped opens nothing to those behind it.
func TestFragmentsOfDenied(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(PolicyTable{egress(0, policy.ProtoUDP, 53, 16): allow(1)}, nil)
		f := l.udp(v6, 40000, 54)
		first, later := l.fragments(f, 8)
		l.dropped("first", l.sends(l.a, first), 133)
		l.dropped("later", l.sends(l.a, later), 175)
		spoofed := first
		spoofed.src, spoofed.dport = l.b.addr(v6), 53
		l.dropped("first in another's name", l.sends(l.a, spoofed), 132)
		l.dropped("later in its own name", l.sends(l.b, later.from(l.b)), 175)
	}
}

// IPv6 may put a fragment header into a whole packet (RFC 6946).
func TestAtomicFragment(t *testing.T) {
	l := newLab(t)
	f := l.tcp(true, 40000, 80, syn)
	f.extensions = []extension{fragmentHeader(0, 5)}
	r := l.sends(l.a, f)
	l.delivered("whole", r)
	l.rewritten(f, l.b, r.data)
}

// No socket of a proxy takes a fragment.
func TestFragmentsRedirected(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(redirecting(setOne, 0))
		l.must(l.g.SetRoute(AnyRoute(1), listen(t, map[bool]string{false: "127.0.0.1:0", true: "[::1]:0"}[v6])))
		first, later := l.fragments(l.tcp(v6, 40000, 8080, syn), 24)
		for name, f := range map[string]frame{"first": first, "later": later} {
			r := l.sends(l.a, first)
			if name == "later" {
				l.forget()
				r = l.sends(l.a, f)
			}
			if got := l.counted(); r.action != actionShot || got != "0 egress, 255 egress" {
				t.Errorf("%s: action %d, counted %q", name, r.action, got)
			}
			l.forget()
		}
	}
}

// More datagrams than there is room: the oldest lose their later fragments, with
// a reason, and the newest have theirs.
func TestFragmentsFull(t *testing.T) {
	l := newLab(t)
	first, later := l.fragments(l.udp(false, 40000, 53), 8)
	room := l.g.objs.HgFragment1.MaxEntries()
	for id := range room * 2 {
		first.datagram = id
		if r := l.sends(l.a, first); r.action != actionSend {
			t.Fatalf("datagram %d: action %d", id, r.action)
		}
	}
	l.forget()
	later.datagram = room*2 - 1
	l.delivered("the newest", l.sends(l.a, later))
	later.datagram = 0
	l.dropped(fmt.Sprint("the oldest of ", room*2), l.sends(l.a, later), 175)
}
