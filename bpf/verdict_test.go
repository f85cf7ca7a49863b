package bpf

import (
	"testing"

	"github.com/headgate/headgate/policy"
)

// Families of every test that holds for both.
var families = map[string]bool{"IPv4": false, "IPv6": true}

func TestLetThrough(t *testing.T) {
	l := newLab(t)
	rule := PolicyEntry{Verdict: policy.Allow, Rule: 7}
	for family, v6 := range families {
		for name, f := range map[string]frame{
			"TCP": l.tcp(v6, 40000, 80, syn), "UDP": l.udp(v6, 40000, 53), "echo": l.echo(v6, 9),
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := l.in(t)
				l.reset(PolicyTable{{Direction: policy.Egress}: rule}, PolicyTable{{Direction: policy.Ingress}: rule})
				r := l.sends(l.a, f)
				l.delivered("the first packet", r)
				l.rewritten(f, l.b, r.data)
			})
			t.Run(family+" "+name+" tells of both directions", func(t *testing.T) {
				l := l.in(t)
				l.reset(PolicyTable{{Direction: policy.Egress}: rule}, PolicyTable{{Direction: policy.Ingress}: {Verdict: policy.Allow, Rule: 8}})
				l.sends(l.a, f)
				l.told(f.eventOf(l.a.ifindex, EventVerdict, policy.Egress, rule, 0),
					f.eventOf(l.a.ifindex, EventVerdict, policy.Ingress, PolicyEntry{Verdict: policy.Allow, Rule: 8}, 0))
				l.sends(l.a, f)
				l.told() // a connection is told of once
			})
		}
	}
}

// ruleCase is one egress table of a, met by a SYN to port 80 of b.
type ruleCase struct {
	name   string
	table  PolicyTable
	reason uint8 // 0: delivered
	rule   uint32
	match  uint8 // Hubble's policy_match_type
}

func egress(peer policy.Identity, proto policy.Proto, port uint16, bits uint8) policy.Key {
	return policy.Key{Peer: peer, Direction: policy.Egress, Proto: proto, Port: port, PrefixBits: bits}
}

func ingress(peer policy.Identity, proto policy.Proto, port uint16, bits uint8) policy.Key {
	return policy.Key{Peer: peer, Direction: policy.Ingress, Proto: proto, Port: port, PrefixBits: bits}
}

func allow(rule uint32) PolicyEntry { return PolicyEntry{Verdict: policy.Allow, Rule: rule} }
func deny(rule uint32) PolicyEntry  { return PolicyEntry{Verdict: policy.Deny, Rule: rule} }

