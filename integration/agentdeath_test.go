package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"syscall"
	"testing"
	"time"
)

// TestAgentReplaced kills the agent under load, and stops it in order. What it put
// in force goes on without it, and the next one takes over without a failed
// request, with everything that the one before knew.
func TestAgentReplaced(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			eachBackend(t, func(t *testing.T, b backend) { agentReplaced(t, b, signal) })
		})
	}
}

func agentReplaced(t *testing.T, b backend, signal syscall.Signal) {
	p := newProxied(t, b)
	p.server.serveEcho(t, 90)
	p.server.serveWeb(t, 91)
	p.apply(t, allow("raw", "server", fromApp("client"), 90), allow("raw-http", "server", fromApp("client"), 91))
	p.headgate(t, "namespace", "label", "default", "team=blue")
	l := newLoad()
	p.mix(l)
	for _, v := range []ipVersion{4, 6} {
		w := p.clients[0]
		l.echoes(client{v.String(), w.namespace, p.server.at(v, 90)})
		l.asks(client{"L4 " + v.String(), w.namespace, p.server.at(v, 91)}, "/any", http.StatusOK, false)
		l.isRefused(client{"stranger at L4 " + v.String(), p.stranger.namespace, p.server.at(v, 90)})
	}
	before, proxy := p.known(t), p.proxyPID(t)
	for range 2 {
		time.Sleep(300 * time.Millisecond) // of load, with an agent and without
		p.agent.end(signal, patience)
		time.Sleep(700 * time.Millisecond)
		p.startAgent(t)
	}
	time.Sleep(300 * time.Millisecond)
	l.end(t)
	p.onlyAllowed(t)
	if after := p.known(t); !reflect.DeepEqual(after, before) {
		t.Errorf("the new agent knows\n%v\nthe one before knew\n%v", after, before)
	}
	if now := p.proxyPID(t); now != proxy {
		t.Errorf("the proxy is process %d now, and was %d", now, proxy)
	}
	// And it is in charge: what it is told comes into force.
	p.apply(t, allow("http", "server", fromApp("stranger"), 80, httpRule{"GET", "/allowed"}))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		p.stranger.mustAsk(t, p.server.at(v, 80), "GET", "/allowed", 200)
		p.stranger.mustAsk(t, p.server.at(v, 80), "GET", "/denied", 403)
		p.clients[0].mustNotConnect(t, p.server.at(v, 80))
	})
	late := p.workload(t, "late", "app=stranger")
	late.mustAsk(t, p.server.at(4, 80), "GET", "/allowed", 200)
}

// known is what must survive an agent: endpoints, identities, policies. Revisions
// and counters may change.
func (n *node) known(t *testing.T) map[string]any {
	t.Helper()
	out := map[string]any{}
	for _, what := range []string{"endpoint", "identity", "policy"} {
		var list []map[string]any
		if err := json.Unmarshal([]byte(n.headgate(t, what, "list", "-o", "json")), &list); err != nil {
			t.Fatal(err)
		}
		for i, x := range list {
			delete(x, "policyRevision")
			out[fmt.Sprintf("%s %d", what, i)] = x
		}
	}
	return out
}
