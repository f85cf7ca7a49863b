package bpf

import (
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// fromHost is a packet of the host to a.
func (l *lab) fromHost(v6 bool, flags uint8) frame {
	f := l.tcp(v6, 50000, 8080, flags)
	f.srcMAC, f.dstMAC, f.dst = gatewayMAC, l.a.mac, l.a.addr(v6)
	if f.src = host4; v6 {
		f.src = host6
	}
	return f
}

func TestHostToWorkload(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		f := l.fromHost(v6, syn)
		for _, c := range []struct {
			name   string
			table  PolicyTable // of a; only its ingress counts
			change func(l *lab, f *frame) (ifindex int)
			action uint32
			reason uint8
		}{
			{"allowed", PolicyTable{ingress(policy.IdentityHost, policy.ProtoTCP, 8080, 16): allow(1)}, nil, actionOK, 0},
			{"no rule", PolicyTable{egress(0, 0, 0, 0): allow(1)}, nil, actionShot, 133},
			{"denied", PolicyTable{ingress(policy.IdentityHost, 0, 0, 0): deny(1)}, nil, actionShot, 181},
			{"redirected without a route", PolicyTable{ingress(0, 0, 0, 0): {Verdict: policy.Redirect, Set: setOther}}, nil, actionShot, 231},
			{"redirected", PolicyTable{ingress(0, 0, 0, 0): {Verdict: policy.Redirect, Set: setOne}}, nil, actionSend, 0},
			{"from the world", nil, func(_ *lab, f *frame) int {
				if f.src = world4; v6 {
					f.src = world6
				}
				return 0
			}, actionShot, 230},
			{"from nobody", nil, func(_ *lab, f *frame) int { f.src = l.a.addr(v6).Prev(); return 0 }, actionShot, 230},
			{"from a workload, without the proxy's mark", nil, func(_ *lab, f *frame) int { f.src = l.b.addr(v6); return 0 }, actionShot, 132},
			{"by another device", nil, func(l *lab, _ *frame) int { return l.b.ifindex }, actionShot, 150},
			{"to nobody", nil, func(_ *lab, f *frame) int { f.dst = l.a.addr(v6).Prev(); return 0 }, actionShot, 150},
			{"not ready", nil, func(l *lab, _ *frame) int { l.put(l.a, false); return 0 }, actionShot, 203},
			{"ACK of no connection", nil, func(_ *lab, f *frame) int { f.flags = ack; return 0 }, actionShot, 163},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(c.table, nil)
				l.must(l.g.SetRoute(AnyRoute(1), deadPort))
				f, ifindex := f, l.a.ifindex
				if c.change != nil {
					if n := c.change(l, &f); n != 0 {
						ifindex = n
					}
				}
				r := l.run(l.g.objs.HgToWorkload, ifindex, 0, f.bytes())
				l.expect("packet", r, c.action, c.reason, policy.Ingress)
				if c.action == actionOK && string(r.data) != string(f.bytes()) {
					t.Error("the packet is changed")
				}
			})
		}
	}
}

// Both ends of a connection with the host, whoever opened it.
func TestHostConnections(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f := l.fromHost(v6, syn)
		back := f.reversed(syn | ack)
		l.reset(PolicyTable{ingress(policy.IdentityHost, 0, 0, 0): allow(1)}, nil)
		l.dropped("a's own SYN", l.sends(l.a, back.with(syn)), 133)
		l.expect("SYN of the host", l.gets(l.a, f, 0), actionOK, 0, policy.Ingress)
		l.expect("SYN-ACK of a", l.sends(l.a, back), actionOK, 0, policy.Egress)
		l.expect("ACK of the host", l.gets(l.a, f.with(ack), 0), actionOK, 0, policy.Ingress)

		l.reset(PolicyTable{egress(policy.IdentityHost, 0, 0, 0): allow(1)}, nil)
		l.expect("SYN of a", l.sends(l.a, back.with(syn)), actionOK, 0, policy.Egress)
		l.expect("SYN-ACK of the host", l.gets(l.a, f.with(syn|ack), 0), actionOK, 0, policy.Ingress)

		l.reset(nil, nil)
		l.expect("SYN of the host", l.gets(l.a, f, 0), actionOK, 0, policy.Ingress)
		l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
		l.must(l.g.SetRevision(2))
		l.expect("ACK under another policy", l.gets(l.a, f.with(ack), 0), actionShot, 133, policy.Ingress)
	}
}

