package integration

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestNoTrafficBeforePolicy adds endpoints whose namespaces try to talk, and are
// talked to, all the time, under policies that deny it. There is no moment between
// being connected and being judged.
func TestNoTrafficBeforePolicy(t *testing.T) {
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	server.serveWeb(t, 80)
	inbox := server.listenUDP(t, 9000)
	l7 := allow("http", "server", fromApp("client"), 80, httpRule{"GET", "/allowed"})
	t.Run("denied", func(t *testing.T) {
		n.apply(t, denyAll)
		for range 5 {
			admit(t, n, server, inbox)
		}
		n.withdraw(t, denyAll)
		admitWithoutPolicy(t, n, server)
	})
	t.Run("L7", func(t *testing.T) {
		n.apply(t, l7)
		for range 5 {
			admitL7(t, n, server)
		}
	})
}

// tries are attempts that go on until they are ended.
type tries struct {
	stop              chan struct{}
	wg                sync.WaitGroup
	made, successes   atomic.Int64
	successfulAttempt atomic.Pointer[string]
}

func (a *tries) again(what string, f func() bool) {
	a.wg.Go(func() {
		for {
			select {
			case <-a.stop:
				return
			case <-time.After(time.Millisecond):
			}
			a.made.Add(1)
			if f() {
				a.successes.Add(1)
				a.successfulAttempt.Store(&what)
			}
		}
	})
}

// end waits a while, and for more attempts, for what comes late.
func (a *tries) end(t *testing.T) {
	t.Helper()
	before := a.made.Load()
	time.Sleep(300 * time.Millisecond)
	for deadline := time.Now().Add(patience); a.made.Load() < before+10 && time.Now().Before(deadline); {
		time.Sleep(pause)
	}
	close(a.stop)
	a.wg.Wait()
	if n := a.successes.Load(); n > 0 {
		t.Errorf("%d of %d attempts succeeded, the last: %s", n, a.made.Load(), *a.successfulAttempt.Load())
	}
	if n := a.made.Load() - before; n < 10 {
		t.Errorf("there were only %d attempts", n)
	}
}

func connects(from *namespace, to netip.AddrPort) bool {
	c, err := from.dial(to, 20*time.Millisecond)
	if err == nil {
		c.Close()
	}
	return err == nil
}

// admit adds an endpoint that may talk to nobody.
func admit(t *testing.T, n *node, server *workload, inbox *net.UDPConn) {
	t.Helper()
	late := n.unconnected(t, "late")
	late.serveWeb(t, 80)
	a := &tries{stop: make(chan struct{})}
	own := map[ipVersion]string{4: "10.210.99.1", 6: "fd00:210::99"}
	for _, v := range []ipVersion{4, 6} {
		there, here := server.at(v, 80), netip.AddrPortFrom(netip.MustParseAddr(own[v]), 80)
		a.again("from the new endpoint by "+v.String(), func() bool { return connects(late.namespace, there) })
		a.again("to the new endpoint by "+v.String(), func() bool { return connects(server.namespace, here) })
		a.again("from the host to the new endpoint by "+v.String(), func() bool { return connects(n.namespace, here) })
		a.again("datagrams by "+v.String(), func() bool {
			c, err := late.connect(context.Background(), unix.SOCK_DGRAM, netip.AddrPort{}, server.at(v, 9000))
			if err == nil {
				_, _ = c.Write([]byte("denied"))
				c.Close()
			}
			return false // what arrives shows at the server
		})
	}
	late.add(t, "app=client", "--ip", own[4], "--ip", own[6])
	a.end(t)
	if got, from, err := receive(inbox, time.Millisecond); err == nil {
		t.Errorf("a datagram arrived: %q from %s", got, from)
	}
	n.headgate(t, "endpoint", "delete", "late")
}

// admitWithoutPolicy shows that the attempts would succeed if they could.
func admitWithoutPolicy(t *testing.T, n *node, server *workload) {
	t.Helper()
	late := n.unconnected(t, "late")
	late.add(t, "app=client")
	for _, v := range []ipVersion{4, 6} {
		eventually(t, patience, "an attempt by "+v.String()+" that succeeds", func() error {
			if !connects(late.namespace, server.at(v, 80)) {
				return errors.New("not connected")
			}
			return nil
		})
	}
	n.headgate(t, "endpoint", "delete", "late")
}

// admitL7 adds an endpoint that may ask for one thing alone.
func admitL7(t *testing.T, n *node, server *workload) {
	t.Helper()
	late := n.unconnected(t, "late")
	a := &tries{stop: make(chan struct{})}
	for _, v := range []ipVersion{4, 6} {
		a.again("GET /denied by "+v.String(), func() bool {
			s, err := late.open(server.at(v, 80), 20*time.Millisecond)
			if err != nil {
				return false
			}
			defer s.Close()
			r, err := s.ask("GET", "/denied", "")
			return err == nil && r.status != http.StatusForbidden
		})
	}
	late.add(t, "app=client")
	late.mustAsk(t, server.at(4, 80), "GET", "/allowed", 200)
	a.end(t)
	n.headgate(t, "endpoint", "delete", "late")
}
