package integration

import (
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// TestOtherLabels gives an endpoint other labels: what it may do follows, for new
// connections and for open ones.
func TestOtherLabels(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "db", "app=db")
	client := n.workload(t, "client", "app=client")
	web := server.serveWeb(t, 80)
	server.serveEcho(t, 90)
	n.apply(t,
		allow("db-http", "db", "fromEndpoints: [{matchLabels: {role: reader}}]", 80, httpRule{"GET", "/read"}),
		allow("db-raw", "db", "fromEndpoints: [{matchLabels: {role: reader}}]", 90))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		client.mustNotConnect(t, server.at(v, 80))
		before := client.Identity
		client.label(t, "role=reader")
		if client.Identity == before || client.Labels["role"] != "reader" || client.Labels["app"] != "client" {
			t.Fatalf("relabelled: identity %d, before %d, labels %v", client.Identity, before, client.Labels)
		}
		kept, raw := client.mustOpen(t, server.at(v, 80)), client.mustOpen(t, server.at(v, 90))
		kept.mustAsk(t, "GET", "/read", 200)
		kept.mustAsk(t, "GET", "/write", 403)
		raw.echoes(t)
		f := n.awaitFlow(t, "the relabelled client", nil, from(endOf(raw.LocalAddr()), func(*flowpb.Flow) bool { return true }))
		if f.GetSource().GetIdentity() != client.Identity {
			t.Errorf("flow has identity %d, want %d", f.GetSource().GetIdentity(), client.Identity)
		}
		client.label(t, "role-")
		if client.Identity != before {
			t.Errorf("the same labels again have identity %d, before %d", client.Identity, before)
		}
		raw.staysSilent(t)
		kept.mustAsk(t, "GET", "/read", 403)
		kept.mustEnd(t)
		client.mustNotConnect(t, server.at(v, 80))
	})
	for _, r := range web.requests() {
		if r.path != "/read" {
			t.Errorf("the server saw %v", r)
		}
	}
}

// TestNamespaces has endpoints with the same labels in two namespaces: rules mean
// their own, unless they name another, by its name or by its labels.
func TestNamespaces(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "db", "app=db")
	near := n.workload(t, "web", "app=web")
	far := n.workload(t, "shop/web", "app=web")
	server.serveWeb(t, 80)
	const byName = `fromEndpoints: [{matchLabels: {app: web, "k8s:io.kubernetes.pod.namespace": shop}}]`
	const byLabel = `fromEndpoints: [{matchLabels: {app: web, "k8s:io.cilium.k8s.namespace.labels.team": blue}}]`
	eachVersion(t, func(t *testing.T, v ipVersion) {
		check := func(nearMay, farMay bool) {
			t.Helper()
			for w, may := range map[*workload]bool{near: nearMay, far: farMay} {
				if may {
					w.mustAsk(t, server.at(v, 80), "GET", "/", 200)
				} else {
					w.mustNotConnect(t, server.at(v, 80))
				}
			}
		}
		n.apply(t, allow("rule", "db", fromApp("web"), 80))
		check(true, false)
		n.apply(t, allow("rule", "db", byName, 80))
		check(false, true)
		n.apply(t, allow("rule", "db", byLabel, 80))
		check(false, false)
		n.headgate(t, "namespace", "label", "shop", "team=blue")
		check(false, true)
		n.headgate(t, "namespace", "label", "shop", "team-")
		check(false, false)
	})
}
