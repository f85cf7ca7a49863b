package bpf

import (
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// errorKinds are the ICMP errors that tell of a packet: type and code.
func errorKinds(v6 bool) map[string][2]uint8 {
	if v6 {
		return map[string][2]uint8{"port unreachable": {1, 4}, "packet too big": {2, 0}, "time exceeded": {3, 0}, "parameter problem": {4, 0}}
	}
	return map[string][2]uint8{"port unreachable": {3, 3}, "fragmentation needed": {3, 4}, "time exceeded": {11, 0}, "parameter problem": {12, 0}}
}

// withError is a packet of a, after which b sends errors about it.
func (l *lab) withError(about frame, kind [2]uint8) frame {
	e := l.errorOf(about).from(l.b)
	e.icmpType, e.icmpCode = kind[0], kind[1]
	return e
}

// An error goes to who sent the packet inside, about whatever protocol; it keeps
// nothing alive and counts for nothing.
func TestRelated(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for what, f := range map[string]frame{
			"TCP": l.tcp(v6, 40000, 80, 0), "UDP": l.udp(v6, 40000, 53), "echo": l.echo(v6, 9), "SCTP": l.sctp(v6, 40000, 80, sctpInit),
		} {
			for kind, code := range errorKinds(v6) {
				t.Run(family+" "+what+" "+kind, func(t *testing.T) {
					l := l.in(t)
					// Errors need no rule, whatever policy says of ICMP.
					l.reset(PolicyTable{egress(identityB, 0, 0, 0): allow(1)}, PolicyTable{ingress(identityA, 0, 0, 0): allow(2)})
					e := l.withError(f, code)
					l.dropped("before the connection", l.sends(l.b, e), 239)
					if what == "TCP" {
						l.open(f)
					} else {
						l.delivered("packet", l.sends(l.a, f))
					}
					before, _ := l.entry(f)
					r := l.sends(l.b, e)
					l.delivered("error", r)
					l.rewritten(e, l.a, r.data)
					if after, _ := l.entry(f); after != before {
						t.Errorf("the error changed the connection:\n%+v\n%+v", before, after)
					}
					// The other way, about an answer.
					back := f.reversed(ack)
					l.sends(l.b, back.from(l.b))
					l.forget()
					e = l.errorOf(back)
					r = l.sends(l.a, e)
					l.delivered("error about the answer", r)
					l.rewritten(e, l.b, r.data)
				})
			}
		}
	}
}

// about is b's error about a packet, changed.
func (l *lab) about(f frame, change func(e *frame)) frame {
	e := l.errorOf(f).from(l.b)
	change(&e)
	return e
}

func cut(n int) func(*frame) { return func(e *frame) { e.payload = e.payload[:n] } }

func poke(at int, b ...byte) func(*frame) {
	return func(e *frame) {
		e.payload = append([]byte{}, e.payload...)
		copy(e.payload[at:], b)
	}
}

func TestRelatedHostile(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		f := l.udp(v6, 40000, 53)
		header := 20
		if v6 {
			header = 40
		}
		stranger := f
		if stranger.src = world4; v6 {
			stranger.src = world6
		}
		later := f
		if later.fragment = 100; v6 {
			later.fragment = 800
		}
		options := f
		options.options = make([]byte, 8)
		extended := f
		extended.extensions = []extension{{60, make([]byte, 8)}}
		for _, c := range []struct {
			name   string
			packet frame
			reason uint8 // 0: delivered
		}{
			{"whole", l.about(f, func(*frame) {}), 0},
			{"8 bytes of transport", l.about(f, cut(header+8)), 0},
			{"IP options inside", l.about(options, func(*frame) {}), 0},
			{"extension headers inside", l.about(extended, func(*frame) {}), 0},
			{"checksum of the quotation wrong", l.about(f, poke(10, 1, 2)), 0},
			{"nothing inside", l.about(f, cut(0)), 134},
			{"half an IP header", l.about(f, cut(header-1)), 134},
			{"no transport", l.about(f, cut(header)), 134},
			{"7 bytes of transport", l.about(f, cut(header+7)), 134},
			{"another IP version", l.about(f, poke(0, 0x25)), 134},
			{"a later fragment inside", l.about(later, func(*frame) {}), 134},
			{"not to who sent it", l.about(stranger, func(e *frame) { e.dst = f.src }), 134},
			{"another port", l.about(f, poke(header, 1)), 239},
			{"another destination port", l.about(f, poke(header+2, 1)), 239},
			{"another protocol", l.about(f, poke(map[bool]int{false: 9, true: 6}[v6], protoTCP)), 239},
			{"an unknown protocol", l.about(f, poke(map[bool]int{false: 9, true: 6}[v6], protoGRE)), 142},
			{"about an error", l.about(l.errorOf(f.reversed(0)), func(*frame) {}), 134},
			{"as a fragment", l.about(f, func(e *frame) { e.fragment = map[bool]uint16{false: 0x2000, true: 1}[v6] }), 157},
			{"as a router on the way", l.about(f, func(e *frame) {
				p := append([]byte{}, e.payload...)
				if v6 {
					copy(p[24:], world6.AsSlice())
				} else {
					copy(p[16:], world4.AsSlice())
				}
				e.payload = p
			}), 132},
			{"from another's address", l.about(f, func(e *frame) { e.src = e.src.Next() }), 132},
		} {
			if !v6 && c.name == "extension headers inside" || v6 && (c.name == "IP options inside" || c.name == "checksum of the quotation wrong") {
				continue
			}
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(nil, nil)
				l.delivered("question", l.sends(l.a, f))
				r := l.sends(l.b, c.packet)
				if c.reason == 0 {
					l.delivered("error", r)
					return
				}
				l.dropped("error", r, c.reason)
			})
		}
	}
}

