package integration

import (
	"fmt"
	"sync"
	"testing"
)

// openConnections is how many stay open while policy changes.
const openConnections = 64

// TestPolicyChanges changes policy under open connections.
func TestPolicyChanges(t *testing.T) {
	t.Parallel()
	eachBackend(t, policyChanges)
}

func policyChanges(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	c := &changes{
		node: n, backend: b, server: n.workload(t, "server", "app=server"),
		clients: []*workload{n.workload(t, "client-a", "app=client"), n.workload(t, "client-b", "app=client")},
	}
	c.web, c.echo = c.server.serveWeb(t, 80), c.server.serveEcho(t, 90)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("other L7 rules", func(t *testing.T) { c.otherL7Rules(t, v) })
		if !b.bound {
			t.Run("L7 rules gone", func(t *testing.T) { c.l7RulesGone(t, v) })
		}
		t.Run("L7 revoked", func(t *testing.T) { c.l7Revoked(t, v) })
		t.Run("L4 revoked", func(t *testing.T) { c.l4Revoked(t, v) })
		t.Run("becomes L7", func(t *testing.T) { c.becomesL7(t, v) })
	})
}

type changes struct {
	*node
	backend backend
	server  *workload
	clients []*workload
	web     *webServer
	echo    *echoServer
}

func (c *changes) open(t *testing.T, v ipVersion, port int) []*session {
	t.Helper()
	var all []*session
	for i := range openConnections {
		all = append(all, c.clients[i%len(c.clients)].mustOpen(t, c.server.at(v, port)))
	}
	return all
}

// atOnce does something with every connection at the same time.
func atOnce(t *testing.T, all []*session, f func(*testing.T, *session)) {
	t.Helper()
	var wg sync.WaitGroup
	for _, s := range all {
		wg.Go(func() { f(t, s) })
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// want asks for both paths on each connection.
func (c *changes) want(t *testing.T, all []*session, a, b int) {
	t.Helper()
	atOnce(t, all, func(t *testing.T, s *session) {
		for path, status := range map[string]int{"/a": a, "/b": b} {
			r, err := s.ask("GET", path, s.LocalAddr().String())
			if err != nil || r.status != status {
				t.Errorf("GET %s from %s: %+v, %v, want status %d", path, s.LocalAddr(), r, err, status)
				return
			}
			if from := r.header.Get("X-From"); status == 200 && !c.backend.same(from, endOf(s.LocalAddr())) {
				t.Errorf("the request of %s came from %s", s.LocalAddr(), from)
			}
		}
	})
}

func (c *changes) rule(port int, rules ...httpRule) string {
	return allow(fmt.Sprintf("rule-%d", port), "server", fromApp("client"), port, rules...)
}

// nobody may come in by this policy.
func (c *changes) nobody(port int) string {
	return allow(fmt.Sprintf("rule-%d", port), "server", fromApp("nobody"), port)
}

func (c *changes) otherL7Rules(t *testing.T, v ipVersion) {
	c.apply(t, c.rule(80, httpRule{"GET", "/a"}))
	all := c.open(t, v, 80)
	c.want(t, all, 200, 403)
	c.apply(t, c.rule(80, httpRule{"GET", "/b"}))
	c.want(t, all, 403, 200)
	c.apply(t, c.rule(80, httpRule{"GET", "/a"}, httpRule{"GET", "/b"}))
	c.want(t, all, 200, 200)
}

// l7RulesGone: connections stay usable, on the way they had.
func (c *changes) l7RulesGone(t *testing.T, v ipVersion) {
	c.apply(t, c.rule(80, httpRule{"GET", "/a"}))
	all := c.open(t, v, 80)
	c.want(t, all, 200, 403)
	c.apply(t, c.rule(80))
	c.want(t, all, 200, 200)
	c.apply(t, c.rule(80, httpRule{"GET", "/b"}))
	c.want(t, all, 403, 200)
	c.apply(t, c.rule(80, httpRule{"GET", "/a"}))
	idle := c.open(t, v, 80) // without a request before the rules go
	c.withdraw(t, c.rule(80))
	c.want(t, idle, 200, 200)
}

// l7Revoked: the next request is answered, then the connection ends. One that is bound
// to its rules is reset: nobody is left to answer.
func (c *changes) l7Revoked(t *testing.T, v ipVersion) {
	c.apply(t, c.rule(80, httpRule{"GET", "/a"}))
	all := c.open(t, v, 80)
	c.want(t, all, 200, 403)
	c.apply(t, c.nobody(80))
	c.web.forget()
	atOnce(t, all, func(t *testing.T, s *session) {
		r, err := s.ask("GET", "/a", "")
		if c.backend.bound && (err != nil || r.status == 403) {
			return
		}
		if err != nil || r.status != 403 || r.body != deniedBody {
			t.Errorf("the next request after revocation: %+v, %v", r, err)
			return
		}
		if b, err := s.read.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("the connection goes on: %#x, %v", b, err)
		}
	})
	if seen := c.web.requests(); len(seen) > 0 {
		t.Errorf("the server saw %v", seen)
	}
	c.clients[0].mustNotConnect(t, c.server.at(v, 80))
}

// l4Revoked: nothing passes any more, whoever speaks.
func (c *changes) l4Revoked(t *testing.T, v ipVersion) {
	c.apply(t, c.rule(90))
	all := c.open(t, v, 90)
	atOnce(t, all, func(t *testing.T, s *session) { s.echoes(t) })
	c.apply(t, c.nobody(90))
	atOnce(t, all[1:], func(t *testing.T, s *session) { s.staysSilent(t) })
	c.apply(t, c.rule(90)) // what was lost is sent again: the connection was not cut
	atOnce(t, all[:1], func(t *testing.T, s *session) { s.echoes(t) })
	c.clients[0].mustOpen(t, c.server.at(v, 90)).echoes(t)
}

// becomesL7: what went by the proxy's back is reset, at whichever end speaks.
func (c *changes) becomesL7(t *testing.T, v ipVersion) {
	c.apply(t, c.rule(90))
	all := c.open(t, v, 90)
	atOnce(t, all, func(t *testing.T, s *session) { s.echoes(t) })
	c.apply(t, c.rule(90, httpRule{"GET", "/a"}))
	atOnce(t, all, func(t *testing.T, s *session) {
		s.isReset(t)
		if end := c.echo.end(s.LocalAddr()); end == nil {
			t.Errorf("the server never had the connection of %s", s.LocalAddr())
		} else {
			end.isReset(t)
		}
	})
	c.withdraw(t, c.rule(90))
}
