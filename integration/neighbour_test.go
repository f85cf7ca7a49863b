package integration

import (
	"net/http"
	"testing"
	"time"
)

// TestTwoNodes runs two agents side by side, in network namespaces of their own.
// Their endpoints have the same names and addresses, and nothing else in common.
func TestTwoNodes(t *testing.T) {
	a, b := startNode(t), startNode(t)
	type pair struct {
		server, client *workload
		web            *webServer
	}
	pairs := map[*node]*pair{}
	for _, n := range []*node{a, b} {
		p := &pair{server: n.workload(t, "server", "app=server"), client: n.workload(t, "client", "app=client")}
		p.web = p.server.serveWeb(t, 80)
		pairs[n] = p
	}
	if pairs[a].server.addr(4) != pairs[b].server.addr(4) || pairs[a].client.addr(6) != pairs[b].client.addr(6) {
		t.Fatal("the endpoints' addresses differ, and this test is about the same ones")
	}
	a.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/a"}))
	b.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET", "/b"}))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for n, status := range map[*node][2]int{a: {200, 403}, b: {403, 200}} {
			p := pairs[n]
			p.client.mustAsk(t, p.server.at(v, 80), "GET", "/a", status[0])
			p.client.mustAsk(t, p.server.at(v, 80), "GET", "/b", status[1])
		}
	})

	l := newLoad()
	for _, v := range []ipVersion{4, 6} {
		p := pairs[b]
		c := client{v.String(), p.client.namespace, p.server.at(v, 80)}
		for _, keep := range []bool{true, false} {
			l.asks(c, "/b", http.StatusOK, keep)
			l.asks(c, "/a", http.StatusForbidden, keep)
		}
	}
	proxy := b.proxyPID(t)
	kill(t, a.proxyPID(t))
	a.killAgent()
	a.headgate(t, append([]string{"cleanup"}, a.dirs()...)...)
	a.checkNothingLeft(t)
	time.Sleep(refusalTime) // of load
	l.end(t)
	if s := b.status(t); !s.OK || s.Backend.PID != proxy || s.Endpoints["ready"] != 2 {
		t.Errorf("status of the other node: %+v", s)
	}
	for _, r := range pairs[b].web.requests() {
		if r.path != "/b" {
			t.Errorf("the server saw %v", r)
		}
	}
}
