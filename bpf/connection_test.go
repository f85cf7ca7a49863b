package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// answers is b's answer to a packet of a.
func (l *lab) answers(f frame, flags uint8) result {
	l.Helper()
	f = f.reversed(flags)
	f.srcMAC, f.dstMAC = l.b.mac, gatewayMAC
	return l.sends(l.b, f)
}

func (f frame) key() gateCtKey {
	s, d := f.source(), f.target()
	if f.proto == protoICMP || f.proto == protoICMPv6 {
		s = netip.AddrPortFrom(f.src, f.id)
	}
	return ctKey(s, d, policy.Proto(f.proto))
}

// entry is what the gate remembers of the connection that f opened, and in which
// map; "" is nowhere.
func (l *lab) entry(f frame) (gateCtEntry, string) {
	l.Helper()
	k := f.key()
	var tcp, other gateCtEntry
	inTCP, inAny := l.g.objs.HgCtTcp1.Lookup(&k, &tcp) == nil, l.g.objs.HgCtAny1.Lookup(&k, &other) == nil
	switch {
	case inTCP && inAny:
		return tcp, "both"
	case inTCP:
		return tcp, "tcp"
	case inAny:
		return other, "any"
	}
	return gateCtEntry{}, ""
}

// open makes an established connection and leaves the counters empty.
func (l *lab) open(f frame) {
	l.Helper()
	l.delivered("SYN", l.sends(l.a, f.with(syn)))
	l.delivered("SYN-ACK", l.answers(f, syn|ack))
	l.delivered("ACK", l.sends(l.a, f.with(ack)))
	if _, where := l.entry(f); where != "tcp" {
		l.Fatalf("established connection is in %q", where)
	}
}

// Policies that let a open connections to b's port and nothing else. Answers need
// no rule of their own.
func TestAnswersNeedNoRule(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for name, f := range map[string]frame{
			"TCP": l.tcp(v6, 40000, 80, syn), "UDP": l.udp(v6, 40000, 80), "echo": l.echo(v6, 3),
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := l.in(t)
				port := f.dport
				if name == "echo" {
					port = uint16(f.icmpType)
				}
				l.reset(PolicyTable{egress(identityB, policy.Proto(f.proto), port, 16): allow(1)},
					PolicyTable{ingress(identityA, policy.Proto(f.proto), port, 16): allow(2)})
				r := l.answers(f, syn|ack)
				if r.action != actionShot {
					t.Errorf("answer before the question: action %d", r.action)
				}
				l.forget()
				l.delivered("question", l.sends(l.a, f))
				l.seen()
				r = l.answers(f, syn|ack)
				l.told()
				l.delivered("answer", r)
				back := f.reversed(syn | ack)
				back.srcMAC, back.dstMAC = l.b.mac, gatewayMAC
				l.rewritten(back, l.a, r.data)
				// The same way round as the answer, but a question of b's own.
				if name == "echo" {
					f.id++
				} else {
					f.sport++
				}
				if r := l.answers(f, syn); r.action != actionShot {
					t.Errorf("b's own question: action %d", r.action)
				}
			})
		}
	}
}

// Flags that only the gate itself reads.
const (
	ctAcked        = 0x2000 | 0x4000
	ctConfirmed    = 0x1000000
	ctResetForward = 0x2000000
	ctResetReply   = 0x4000000
)

// step is one packet of a connection: '>' from a, '<' from b.
type step struct {
	from  byte
	flags uint8
}