var ruleCases = []ruleCase{
	{"no rule", PolicyTable{}, 133, 0, 0},
	{"default deny that no rule made", PolicyTable{egress(0, 0, 0, 0): deny(0)}, 133, 0, 0},
	{"a rule denies", PolicyTable{egress(0, 0, 0, 0): deny(4)}, 181, 4, 4},
	{"only the other direction", PolicyTable{ingress(0, 0, 0, 0): allow(1)}, 133, 0, 0},
	{"L3 only", PolicyTable{egress(identityB, 0, 0, 0): allow(1)}, 0, 1, 1},
	{"L3 only, another peer", PolicyTable{egress(identityA, 0, 0, 0): allow(1)}, 133, 0, 0},
	{"L3 and L4", PolicyTable{egress(identityB, policy.ProtoTCP, 80, 16): allow(1)}, 0, 1, 2},
	{"L4 only", PolicyTable{egress(0, policy.ProtoTCP, 80, 16): allow(1)}, 0, 1, 3},
	{"all", PolicyTable{egress(0, 0, 0, 0): allow(1)}, 0, 1, 4},
	{"L3 and protocol", PolicyTable{egress(identityB, policy.ProtoTCP, 0, 0): allow(1)}, 0, 1, 5},
	{"protocol", PolicyTable{egress(0, policy.ProtoTCP, 0, 0): allow(1)}, 0, 1, 6},
	{"another protocol", PolicyTable{egress(0, policy.ProtoUDP, 80, 16): allow(1)}, 133, 0, 0},
	{"the port below", PolicyTable{egress(0, policy.ProtoTCP, 79, 16): allow(1)}, 133, 0, 0},
	{"a range that holds it", PolicyTable{egress(0, policy.ProtoTCP, 80, 12): allow(1)}, 0, 1, 3}, // 80–95
	{"a range beside it", PolicyTable{egress(0, policy.ProtoTCP, 64, 12): allow(1)}, 133, 0, 0},   // 64–79
	{"a half of all ports", PolicyTable{egress(0, policy.ProtoTCP, 0, 1): allow(1)}, 0, 1, 3},
	{"the upper half", PolicyTable{egress(0, policy.ProtoTCP, 0x8000, 1): allow(1)}, 133, 0, 0},
	{"a deny inside an allowed range", PolicyTable{
		egress(0, policy.ProtoTCP, 64, 10): allow(1), egress(0, policy.ProtoTCP, 80, 16): deny(2),
	}, 181, 2, 3},
	{"an allow inside a denied range, where the resolver put one", PolicyTable{
		egress(0, policy.ProtoTCP, 64, 10): deny(1), egress(0, policy.ProtoTCP, 80, 14): allow(2),
	}, 0, 2, 3},
	{"the longest of three", PolicyTable{
		egress(0, policy.ProtoTCP, 0, 0): deny(1), egress(0, policy.ProtoTCP, 64, 10): deny(2), egress(0, policy.ProtoTCP, 80, 15): allow(3),
	}, 0, 3, 3},
	{"the peer's entry before everybody's, allowed", PolicyTable{
		egress(0, policy.ProtoTCP, 80, 16): deny(1), egress(identityB, 0, 0, 0): allow(2),
	}, 0, 2, 1},
	{"the peer's entry before everybody's, denied", PolicyTable{
		egress(0, policy.ProtoTCP, 80, 16): allow(1), egress(identityB, 0, 0, 0): deny(2),
	}, 181, 2, 1},
	{"the peer's port before the peer's rest", PolicyTable{
		egress(identityB, 0, 0, 0): allow(1), egress(identityB, policy.ProtoTCP, 80, 16): deny(2),
	}, 181, 2, 2},
	{"everybody's port before everybody's rest", PolicyTable{
		egress(0, 0, 0, 0): allow(1), egress(0, policy.ProtoTCP, 80, 16): deny(2),
	}, 181, 2, 3},
	{"a verdict that no build knows", PolicyTable{egress(0, 0, 0, 0): {Verdict: 9, Rule: 1}}, 134, 1, 4},
	{"a redirect without a set", PolicyTable{egress(0, 0, 0, 0): {Verdict: policy.Redirect, Rule: 1}}, 231, 1, 4},
	{"an allow that names a set is not a redirect", PolicyTable{egress(0, 0, 0, 0): {Verdict: policy.Allow, Set: 5, Rule: 1}}, 0, 1, 4},
}

func TestRules(t *testing.T) {
	l := newLab(t)
	for _, c := range ruleCases {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(c.table, nil)
			f := l.tcp(false, 40000, 80, syn)
			r := l.sends(l.a, f)
			if events := l.seen(); len(events) == 0 {
				t.Error("no event")
			} else if e := events[0]; e.Rule != c.rule || e.Reason != c.reason || e.Match != c.match {
				t.Errorf("event says rule %d, reason %d, match %d; want %d, %d, %d", e.Rule, e.Reason, e.Match, c.rule, c.reason, c.match)
			}
			if c.reason == 0 {
				l.delivered("SYN", r)
			} else {
				l.dropped("SYN", r, c.reason)
			}
			// The gate's order of look-ups is that of the table that made it.
			want := policy.Table{Entries: map[policy.Key]policy.Entry{}}
			for k, e := range c.table {
				want.Entries[k] = policy.Entry{Verdict: e.Verdict, Rule: policy.RuleID(e.Rule)}
			}
			if e := want.Lookup(identityB, policy.Egress, policy.ProtoTCP, 80); uint32(e.Rule) != c.rule {
				t.Errorf("policy.Table finds rule %d, the gate %d", e.Rule, c.rule)
			}
		})
	}
}

// A denial is told with all that is known, from either end, and forgets nothing.
func TestDenialsTell(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		for _, d := range []policy.Direction{policy.Egress, policy.Ingress} {
			t.Run(family+" "+d.String(), func(t *testing.T) {
				l := l.in(t)
				table := everything()
				table[policy.Key{Direction: d, Proto: policy.ProtoTCP, Port: 80, PrefixBits: 16}] = deny(33)
				if d == policy.Egress {
					l.reset(table, nil)
				} else {
					l.reset(nil, table)
				}
				f := l.tcp(v6, 40000, 80, syn)
				r := l.sends(l.a, f)
				want := []Event{f.eventOf(l.a.ifindex, EventDrop, d, deny(33), 181)}
				if d == policy.Ingress {
					ok := f.eventOf(l.a.ifindex, EventVerdict, policy.Egress, PolicyEntry{Verdict: policy.Allow}, 0)
					want = append([]Event{ok}, want...)
				}
				l.told(want...)
				l.expect("SYN", r, actionShot, 181, d)
				if _, ok := l.g.Conntrack().Lookup(f.source(), f.target()); ok {
					t.Error("a denied connection is remembered")
				}
			})
		}
	}
}

