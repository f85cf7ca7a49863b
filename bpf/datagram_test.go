package bpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const setDNS = 0x04000001

// datagrams opens a socket that is marked as the proxy's, or as nobody's.
func datagrams(t testing.TB, addr string, mark int) uint16 {
	t.Helper()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var set error
		err := c.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) })
		return errors.Join(err, set)
	}}
	pc, err := lc.ListenPacket(context.Background(), "udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pc.Close() })
	return netip.MustParseAddrPort(pc.LocalAddr().String()).Port()
}

// Questions and answers both go to the proxy's socket, or nowhere: never past it, and
// never to the socket of somebody who has its port.
func TestRedirectOfDatagrams(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		at := "127.0.0.1:0"
		if v6 {
			at = "[::1]:0"
		}
		alive, strange := datagrams(t, at, redirect.MarkFromProxy), datagrams(t, at, 0)
		for _, c := range []struct {
			name            string
			egress, ingress uint32
			port            uint16
			question        string
			answer          string
		}{
			{"egress", setDNS, 0, alive, foundSocket, foundSocket},
			{"ingress", 0, setDNS, alive, foundSocket, foundSocket},
			{"both", setDNS, setDNS + 1, alive, foundSocket, foundSocket},
			{"nobody is there", setDNS, 0, deadPort, "0 egress, 232 egress", "0 egress, 232 egress"},
			{"somebody else is there", setDNS, 0, strange, "0 egress, 232 egress", "0 egress, 232 egress"},
			{"no route", setDNS, 0, 0, "231 egress", ""},
			{"rules of HTTP too", setDNS, setOne, alive, "180 ingress", ""},
		} {
			t.Run(family+" "+c.name, func(t *testing.T) {
				l := l.in(t)
				l.reset(redirecting(c.egress, c.ingress))
				if c.port != 0 {
					l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), c.port))
				}
				f := l.udp(v6, 40000, 53)
				if r, got := l.sends(l.a, f), l.counted(); r.action != actionShot || got != c.question {
					t.Errorf("question: action %d, counted %q, want %q", r.action, got, c.question)
				}
				l.forget()
				if c.answer == "" {
					return
				}
				if r, got := l.answers(f, 0), l.counted(); r.action != actionShot || got != c.answer {
					t.Errorf("answer: action %d, counted %q, want %q", r.action, got, c.answer)
				}
			})
		}
	}
}

// Where the rules for names are taken away, what goes on between the same ports is no
// longer the proxy's; where they come, it is from then on.
func TestDatagramsFollowPolicy(t *testing.T) {
	l := newLab(t)
	port := datagrams(t, "127.0.0.1:0", redirect.MarkFromProxy)
	a, b := redirecting(setDNS, 0)
	l.reset(a, b)
	l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), port))
	f := l.udp(false, 40000, 53)
	l.sends(l.a, f)
	l.forget()
	if c, ok := l.g.Conntrack().LookupDatagrams(f.source(), f.target()); !ok || !c.Redirected || c.Egress != setDNS {
		t.Fatalf("with rules: %+v, %v", c, ok)
	}
	l.must(l.g.SyncPolicy(subjectA, a, everything()))
	l.must(l.g.SetRevision(2))
	l.delivered("without rules", l.sends(l.a, f))
	l.must(l.g.SyncPolicy(subjectA, everything(), a))
	l.must(l.g.SetRevision(3))
	l.forget()
	if r, got := l.sends(l.a, f), l.counted(); r.action != actionShot || got != foundSocket {
		t.Errorf("with rules again: action %d, counted %q", r.action, got)
	}
}

// What is told of a question goes to who asked it, who is told by nobody else: the proxy
// has no socket that the stack could find. Of what was not sent nothing can be told.
func TestErrorsOfDatagrams(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		at := "127.0.0.1:0"
		if v6 {
			at = "[::1]:0"
		}
		port := datagrams(t, at, redirect.MarkFromProxy)
		t.Run(family, func(t *testing.T) {
			l := l.in(t)
			l.reset(redirecting(setDNS, 0))
			l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), port))
			f := l.udp(v6, 40000, 53)
			e := l.withError(f, errorKinds(v6)["port unreachable"])
			l.dropped("before the question", l.sends(l.b, e), 239)
			l.sends(l.a, f)
			l.forget()
			r := l.sends(l.b, e)
			l.delivered("error", r)
			l.rewritten(e, l.a, r.data)
			other := l.udp(v6, 40001, 53)
			l.dropped("about another port", l.sends(l.b, l.withError(other, errorKinds(v6)["port unreachable"])), 239)
			l.must(l.g.SyncPolicy(subjectA, everything(), PolicyTable{}))
			l.must(l.g.SetRevision(2))
			l.expect("after policy took it back", l.sends(l.b, e), actionShot, 133, policy.Ingress)
			l.must(l.g.SetRevision(1))
		})
	}
}
