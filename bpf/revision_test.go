package bpf

import (
	"testing"

	"github.com/headgate/headgate/policy"
)

// A new revision makes a connection be judged again, as if it were opened now.
func TestJudgedAgain(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
			t.Run(family+" "+d.String(), func(t *testing.T) {
				l := l.in(t)
				f := l.tcp(v6, 40000, 80, 0)
				subject := uint32(subjectA)
				if d == policy.Ingress {
					subject = subjectB
				}
				denied := everything()
				denied[policy.Key{Direction: d, Proto: policy.ProtoTCP, Port: 80, PrefixBits: 16}] = deny(5)
				l.reset(nil, nil)
				l.open(f)

				l.must(l.g.SyncPolicy(subject, everything(), denied))
				l.delivered("under the old revision", l.sends(l.a, f.with(ack)))
				l.must(l.g.SetRevision(2))
				l.seen()
				r := l.sends(l.a, f.with(ack))
				l.told(f.with(ack).eventOf(l.a.ifindex, EventDrop, d, deny(5), 181))
				l.dropped("forward packet", r, 133)
				c, ok := l.g.Conntrack().Lookup(f.source(), f.target())
				if !ok || !c.Denied || c.Redirected || c.Revision != 2 {
					t.Errorf("denied connection: %+v, %v", c, ok)
				}
				l.expect("answer", l.answers(f, ack), actionShot, 133, policy.Ingress)
				l.dropped("forward packet again", l.sends(l.a, f.with(ack)), 133)
				l.expect("SYN anew", l.sends(l.a, f.with(syn)), actionShot, 181, d)
				l.dropped("after the SYN nothing is left", l.sends(l.a, f.with(ack)), 163)

				l.must(l.g.SyncPolicy(subject, denied, everything()))
				l.must(l.g.SetRevision(3))
				l.open(f)
			})
		}
	}
}

// An answer under a new revision is judged too, as the connection that it belongs
// to: who was let in may not go on sending when the other end falls silent.
func TestAnswersAreJudgedAgain(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
			t.Run(family+" "+d.String(), func(t *testing.T) {
				l := l.in(t)
				f := l.tcp(v6, 40000, 80, 0)
				subject := uint32(subjectA)
				if d == policy.Ingress {
					subject = subjectB
				}
				denied := everything()
				denied[policy.Key{Direction: d, Proto: policy.ProtoTCP, Port: 80, PrefixBits: 16}] = deny(5)
				l.reset(nil, nil)
				l.open(f)
				l.must(l.g.SetRevision(2))
				l.delivered("an answer that is still allowed", l.answers(f, ack))
				l.must(l.g.SyncPolicy(subject, everything(), denied))
				l.must(l.g.SetRevision(3))
				l.expect("an answer that is not", l.answers(f, ack), actionShot, 133, policy.Ingress)
				l.dropped("forward packet", l.sends(l.a, f.with(ack)), 133)
			})
		}
	}
}

// A redirected connection that lost its L7 rules has no route. Its port is not lost
// with it: a SYN is judged as a connection of its own.
func TestPortOfAConnectionWithoutRulesIsUsedAgain(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := l.in(t)
			a, b := redirecting(0, setOne)
			l.reset(a, b)
			l.must(l.g.SetRoute(AnyRoute(1), deadPort))
			f := l.tcp(v6, 40000, 80, syn)
			if r := l.sends(l.a, f); r.action != actionShot {
				t.Fatalf("to a port where nobody listens: action %d", r.action)
			}
			l.must(l.g.SyncPolicy(subjectB, b, everything()))
			l.must(l.g.SetRevision(2))
			l.sends(l.a, f) // judged again: no rules, and no route
			if r := l.sends(l.a, f); r.action != actionSend {
				t.Errorf("the SYN sent again: action %d, want its delivery", r.action)
			}
		})
	}
}

func TestAllowedAgain(t *testing.T) {
	l := newLab(t)
	f := l.tcp(false, 40000, 80, 0)
	u := l.udp(false, 40000, 53)
	l.open(f)
	l.delivered("UDP", l.sends(l.a, u))
	l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
	l.must(l.g.SetRevision(2))
	l.dropped("TCP denied", l.sends(l.a, f.with(ack)), 133)
	l.dropped("UDP denied", l.sends(l.a, u), 133)
	l.expect("UDP answer", l.answers(u, 0), actionShot, 133, policy.Ingress)

	l.must(l.g.SyncPolicy(subjectA, PolicyTable{}, everything()))
	l.dropped("not before the revision", l.sends(l.a, f.with(ack)), 133)
	l.must(l.g.SetRevision(3))
	l.delivered("TCP allowed again", l.sends(l.a, f.with(ack)))
	l.delivered("its answer", l.answers(f, ack))
	l.delivered("UDP allowed again", l.sends(l.a, u))
	l.delivered("its answer", l.answers(u, 0))

	// Who the ends are is asked again too.
	l.b.identity = 2002
	l.put(l.b, true)
	l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{egress(2002, 0, 0, 0): allow(1)}))
	l.must(l.g.SetRevision(4))
	l.delivered("under the new identity", l.sends(l.a, f.with(ack)))
	if c, ok := l.g.Conntrack().Lookup(f.source(), f.target()); !ok || c.DestinationIdentity != 2002 {
		t.Errorf("the connection is %+v, %v", c, ok)
	}
}

// A subject that is closed denies established connections as well, once a
// revision asks, and never lets a half-written table decide.
func TestJudgedAgainWithoutPolicy(t *testing.T) {
	l := newLab(t)
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	l.must(l.g.putSubject(subjectB, [2]uint32{1, 1}, subjectClosed))
	l.must(l.g.SetRevision(2))
	l.dropped("closed subject", l.sends(l.a, f.with(ack)), 133)
	l.must(l.g.putSubject(subjectB, [2]uint32{1, 1}, 0))
	l.must(l.g.SetRevision(3))
	l.delivered("open again", l.sends(l.a, f.with(ack)))

	l.put(l.a, false)
	l.dropped("source no longer ready", l.sends(l.a, f.with(ack)), 203)
	l.put(l.a, true)
	l.put(l.b, false)
	l.dropped("destination no longer ready", l.sends(l.a, f.with(ack)), 203)
	l.must(l.g.DeleteEndpoint(l.b.v4))
	l.dropped("destination gone", l.sends(l.a, f.with(ack)), 150)
}
