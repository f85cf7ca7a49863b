package bpf

import (
	"net/netip"
	"testing"
	"time"

	"github.com/headgate/headgate/redirect"
)

// Two workloads find the gateway by ARP and NDP and each other by the gate alone:
// the host does not forward.
func TestWirePlain(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		t.Run(family, func(t *testing.T) {
			l := w.in(t)
			came := w.serve(w.nsB, l.b.addr(v6), 80)
			c, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(l.b.addr(v6), 80), patience)
			l.must(err)
			defer c.Close()
			echoed(t, c)
			if who := <-came; who != ends(c.LocalAddr()) {
				t.Errorf("the server sees %s, the client is %s", who, c.LocalAddr())
			}
			if k, ok := l.g.Conntrack().Lookup(ends(c.LocalAddr()), ends(c.RemoteAddr())); !ok || k.Redirected || !k.SeenReply {
				t.Errorf("the connection is %+v, %v", k, ok)
			}
			l.must(l.g.SyncPolicy(subjectB, everything(), PolicyTable{}))
			defer func() { l.must(l.g.SyncPolicy(subjectB, PolicyTable{}, everything())) }()
			if c, err := w.dial(w.nsA, "tcp", netip.AddrPortFrom(l.b.addr(v6), 80), 300*time.Millisecond); err == nil {
				c.Close()
				t.Error("connected against policy")
			}
		})
	}
}

// A redirected connection arrives at the proxy with both its addresses, and the
// server sees the client. It takes the mark and the routing rule; without, nothing.
func TestWireRedirected(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		for name, to := range map[string]netip.Addr{"to a workload": w.b.addr(v6), "to the host": map[bool]netip.Addr{false: host4, true: host6}[v6]} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := w.in(t)
				w := &wired{lab: l, nsA: w.nsA, nsB: w.nsB}
				l.reset(redirecting(setOne, 0))
				at := netip.AddrPortFrom(to, 8080)
				ns := w.nsB
				if name == "to the host" {
					ns = w.ns
				}
				server := w.serve(ns, to, 8080)
				proxy := w.proxied(v6, AnyRoute(1))
				if ns == w.nsB { // the host's own address is local without it
					l.must(redirect.RemoveRules())
					if c, err := w.dial(w.nsA, "tcp", at, 300*time.Millisecond); err == nil {
						c.Close()
						t.Fatal("connected without the routing rule")
					}
					l.must(redirect.InstallRules())
				}
				c, err := w.dial(w.nsA, "tcp", at, patience)
				l.must(err)
				defer c.Close()
				echoed(t, c)
				client := ends(c.LocalAddr())
				if got := <-proxy; got != [2]netip.AddrPort{client, at} {
					t.Errorf("the proxy sees %v, want %v → %v", got, client, at)
				}
				got := <-server
				if got.Addr() != client.Addr() || (ns == w.nsB) != (got == client) {
					t.Errorf("the server sees %v, the client is %v", got, client)
				}
				if ns != w.nsB { // the proxy's own connection is known by the host's answers
					if k, ok := l.g.Conntrack().Lookup(got, at); !ok || !k.ProxyLeg || !k.Redirected {
						t.Errorf("the leg is %+v, %v", k, ok)
					}
				}
				if k, ok := l.g.Conntrack().Lookup(client, at); !ok || !k.Redirected || k.Egress != setOne {
					t.Errorf("the connection is %+v, %v", k, ok)
				}
				// Taken back by policy: the proxy still has it, and is told so.
				l.must(l.g.SyncPolicy(subjectA, func() PolicyTable { a, _ := redirecting(setOne, 0); return a }(), PolicyTable{}))
				l.must(l.g.SetRevision(2))
				echoed(t, c)
				if k, ok := l.g.Conntrack().Lookup(client, at); !ok || !k.Redirected || !k.Denied {
					t.Errorf("the denied connection is %+v, %v", k, ok)
				}
				if _, err := w.dial(w.nsA, "tcp", at, 300*time.Millisecond); err == nil {
					t.Error("connected against policy")
				}
			})
		}
	}
}
