package bpf

import (
	"context"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Numbers of L7 sets: the protocol is in the top 8 bits.
const (
	setOne   = 0x01000001
	setTwo   = 0x01000002
	setOther = 0x02000001
	deadPort = 9 // nobody listens
)

// A program that the kernel runs by itself is not at a device's ingress, where
// alone a socket can be assigned. So here 179 says: the socket was found. That
// packets then arrive is shown over devices, in wire_test.go.
const foundSocket = "0 egress, 179 egress"

func listen(t testing.TB, addr string) uint16 {
	t.Helper()
	ln, err := redirect.ListenTransparent(context.Background(), netip.MustParseAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return netip.MustParseAddrPort(ln.Addr().String()).Port()
}

// redirecting are tables of a and b whose TCP goes to these sets; 0: plain.
func redirecting(egressSet, ingressSet uint32) (a, b PolicyTable) {
	a, b = everything(), everything()
	if egressSet != 0 {
		a[egress(0, 0, 0, 0)] = PolicyEntry{Verdict: policy.Redirect, Set: egressSet, Rule: 1}
	}
	if ingressSet != 0 {
		b[ingress(0, 0, 0, 0)] = PolicyEntry{Verdict: policy.Redirect, Set: ingressSet, Rule: 2}
	}
	return a, b
}

// redirectedBy is the flags of a connection: one with a route of its own is bound
// to it.
func redirectedBy(exact bool) uint32 {
	if exact {
		return ctRedirected | ctBound
	}
	return ctRedirected
}

func TestRoutes(t *testing.T) {
	l := newLab(t)
	alive4, alive6 := listen(t, "127.0.0.1:0"), listen(t, "[::1]:0")
	const alive = 1 // stands for the listener's port
	anyOne, anyOther := AnyRoute(1), AnyRoute(2)
	for _, c := range []struct {
		name            string
		egress, ingress uint32
		routes          map[Route]uint16
		counted         string
	}{
		{"no route", setOne, 0, nil, "231 egress"},
		{"a route of another set", setOne, 0, map[Route]uint16{{setTwo, 0}: alive}, "231 egress"},
		{"a route of the other direction", setOne, 0, map[Route]uint16{{0, setOne}: alive}, "231 egress"},
		{"a route, nobody listens", setOne, 0, map[Route]uint16{{setOne, 0}: deadPort}, "0 egress, 232 egress"},
		{"egress", setOne, 0, map[Route]uint16{{setOne, 0}: alive}, foundSocket},
		{"ingress", 0, setOne, map[Route]uint16{{0, setOne}: alive}, foundSocket},
		{"both", setOne, setTwo, map[Route]uint16{{setOne, setTwo}: alive}, foundSocket},
		{"both, but only one has a route", setOne, setTwo, map[Route]uint16{{setOne, 0}: alive, {0, setTwo}: alive}, "231 egress"},
		{"any of the protocol, egress", setOne, 0, map[Route]uint16{anyOne: alive}, foundSocket},
		{"any of the protocol, ingress", 0, setOne, map[Route]uint16{anyOne: alive}, foundSocket},
		{"any of the protocol, both", setOne, setTwo, map[Route]uint16{anyOne: alive}, foundSocket},
		{"any of another protocol", setOne, 0, map[Route]uint16{anyOther: alive}, "231 egress"},
		{"exact before any", setOne, 0, map[Route]uint16{{setOne, 0}: alive, anyOne: deadPort}, foundSocket},
		{"two protocols at once", setOne, setOther, map[Route]uint16{anyOne: alive, anyOther: alive}, "231 egress"},
		{"two protocols with a route of their own", setOne, setOther, map[Route]uint16{{setOne, setOther}: alive}, foundSocket},
	} {
		for family, v6 := range families {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(redirecting(c.egress, c.ingress))
				for r, port := range c.routes {
					if port == alive {
						if port = alive4; v6 {
							port = alive6
						}
					}
					l.must(l.g.SetRoute(r, port))
				}
				f := l.tcp(v6, 40000, 80, syn)
				r := l.sends(l.a, f)
				if got := l.counted(); r.action != actionShot || got != c.counted {
					t.Errorf("action %d, counted %q; want %q", r.action, got, c.counted)
				}
				e, where := l.entry(f)
				if refused := c.counted == "231 egress"; refused != (where == "") {
					t.Errorf("the connection is in %q", where)
				} else if _, exact := c.routes[Route{c.egress, c.ingress}]; !refused && (e.Flags != redirectedBy(exact) || e.Set != [2]uint32{c.ingress, c.egress}) {
					t.Errorf("the connection is %+v", e)
				}
			})
		}
	}
}

