package bpf

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// leg is a connection that the proxy made to the host as a, and the host's first answer.
func (l *lab) leg(v6 bool) (answer frame, fd int) {
	l.Helper()
	f := l.fromHost(v6, syn|ack)
	f.src = netip.MustParseAddr("127.0.0.1")
	if v6 {
		f.src = netip.MustParseAddr("::1")
	}
	f.sport = listen(l.TB, netip.AddrPortFrom(f.src, 0).String())
	fd, err := redirect.DialTransparent(f.target(), f.source())
	l.must(err)
	l.Cleanup(func() { unix.Close(fd) })
	return f, fd
}

// A listener of Envoy that is not ours may lead to the host itself, over the loopback
// device, past every hook. The host's first answer is judged as if the client had dialled
// there.
func TestLegsToTheHost(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f, fd := l.leg(v6)

		l.reset(PolicyTable{}, nil)
		l.expect("what the client dialled", l.gets(l.a, f, 0), actionSend, 0, policy.Ingress)
		l.reset(PolicyTable{}, nil)
		l.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, redirect.MarkFromProxy|redirect.MarkElsewhere))
		l.expect("what egress denies", l.gets(l.a, f, 0), actionShot, 133, policy.Egress)
		if _, ok := l.g.Conntrack().Lookup(f.target(), f.source()); ok {
			t.Error("a connection that is denied is known")
		}
		l.reset(everything(), nil)
		l.expect("what egress allows", l.gets(l.a, f, 0), actionSend, 0, policy.Ingress)
		l.reset(redirecting(setOne, 0))
		l.expect("what egress has a listener carry", l.gets(l.a, f, 0), actionSend, 0, policy.Ingress)
	}
}

// The node's own policy judges it too, where the node has one.
func TestLegsToAGuardedHost(t *testing.T) {
	l := newLab(t)
	for _, v6 := range families {
		f, fd := l.leg(v6)
		l.must(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, redirect.MarkFromProxy|redirect.MarkElsewhere))

		l.reset(everything(), nil)
		own := PolicyTable{ingress(identityB, policy.ProtoTCP, f.sport, 16): allow(1)}
		l.must(l.g.SyncPolicy(subjectHost, nil, own))
		l.must(l.g.SetSettings(Settings{Host: HostEnforce, HostSubject: subjectHost}))
		l.expect("what the node's policy denies", l.gets(l.a, f, 0), actionShot, 133, policy.Ingress)
		if _, ok := l.g.Conntrack().Lookup(f.target(), f.source()); ok {
			t.Error("a connection that is denied is known")
		}
		open := PolicyTable{ingress(identityA, policy.ProtoTCP, f.sport, 16): allow(1)}
		l.must(l.g.SyncPolicy(subjectHost, own, open))
		l.expect("what the node's policy allows", l.gets(l.a, f, 0), actionSend, 0, policy.Ingress)
		l.must(l.g.SyncPolicy(subjectHost, open, nil))
		l.must(l.g.SetSettings(Settings{HostSubject: subjectHost}))
	}
}
