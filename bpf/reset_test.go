package bpf

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// A connection between workloads, and between the host and one, that policy ends:
// with Reset both kernels take the reset for their peer's at the first packet of
// either side; without, both hang.
func TestWireReset(t *testing.T) {
	w := newWired(t)
	for family, v6 := range families {
		t.Run(family+" workloads, the client speaks", func(t *testing.T) { revoked(t, w, v6, false, false) })
		t.Run(family+" workloads, the server speaks", func(t *testing.T) { revoked(t, w, v6, true, false) })
		t.Run(family+" from the host, it speaks", func(t *testing.T) { revoked(t, w, v6, false, true) })
		t.Run(family+" from the host, the workload speaks", func(t *testing.T) { revoked(t, w, v6, true, true) })
	}
}

// pair is a connection to b, and b's end of it.
func (w *wired) pair(t *testing.T, v6, fromHost bool) (client, server net.Conn) {
	t.Helper()
	to := netip.AddrPortFrom(w.b.addr(v6), 80)
	var ln net.Listener
	w.must(within(w.nsB, func() (err error) {
		ln, err = net.Listen("tcp", to.String())
		return err
	}))
	defer ln.Close()
	from := w.nsA
	if fromHost {
		from = w.ns
	}
	client, err := w.dial(from, "tcp", to, patience)
	w.must(err)
	t.Cleanup(func() { client.Close() })
	server, err = ln.Accept()
	w.must(err)
	t.Cleanup(func() { server.Close() })
	return client, server
}

func revoked(t *testing.T, w *wired, v6, serverSpeaks, fromHost bool) {
	l := w.in(t)
	for _, reset := range []bool{true, false} {
		l.must(l.g.SetSettings(Settings{Reset: reset}))
		client, server := w.pair(t, v6, fromHost)
		speak(t, client, server)
		speak(t, server, client)
		l.must(l.g.SyncPolicy(subjectB, everything(), PolicyTable{}))
		l.must(l.g.SetRevision(uint32(time.Now().UnixNano())))
		from := client
		if serverSpeaks {
			from = server
		}
		if _, err := from.Write([]byte("too late")); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]net.Conn{"client": client, "server": server} {
			wait := patience
			if !reset {
				wait = 300 * time.Millisecond
			}
			c.SetReadDeadline(time.Now().Add(wait)) //nolint:errcheck // the read fails then
			_, err := c.Read(make([]byte, 1))
			if reset && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("%s: %v, want a reset", name, err)
			}
			if !reset && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s without resets: %v, want silence", name, err)
			}
		}
		l.must(l.g.SyncPolicy(subjectB, PolicyTable{}, everything()))
		l.must(l.g.SetRevision(uint32(time.Now().UnixNano())))
		// The same ports serve again.
		client, server = w.pair(t, v6, fromHost)
		speak(t, client, server)
	}
}

func speak(t *testing.T, from, to net.Conn) {
	t.Helper()
	line := []byte("through the gate")
	got := make([]byte, len(line))
	to.SetReadDeadline(time.Now().Add(patience)) //nolint:errcheck // the read fails then
	if _, err := from.Write(line); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(to, got); err != nil || string(got) != string(line) {
		t.Fatalf("%q, %v", got, err)
	}
}

// A reset is never answered by one, nor does a workload's own packet pass for ours.
func TestResetsAnswerNoResets(t *testing.T) {
	l := newLab(t)
	l.must(l.g.SetSettings(Settings{Reset: true}))
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	l.must(l.g.SyncPolicy(subjectB, everything(), PolicyTable{}))
	l.must(l.g.SetRevision(2))
	l.sends(l.a, f.with(rst|ack))
	l.sends(l.a, f.with(ack))
	l.forget()
	if r := l.sends(l.a, f.with(rst)); r.action != actionShot {
		t.Errorf("a reset on a revoked connection: action %d", r.action)
	}
	l.forget()
	marked := l.run(l.g.objs.HgToWorkload, l.b.ifindex, 0x700, l.udp(false, 40000, 53).bytes())
	if marked.action == actionOK {
		t.Error("the mark of resets lets a datagram by")
	}
	l.forget()
	l.expect("from the host with the mark, no reset", l.run(l.g.objs.HgToWorkload, l.b.ifindex, 0x700, l.fromHost(false, syn).to(l.b.v4).bytes()),
		actionShot, 133, policy.Ingress)
}
