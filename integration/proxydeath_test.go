package integration

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// proxied is a node whose server has L7 rules, with clients that ask for what they
// may and for what they may not.
type proxied struct {
	*node
	server, stranger *workload
	clients          []*workload
	web              *webServer
}

func newProxied(t *testing.T, b backend) *proxied {
	t.Helper()
	n := startNode(t, b.flags...)
	p := &proxied{node: n, server: n.workload(t, "server", "app=server"), stranger: n.workload(t, "stranger", "app=stranger")}
	for _, name := range []string{"client-a", "client-b"} {
		p.clients = append(p.clients, n.workload(t, name, "app=client"))
	}
	p.web = p.server.serveWeb(t, 80)
	n.apply(t, allow("http", "server", fromApp("client"), 80, httpRule{"GET", "/allowed"}))
	return p
}

// mix is allowed and denied requests, kept and new connections, by both IP versions.
func (p *proxied) mix(l *load) {
	for _, v := range []ipVersion{4, 6} {
		for _, w := range p.clients {
			c := client{w.name + " " + v.String(), w.namespace, p.server.at(v, 80)}
			for _, keep := range []bool{true, false} {
				l.asks(c, "/allowed", http.StatusOK, keep)
				l.asks(c, "/denied", http.StatusForbidden, keep)
			}
		}
		l.isRefused(client{"stranger " + v.String(), p.stranger.namespace, p.server.at(v, 80)})
	}
}

// onlyAllowed looks at all the server ever saw.
func (p *proxied) onlyAllowed(t *testing.T) {
	t.Helper()
	seen := p.web.requests()
	for _, r := range seen {
		if r.path != "/allowed" || r.from.Addr() == p.stranger.addr(4) || r.from.Addr() == p.stranger.addr(6) {
			t.Fatalf("the server saw %s %s from %s", r.method, r.path, r.from)
		}
	}
	if len(seen) == 0 {
		t.Error("the server saw nothing at all")
	}
}

// serves reports whether an allowed request is answered now.
func (p *proxied) serves(v ipVersion) bool {
	s, err := p.clients[0].open(p.server.at(v, 80), 50*time.Millisecond) // a lost SYN is sent again after a second only
	if err != nil {
		return false
	}
	defer s.Close()
	r, err := s.ask("GET", "/allowed", "")
	return err == nil && r.status == http.StatusOK
}

// kill ends a process of which we are not the parent and waits until it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); running(pid) || threads(pid) > 1; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("process %d does not end", pid)
		}
	}
}

// TestProxyKilled kills the proxy under load, again and again. Its ports fail, and
// let nothing pass that is denied; soon there is another.
func TestProxyKilled(t *testing.T) { eachBackend(t, proxyKilled) }

func proxyKilled(t *testing.T, b backend) {
	p := newProxied(t, b)
	l := newLoad()
	l.interruptible = true
	p.mix(l)
	for round := range 6 {
		v := []ipVersion{4, 6}[round%2]
		old := p.proxyPID(t)
		for range 20 { // the load is under way
			p.serves(v)
		}
		killed := time.Now()
		kill(t, old)
		for !p.serves(v) {
			if time.Since(killed) > 2*patience {
				t.Fatalf("round %d: no request was answered in %s after the proxy died", round, 2*patience)
			}
		}
		t.Logf("round %d, %s: served again after %s", round, v, time.Since(killed))
		eventually(t, patience, "another proxy", func() error { return p.wellWithout(t, old) })
	}
	// Only later deaths are met with a growing pause.
	if pauses := p.pauses(t); len(pauses) < 6 || max(pauses[0], pauses[1]) > 200*time.Millisecond {
		t.Errorf("the agent started proxies after pauses of %v, want six, and hardly any before the first two", pauses)
	}
	l.end(t)
	p.onlyAllowed(t)
}

// pauses are those that the agent says it made before it started a proxy again.
func (n *node) pauses(t *testing.T) []time.Duration {
	t.Helper()
	log, err := os.ReadFile(n.agentLog())
	if err != nil {
		t.Fatal(err)
	}
	var out []time.Duration
	for line := range strings.Lines(string(log)) {
		_, pause, found := strings.Cut(line, " again_in=")
		if !found {
			continue
		}
		d, err := time.ParseDuration(strings.Fields(pause)[0])
		if err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		out = append(out, d)
	}
	return out
}

// wellWithout says what is amiss until all is well with another proxy than this.
func (n *node) wellWithout(t *testing.T, pid int) error {
	if s := n.status(t); !s.OK || s.Backend.PID == 0 || s.Backend.PID == pid {
		return fmt.Errorf("status: %+v", s)
	}
	return nil
}

// TestAgentStartsWithoutProxy kills the proxy while there is no agent to start
// another. Redirected ports stay shut, until an agent comes.
func TestAgentStartsWithoutProxy(t *testing.T) { eachBackend(t, agentStartsWithoutProxy) }

func agentStartsWithoutProxy(t *testing.T, b backend) {
	p := newProxied(t, b)
	l := newLoad()
	l.interruptible = true
	p.mix(l)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		old := p.proxyPID(t)
		p.killAgent()
		p.clients[0].mustAsk(t, p.server.at(v, 80), "GET", "/allowed", 200) // while the agent alone is dead
		kill(t, old)
		p.web.hearOut(t, p.server) // what it had passed on already
		p.web.forget()
		for range 10 {
			if p.serves(v) {
				t.Error("an allowed request was served without a proxy")
			}
		}
		if seen := p.web.requests(); len(seen) > 0 {
			t.Errorf("the server saw %v while there was no proxy", seen)
		}
		p.startAgent(t)
		eventually(t, 2*patience, "serving again", func() error {
			if !p.serves(v) {
				return fmt.Errorf("an allowed request is not answered")
			}
			return nil
		})
		if p.proxyPID(t) == old {
			t.Error("the new proxy has the old one's process id")
		}
	})
	l.end(t)
	p.onlyAllowed(t)
}