func TestLifetimes(t *testing.T) {
	l := newLab(t)
	const tcpOpening, established, halfClosed, closing = 60, 21600, 3600, 10
	const open = ctSeenReply | ctConfirmed
	opening := []step{{'>', syn}, {'<', syn | ack}, {'>', ack}}
	for _, c := range []struct {
		name  string
		proto uint8
		steps []step
		where string
		life  time.Duration // s
		flags uint32
	}{
		{"SYN", protoTCP, opening[:1], "any", tcpOpening, 0},
		{"SYN twice", protoTCP, []step{{'>', syn}, {'>', syn}}, "any", tcpOpening, 0},
		{"SYN-ACK", protoTCP, opening[:2], "any", tcpOpening, ctSeenReply},
		{"SYN-ACK twice", protoTCP, append(opening[:2:2], opening[1]), "any", tcpOpening, ctSeenReply},
		{"ACK", protoTCP, opening, "tcp", established, open},
		{"simultaneous open", protoTCP, []step{{'>', syn}, {'<', syn}}, "any", tcpOpening, ctSeenReply},
		{"simultaneously opened", protoTCP, []step{{'>', syn}, {'<', syn}, {'>', syn | ack}, {'<', syn | ack}}, "tcp", established, open},
		{"refused", protoTCP, []step{{'>', syn}, {'<', rst | ack}}, "any", closing, ctSeenReply | ctClosing | ctResetReply},
		{"reset by the opener", protoTCP, append(opening[:3:3], step{'>', rst}), "tcp", closing, open | ctClosing | ctResetForward},
		{"reset by the other", protoTCP, append(opening[:3:3], step{'<', rst | ack}), "tcp", closing, open | ctClosing | ctResetReply},
		{"reset, and what was on its way", protoTCP, append(opening[:3:3], step{'<', rst | ack}, step{'>', ack}), "tcp", closing, open | ctClosing | ctResetReply},
		{"reset by somebody else", protoTCP, append(opening[:3:3], step{'<', rst}, step{'>', ack}, step{'<', ack}), "tcp", established, open},
		{"half closed", protoTCP, append(opening[:3:3], step{'>', fin | ack}), "tcp", halfClosed, open | 8},
		{"half closed by the other", protoTCP, append(opening[:3:3], step{'<', fin | ack}), "tcp", halfClosed, open | 16},
		{"half closed, data", protoTCP, append(opening[:3:3], step{'>', fin | ack}, step{'<', ack}), "tcp", halfClosed, open | 8},
		{"closed", protoTCP, append(opening[:3:3], step{'>', fin | ack}, step{'<', fin | ack}), "tcp", closing, open | 8 | 16 | ctClosing},
		{"last ACK", protoTCP, append(opening[:3:3], step{'<', fin | ack}, step{'>', fin | ack}, step{'<', ack}), "tcp", closing, open | 8 | 16 | ctClosing},
		{"SCTP opening", protoSCTP, []step{{'>', sctpInit}}, "any", tcpOpening, 0},
		{"SCTP answered", protoSCTP, []step{{'>', sctpInit}, {'<', sctpInitAck}}, "any", tcpOpening, ctSeenReply},
		{"SCTP", protoSCTP, []step{{'>', sctpInit}, {'<', sctpInitAck}, {'>', sctpCookie}, {'<', sctpData}}, "tcp", 210, open},
		{"SCTP aborted", protoSCTP, []step{{'>', sctpInit}, {'<', sctpInitAck}, {'>', sctpCookie}, {'<', sctpAbort}}, "tcp", closing, open | ctClosing | ctResetReply},
		{"SCTP shut down", protoSCTP, []step{{'>', sctpInit}, {'<', sctpInitAck}, {'>', sctpCookie}, {'<', sctpShutdown}, {'>', sctpShutdownAck}}, "tcp", closing, open | 8 | 16 | ctClosing},
		{"UDP", protoUDP, []step{{'>', 0}, {'>', 0}}, "any", 60, 0},
		{"UDP answered", protoUDP, []step{{'>', 0}, {'<', 0}}, "any", 180, ctSeenReply},
		{"echo", protoICMP, []step{{'>', 0}}, "any", 30, 0},
		{"echo answered", protoICMP, []step{{'>', 0}, {'<', 0}}, "any", 30, ctSeenReply},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(nil, nil)
			f := map[uint8]frame{protoTCP: l.tcp(false, 40000, 80, 0), protoUDP: l.udp(false, 40000, 53), protoSCTP: l.sctp(false, 40000, 80, 0), protoICMP: l.echo(false, 4)}[c.proto]
			var packets [2]uint64
			began := monotonic()
			for _, s := range c.steps {
				if s.from == '>' {
					l.delivered("packet", l.sends(l.a, f.with(s.flags)))
					packets[0]++
				} else {
					l.delivered("answer", l.answers(f, s.flags))
					packets[1]++
				}
			}
			e, where := l.entry(f)
			if where != c.where {
				t.Fatalf("the entry is in %q, want %q", where, c.where)
			}
			if e.Flags&^ctAcked != c.flags {
				t.Errorf("flags %#x, want %#x", e.Flags, c.flags)
			}
			life, took := time.Duration(int64(e.Expires)-began), time.Duration(monotonic()-began)
			const unit = time.Second // in which the gate counts
			if want := c.life * time.Second; life < want-unit || life > want+took+unit {
				t.Errorf("lives %v, want %v; all took %v", life, want, took)
			}
			n := uint64(len(f.bytes()))
			if e.Packets != packets || e.Bytes != [2]uint64{packets[0] * n, packets[1] * n} {
				t.Errorf("counted %v packets, %v bytes; want %v of %d bytes", e.Packets, e.Bytes, packets, n)
			}
			if e.Identity != [2]uint32{uint32(identityA), uint32(identityB)} || e.Revision != 1 {
				t.Errorf("identities %v, revision %d", e.Identity, e.Revision)
			}
		})
	}
}