// Only TCP can be redirected; the rest is refused, never let past the proxy.
func TestRedirectOfOtherProtocols(t *testing.T) {
	l := newLab(t)
	port := listen(t, "127.0.0.1:0")
	for _, f := range []frame{l.udp(false, 1, 53), l.echo(false, 1), l.udp(true, 1, 53), l.echo(true, 1)} {
		l.reset(redirecting(setOne, 0))
		l.must(l.g.SetRoute(AnyRoute(1), port))
		l.dropped(fmt.Sprint("protocol ", f.proto), l.sends(l.a, f), 180)
	}
}

// What has no socket never goes on without its proxy, either way.
func TestRedirectedWithoutSocket(t *testing.T) {
	l := newLab(t)
	l.reset(redirecting(setOne, 0))
	l.must(l.g.SetRoute(AnyRoute(1), deadPort))
	f := l.tcp(false, 40000, 80, 0)
	began := monotonic()
	try := func(what string, r result, want string) {
		t.Helper()
		if got := l.counted(); r.action != actionShot || got != want {
			t.Errorf("%s: action %d, counted %q, want %q", what, r.action, got, want)
		}
		l.forget()
	}
	try("SYN", l.sends(l.a, f.with(syn)), "0 egress, 232 egress")
	try("SYN-ACK of the server", l.answers(f, syn|ack), "0 egress, 232 egress")
	try("ACK", l.sends(l.a, f.with(ack)), "0 egress, 232 egress")
	try("RST", l.answers(f, rst), "0 egress, 232 egress")
	if e, _ := l.entry(f); time.Duration(int64(e.Expires)-began) < 28*time.Second {
		t.Error("a proxied connection that ends has not the time for both its legs")
	}
	l.must(l.g.SetRoute(AnyRoute(1), 0))
	try("after the route is gone", l.sends(l.a, f.with(ack)), "0 egress, 231 egress")
}

// A connection that policy takes back stays with its proxy, which answers it; one
// that becomes L7 goes there; one that is no longer L7 stays.
func TestRedirectFollowsPolicy(t *testing.T) {
	l := newLab(t)
	port := listen(t, "127.0.0.1:0")
	f := l.tcp(false, 40000, 80, 0)
	found := func(what string, r result) {
		t.Helper()
		if got := l.counted(); got != foundSocket {
			t.Errorf("%s: action %d, counted %q", what, r.action, got)
		}
		l.forget()
	}
	connection := func(redirected, denied bool, set uint32) {
		t.Helper()
		c, ok := l.g.Conntrack().Lookup(f.source(), f.target())
		if !ok || c.Redirected != redirected || c.Denied != denied || c.Egress != set {
			t.Errorf("the connection is %+v, %v", c, ok)
		}
	}
	plain := everything()
	first, _ := redirecting(setOne, 0)
	second, _ := redirecting(setTwo, 0)
	denied := PolicyTable{egress(0, 0, 0, 0): deny(3)}
	l.must(l.g.SetRoute(AnyRoute(1), port))
	l.open(f)
	connection(false, false, 0)
	for i, s := range []struct {
		name     string
		old, now PolicyTable
		denied   bool
		set      uint32
	}{
		{"becomes L7", plain, first, false, setOne},
		{"other rules", first, second, false, setTwo},
		{"denied", second, denied, true, setTwo},
		{"allowed again", denied, first, false, setOne},
		{"no longer L7", first, plain, false, 0},
	} {
		l.must(l.g.SyncPolicy(subjectA, s.old, s.now))
		l.must(l.g.SetRevision(uint32(i + 2)))
		if s.name == "no longer L7" { // its own socket is gone in this test: no listener stands in
			r := l.sends(l.a, f.with(ack))
			if got := l.counted(); r.action != actionShot || got != "0 egress, 231 egress" {
				t.Errorf("%s: action %d, counted %q", s.name, r.action, got)
			}
			l.forget()
		} else {
			found(s.name, l.sends(l.a, f.with(ack)))
			found(s.name+", its answer", l.answers(f, ack))
		}
		connection(true, s.denied, s.set)
	}
	l.must(l.g.SyncPolicy(subjectA, plain, denied))
	l.must(l.g.SetRevision(100))
	l.sends(l.a, f.with(rst))
	l.forget()
	l.dropped("SYN anew", l.sends(l.a, f.with(syn)), 181)
}