func TestProxyLegs(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f := l.tcp(v6, 45000, 80, 0) // the proxy as a, by a port of its own
		for _, mark := range []uint32{redirect.MarkFromProxy, redirect.MarkFromProxy | 1001<<16} {
			l.reset(PolicyTable{}, PolicyTable{}) // the proxy has judged
			l.expect("SYN", l.gets(l.b, f.with(syn), mark), actionOK, 0, policy.Ingress)
			c, ok := l.g.Conntrack().Lookup(f.source(), f.target())
			if !ok || !c.ProxyLeg || !c.Redirected || c.SourceIdentity != identityA || c.DestinationIdentity != identityB {
				t.Errorf("the leg is %+v, %v", c, ok)
			}
			// Its answers go to the proxy's socket or nowhere: here is none.
			r := l.answers(f, syn|ack)
			if got := l.counted(); r.action != actionShot || got != "0 egress, 231 egress" {
				t.Errorf("answer of the server: action %d, counted %q", r.action, got)
			}
			l.forget()
			// A new revision is not for it: the proxy watches its connections.
			l.must(l.g.SetRevision(2))
			l.expect("ACK", l.gets(l.b, f.with(ack), mark), actionOK, 0, policy.Ingress)
			if c, ok := l.g.Conntrack().Lookup(f.source(), f.target()); !ok || c.Denied {
				t.Errorf("the leg is %+v, %v", c, ok)
			}
		}
		l.reset(nil, nil)
		l.expect("ACK of no connection", l.gets(l.b, f.with(ack), redirect.MarkFromProxy), actionShot, 163, policy.Ingress)
		l.expect("SYN-ACK of no connection", l.gets(l.b, f.with(syn|ack), redirect.MarkFromProxy), actionShot, 163, policy.Ingress)
		l.expect("RST of what is forgotten", l.gets(l.b, f.with(rst), redirect.MarkFromProxy), actionOK, 0, policy.Ingress)
		l.expect("UDP of no connection", l.gets(l.b, l.udp(v6, 45000, 53), redirect.MarkFromProxy), actionShot, 163, policy.Ingress)
		for _, mark := range []uint32{0, redirect.MarkToProxy, 0xa00, 0xf00, 0xb0} {
			l.expect("SYN with another mark", l.gets(l.b, f.with(syn), mark), actionShot, 132, policy.Ingress)
		}
		l.put(l.b, false)
		l.expect("SYN to what is not ready", l.gets(l.b, f.with(syn), redirect.MarkFromProxy), actionShot, 203, policy.Ingress)
	}
}

// What a listener of Envoy that is not ours leads elsewhere is judged by the ingress
// policy of whom it leads to, as if the client had dialled there, and again when policy
// changes.
func TestLegsElsewhere(t *testing.T) {
	const mark = redirect.MarkFromProxy | redirect.MarkElsewhere
	l := newLab(t)
	for _, v6 := range families {
		f := l.tcp(v6, 45000, 80, 0)
		l.reset(PolicyTable{}, PolicyTable{})
		gone := l.fromHost(v6, syn)
		l.expect("SYN of nobody here", l.gets(l.a, gone, mark), actionShot, 132, policy.Ingress)
		l.expect("SYN that ingress denies", l.gets(l.b, f.with(syn), mark), actionShot, 133, policy.Ingress)
		l.reset(PolicyTable{}, PolicyTable{ingress(identityA, policy.ProtoTCP, 80, 16): {Verdict: policy.Redirect, Set: 1 << 24}})
		l.expect("SYN that has L7 rules", l.gets(l.b, f.with(syn), mark), actionShot, 231, policy.Ingress)
		open := PolicyTable{ingress(identityA, policy.ProtoTCP, 80, 16): allow(1)}
		l.reset(PolicyTable{}, open)
		l.expect("SYN that ingress allows", l.gets(l.b, f.with(syn), mark), actionOK, 0, policy.Ingress)
		c, ok := l.g.Conntrack().Lookup(f.source(), f.target())
		if !ok || !c.ProxyLeg || !c.Redirected {
			t.Errorf("the leg is %+v, %v", c, ok)
		}
		l.must(l.g.SyncPolicy(subjectB, open, PolicyTable{}))
		l.expect("ACK before the revision", l.gets(l.b, f.with(ack), mark), actionOK, 0, policy.Ingress)
		l.must(l.g.SetRevision(2))
		l.expect("ACK under another policy", l.gets(l.b, f.with(ack), mark), actionShot, 133, policy.Ingress)
		l.must(l.g.SyncPolicy(subjectB, PolicyTable{}, open))
		l.expect("ACK once it is allowed again", l.gets(l.b, f.with(ack), mark), actionOK, 0, policy.Ingress)
	}
}

// A connection to the host that a proxy carries: what the host answers must come
// to the proxy, by our own device, where a socket can be given.
func TestRedirectedToHost(t *testing.T) {
	l := newLab(t)
	listen4, listen6 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0")
	for _, v6 := range families {
		f := l.fromHost(v6, 0).reversed(0)
		l.reset(redirecting(setOne, 0))
		port := listen4
		if v6 {
			port = listen6
		}
		l.must(l.g.SetRoute(AnyRoute(1), port))
		l.sends(l.a, f.with(syn))
		if got := l.counted(); got != foundSocket {
			t.Errorf("SYN: counted %q", got)
		}
		l.forget()
		back := f.reversed(syn | ack)
		l.expect("unmarked answer of the host", l.gets(l.a, back, 0), actionSend, 0, policy.Ingress)
		l.expect("the same, by our device", l.run(l.g.objs.HgFromHost, l.host, 0, back.bytes()), actionShot, 179, policy.Ingress)
		// The proxy's own answer to a.
		l.expect("marked answer", l.gets(l.a, back, redirect.MarkFromProxy), actionOK, 0, policy.Ingress)

		l.reset(nil, nil)
		l.expect("by our device, no connection", l.run(l.g.objs.HgFromHost, l.host, 0, back.bytes()), actionShot, 163, policy.Ingress)
		l.expect("plain SYN", l.sends(l.a, f.with(syn)), actionOK, 0, policy.Egress)
		l.expect("by our device, not redirected", l.run(l.g.objs.HgFromHost, l.host, 0, back.bytes()), actionShot, 163, policy.Ingress)
		l.expect("by our device, malformed", l.run(l.g.objs.HgFromHost, l.host, 0, raw(back, 14, 0)), actionShot, 134, policy.Ingress)
	}
}