func TestICMPTypesArePorts(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := l.in(t)
			f := l.echo(v6, 5)
			l.reset(PolicyTable{egress(0, policy.Proto(f.proto), uint16(f.icmpType), 16): allow(1)}, nil)
			l.delivered("echo", l.sends(l.a, f))
			l.reset(PolicyTable{egress(0, policy.Proto(f.proto), uint16(f.icmpType)+1, 16): allow(1)}, nil)
			l.dropped("echo of another type", l.sends(l.a, f), 133)
		})
	}
}

func TestSubjectsAndIdentities(t *testing.T) {
	l := newLab(t)
	syn := l.tcp(false, 40000, 80, syn)
	for _, c := range []struct {
		name   string
		change func(l *lab)
		reason uint8
		d      policy.Direction
	}{
		{"unknown subject of the source", func(l *lab) { l.must(l.g.DeletePolicy(subjectA, everything())) }, 203, policy.Egress},
		{"unknown subject of the destination", func(l *lab) { l.must(l.g.DeletePolicy(subjectB, everything())) }, 203, policy.Ingress},
		{"closed subject", func(l *lab) { l.must(l.g.putSubject(subjectA, [2]uint32{1, 1}, subjectClosed)) }, 203, policy.Egress},
		{"closed subject of the destination", func(l *lab) { l.must(l.g.putSubject(subjectB, [2]uint32{1, 1}, subjectClosed)) }, 203, policy.Ingress},
		{"source not ready", func(l *lab) { l.put(l.a, false) }, 203, policy.Egress},
		{"destination not ready", func(l *lab) { l.put(l.b, false) }, 203, policy.Egress},
		{"source without identity", func(l *lab) { l.a.identity = 0; l.put(l.a, true) }, 171, policy.Ingress},
		{"destination without identity", func(l *lab) { l.b.identity = 0; l.put(l.b, true) }, 171, policy.Egress},
		{"source not known", func(l *lab) { l.must(l.g.DeleteEndpoint(l.a.v4)) }, 132, policy.Egress},
		{"destination not known", func(l *lab) { l.must(l.g.DeleteEndpoint(l.b.v4)) }, 150, policy.Egress},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(nil, nil)
			c.change(l)
			l.expect("SYN", l.sends(l.a, syn), actionShot, c.reason, c.d)
		})
	}
}

func TestDestinations(t *testing.T) {
	l := newLab(t)
	for _, c := range []struct {
		name   string
		to     string
		action uint32
		reason uint8
	}{
		{"nobody in the endpoints' prefix", "10.1.0.99", actionShot, 150},
		{"nobody in the endpoints' prefix, IPv6", "fd00:1::99", actionShot, 150},
		{"broadcast", "255.255.255.255", actionShot, 230},
		{"IPv4 multicast", "224.0.0.251", actionShot, 230},
		{"IPv6 multicast", "ff02::fb", actionShot, 230},
		{"loopback", "127.0.0.1", actionShot, 230},
		{"loopback of another kind", "127.255.1.2", actionShot, 230},
		{"this network", "0.0.0.0", actionShot, 230},
		{"loopback, IPv6", "::1", actionShot, 230},
		{"nobody, IPv6", "::", actionShot, 230},
		{"the host", host4.String(), actionOK, 0},
		{"the host, IPv6", host6.String(), actionOK, 0},
		{"the gateway", gateway4.String(), actionOK, 0},
		{"the gateway, IPv6", gateway6.String(), actionOK, 0},
		{"itself", l.a.v4.String(), actionSend, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := l.in(t)
			l.reset(nil, nil)
			dst := mustAddr(c.to)
			f := l.udp(dst.Is6(), 40000, 53).to(dst)
			r := l.sends(l.a, f)
			l.expect("packet", r, c.action, c.reason, policy.Egress)
			if c.action == actionOK && string(r.data) != string(f.bytes()) {
				t.Error("the packet for the host's stack is changed")
			}
		})
	}
	t.Run("no identity at all", func(t *testing.T) {
		l := l.in(t)
		l.reset(nil, nil)
		l.must(empty(l.g.objs.HgIpcache1))
		l.dropped("packet", l.sends(l.a, l.udp(false, 1, 2).to(world4)), 150)
	})
	t.Run("policy for the host", func(t *testing.T) {
		l := l.in(t)
		l.reset(PolicyTable{egress(policy.IdentityHost, policy.ProtoUDP, 53, 16): allow(1)}, nil)
		l.expect("allowed port", l.sends(l.a, l.udp(false, 1, 53).to(host4)), actionOK, 0, policy.Egress)
		l.dropped("another port", l.sends(l.a, l.udp(false, 1, 54).to(host4)), 133)
	})
}
