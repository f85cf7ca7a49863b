package integration

import (
	"net/netip"
	"testing"
)

// TestHost has the node itself talk to workloads and be talked to, under L3/L4 and
// under L7 rules.
func TestHost(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "server", "app=server")
	client := n.workload(t, "client", "app=client")
	web, hostWeb := server.serveWeb(t, 80), n.serveWeb(t, 8080)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("from the host", func(t *testing.T) { fromHost(t, n, server, web, v) })
		t.Run("to the host", func(t *testing.T) { toHost(t, n, client, hostWeb, v) })
	})
}

func fromHost(t *testing.T, n *node, server *workload, web *webServer, v ipVersion) {
	to := server.at(v, 80)
	n.mustAsk(t, to, "GET", "/without-policy", 200)
	n.apply(t, allow("rule", "server", fromApp("client"), 80))
	n.mustNotConnect(t, to)
	n.apply(t, allow("rule", "server", "fromEntities: [host]", 80))
	n.mustAsk(t, to, "GET", "/l4", 200)
	kept := n.mustOpen(t, to)
	n.apply(t, allow("rule", "server", "fromEntities: [host]", 80, httpRule{"GET", "/l7"}))
	kept.isReset(t) // it went by the proxy's back

	web.forget()
	s := n.mustOpen(t, to)
	s.mustAsk(t, "GET", "/l7", 200)
	s.mustAsk(t, "GET", "/other", 403)
	s.mustAsk(t, "GET", "/l7", 200)
	checkSeen(t, web, "/l7", 2, endOf(s.LocalAddr()).Addr())
	n.requestIsReported(t, endOf(s.LocalAddr()), "/other", "reserved:host", "k8s:app=server")
	n.apply(t, allow("rule", "server", fromApp("client"), 80))
	s.mustAsk(t, "GET", "/l7", 403)
	s.mustEnd(t)
	n.withdraw(t, allow("rule", "server", fromApp("client"), 80))
}

func toHost(t *testing.T, n *node, client *workload, web *webServer, v ipVersion) {
	to := netip.AddrPortFrom(gateway(v), 8080)
	client.mustAsk(t, to, "GET", "/without-policy", 200)
	n.apply(t, allow("rule", "client", "toEntities: [host]", 8081))
	client.mustNotConnect(t, to)
	n.apply(t, allow("rule", "client", "toEntities: [host]", 8080))
	client.mustAsk(t, to, "GET", "/l4", 200)
	n.apply(t, allow("rule", "client", "toEntities: [host]", 8080, httpRule{"GET", "/l7"}))

	web.forget()
	s := client.mustOpen(t, to)
	s.mustAsk(t, "GET", "/l7", 200)
	s.mustAsk(t, "GET", "/other", 403)
	s.mustAsk(t, "GET", "/l7", 200)
	checkSeen(t, web, "/l7", 2, endOf(s.LocalAddr()).Addr())
	n.requestIsReported(t, endOf(s.LocalAddr()), "/other", "k8s:app=client", "reserved:host")
	n.withdraw(t, allow("rule", "client", "toEntities: [host]", 8080))
	client.mustAsk(t, to, "GET", "/withdrawn", 200)
}

// checkSeen wants that a server saw one path, so often, from one address. The port
// is another than the client's: its own is taken, both ends being on this machine.
func checkSeen(t *testing.T, web *webServer, path string, times int, from netip.Addr) {
	t.Helper()
	seen := web.requests()
	if len(seen) != times {
		t.Errorf("the server saw %d requests, want %d", len(seen), times)
	}
	for _, r := range seen {
		if r.path != path || r.from.Addr() != from {
			t.Errorf("the server saw %s from %s, want %s from %s", r.path, r.from, path, from)
		}
	}
}