// A connection that is over, or that policy took back, is told nothing more.
func TestRelatedNeedsALiveConnection(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(nil, nil)
		f := l.udp(v6, 40000, 53)
		l.delivered("question", l.sends(l.a, f))
		e := l.withError(f, errorKinds(v6)["port unreachable"])
		l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
		l.must(l.g.SetRevision(2))
		l.expect("taken back", l.sends(l.b, e), actionShot, 133, policy.Ingress)
		l.must(l.g.SyncPolicy(subjectA, PolicyTable{}, everything()))
		l.must(l.g.SetRevision(3))
		l.delivered("allowed again", l.sends(l.b, e))
		k := f.key()
		entry, _ := l.entry(f)
		entry.Expires = uint64(monotonic() - 1)
		l.must(l.g.objs.HgCtAny1.Put(&k, &entry))
		l.dropped("expired", l.sends(l.b, e), 239)
	}
}

// The host's errors come from any router's address, but not from a workload's.
func TestRelatedFromHost(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(nil, nil)
		f := l.fromHost(v6, 0).reversed(0) // a to the host
		f.proto = protoUDP
		l.expect("question", l.sends(l.a, f), actionOK, 0, policy.Egress)
		e := l.withError(f, errorKinds(v6)["port unreachable"])
		e.srcMAC, e.dstMAC = gatewayMAC, l.a.mac
		l.expect("error of the host", l.gets(l.a, e, 0), actionOK, 0, policy.Ingress)
		e.src = map[bool]netip.Addr{false: world4, true: world6}[v6]
		l.expect("error of a router", l.gets(l.a, e, 0), actionOK, 0, policy.Ingress)
		l.expect("marked", l.gets(l.a, e, redirect.MarkFromProxy), actionOK, 0, policy.Ingress)
		u := l.udp(v6, 40000, 53)
		l.delivered("question to b", l.sends(l.a, u))
		e = l.withError(u, errorKinds(v6)["port unreachable"])
		l.expect("as b", l.gets(l.a, e, 0), actionShot, 132, policy.Ingress)
	}
}

// An error about a connection that a proxy carries is for the proxy's socket; where
// there is none, for nobody. wire_pmtu_test.go has the sockets.
func TestRelatedRedirected(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		l.reset(redirecting(setOne, 0))
		l.must(l.g.SetRoute(AnyRoute(1), listen(t, map[bool]string{false: "127.0.0.1:0", true: "[::1]:0"}[v6])))
		f := l.tcp(v6, 40000, 8080, 0)
		l.sends(l.a, f.with(syn))
		l.forget()
		e := l.withError(f, errorKinds(v6)["port unreachable"])
		r := l.sends(l.b, e)
		if got := l.counted(); r.action != actionShot || got != "0 egress, 178 egress" {
			t.Errorf("action %d, counted %q", r.action, got)
		}
		l.forget()
		l.expect("by our device", l.run(l.g.objs.HgFromHost, l.host, 0, e.bytes()), actionShot, 178, policy.Ingress)
	}
}