// A SYN on a connection that has ended opens a new one, and is judged as such.
func TestSYNReopens(t *testing.T) {
	l := newLab(t)
	for name, end := range map[string]func(f frame){
		"reset": func(f frame) { l.delivered("RST", l.sends(l.a, f.with(rst))) },
		"closed": func(f frame) {
			l.delivered("FIN", l.sends(l.a, f.with(fin|ack)))
			l.delivered("FIN", l.answers(f, fin|ack))
		},
	} {
		f := l.tcp(false, 40000, 80, 0)
		l.reset(nil, nil)
		l.open(f)
		l.delivered("SYN in the middle", l.sends(l.a, f.with(syn)))
		if e, where := l.entry(f); where != "tcp" || e.Packets[0] != 3 {
			t.Errorf("%s: a SYN opened a living connection anew", name)
		}
		end(f)
		l.delivered("SYN", l.sends(l.a, f.with(syn)))
		if e, where := l.entry(f); where != "any" || e.Packets != [2]uint64{1, 0} || e.Flags != 0 {
			t.Errorf("%s: after the SYN %+v in %q", name, e, where)
		}
		l.open(f)
		end(f)
		// The other end may be the opener now.
		l.delivered("SYN of b", l.answers(f, syn))
		if c, ok := l.g.Conntrack().Lookup(f.target(), f.source()); !ok || c.SourceIdentity != identityB {
			t.Errorf("%s: the connection that b opened is %+v, %v", name, c, ok)
		}
		l.reset(nil, nil)
		l.open(f)
		end(f)
		l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
		l.dropped("SYN under another policy", l.sends(l.a, f.with(syn)), 133)
		l.dropped("what is left of it", l.sends(l.a, f.with(ack)), 163)
	}
}

// What has expired is as good as gone, before anybody collects it.
func TestExpired(t *testing.T) {
	l := newLab(t)
	past := func(f frame) {
		k := f.key()
		e, where := l.entry(f)
		e.Expires = uint64(monotonic() - 1)
		m := l.g.objs.HgCtAny1
		if where == "tcp" {
			m = l.g.objs.HgCtTcp1
		}
		l.must(m.Put(&k, &e))
	}
	noEgress := PolicyTable{ingress(0, 0, 0, 0): allow(1)}
	f := l.tcp(false, 40000, 80, 0)
	l.reset(nil, noEgress)
	l.open(f)
	past(f)
	if _, ok := l.g.Conntrack().Lookup(f.source(), f.target()); ok {
		t.Error("Lookup finds what has expired")
	}
	l.dropped("ACK", l.sends(l.a, f.with(ack)), 163)
	l.open(f)
	past(f)
	l.dropped("answer", l.answers(f, ack), 163)
	l.open(f)

	u := l.udp(true, 40000, 53)
	l.delivered("question", l.sends(l.a, u))
	l.delivered("answer", l.answers(u, 0))
	past(u)
	l.dropped("late answer", l.answers(u, 0), 133) // judged as b's own question
	l.delivered("question", l.sends(l.a, u))
	if e, _ := l.entry(u); e.Packets != [2]uint64{1, 0} {
		t.Errorf("the new connection inherits %+v", e)
	}
}

// Where established TCP finds no room it is refused; what is there goes on.
func TestConnectionsFull(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxConnections = 2 })
	for port := range uint16(2) {
		l.open(l.tcp(false, 40000+port, 80, 0))
	}
	f := l.tcp(false, 40010, 80, syn)
	l.delivered("SYN", l.sends(l.a, f))
	l.delivered("SYN-ACK", l.answers(f, syn|ack)) // of what may be a flood
	l.dropped("ACK without room", l.sends(l.a, f.with(ack)), 155)
	l.delivered("a packet of the first", l.sends(l.a, l.tcp(false, 40000, 80, ack)))
	k := l.tcp(false, 40001, 80, 0).key()
	l.must(l.g.objs.HgCtTcp1.Delete(&k))
	l.delivered("ACK with room", l.sends(l.a, f.with(ack)))
}
