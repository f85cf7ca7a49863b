package integration

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// One stock Envoy behind the gate: the same policy tables, routes, marks and return
// path as the Go proxy has, fed by package xds.
func TestEnvoyEnforcesHTTP(t *testing.T) {
	w := newEnvoyWorld(t)
	w.enforce(1, landing("POST"))
	w.route(w.serve())
	for _, family := range w.families() {
		t.Run(family.name, func(t *testing.T) { w.requestsAreJudged(t, family) })
	}
	for _, family := range w.families() {
		t.Run("revoked "+family.name, func(t *testing.T) { w.revocationCutsOpenConnections(t, family) })
		t.Run("port taken "+family.name, func(t *testing.T) { w.clientTakesThePortOfALeg(t, family) })
	}
	t.Run("direct", w.directConnectionsAreClosed)
	t.Run("refused", w.refusedRuleIsLeftOut)
	t.Run("forgotten", w.forgottenSetsCloseTheirConnections)
	t.Run("killed", w.withoutEnvoyNothingPasses)
}

const (
	envoySet      = redirect.SetNumber(uint32(policy.ProtocolHTTP)<<24 | 7)
	envoyPort     = 8080
	clientSubject = 1
	serverSubject = 2
	clientID      = policy.Identity(300)
	serverID      = policy.Identity(301)
	envoyTimeout  = 2 * patience
	silence       = 1500 * time.Millisecond // a SYN and its repetition
)

// landing lets requests of some methods in, to one path.
func landing(methods ...string) []policy.HTTPRule {
	var rules []policy.HTTPRule
	for i, m := range methods {
		rules = append(rules, policy.HTTPRule{
			Method: m, Path: "/v1/request-landing",
			Ref: policy.Ref{Policy: "default/landing", Path: fmt.Sprintf("ingress[0].toPorts[0].http[%d]", i)},
		})
	}
	return rules
}

func (w *envoyWorld) requestsAreJudged(t *testing.T, f envoyFamily) {
	w.t = t
	w.enforce(1, landing("POST"))
	sniffed := w.sniff(f)
	c := w.dial(f)
	defer c.Close()

	answer := c.request("POST", "/v1/request-landing")
	if answer.status != 200 || answer.body != "landed" {
		t.Fatalf("POST was answered %+v, want 200", answer)
	}
	for name := range answer.header {
		if n := strings.ToLower(name); n == "server" || strings.HasPrefix(n, "x-") {
			t.Errorf("the answer has the header %s", name)
		}
	}
	seen := w.lastSeen()
	if seen.from.Addr() != f.client {
		t.Errorf("the server saw %s, want the client's address %s", seen.from, f.client)
	}
	if want := []string{"Content-Length", "Host"}; !slices.Equal(seen.headers, want) {
		t.Errorf("the server saw the headers %v, want %v", seen.headers, want)
	}
	w.conntrackHasBothLegs(f, c.local(), seen.from)

	for _, request := range [][2]string{{"PUT", "/v1/request-landing"}, {"POST", "/v1/request-landing/x"}, {"POST", "/v1/request-landing?x=1"}} {
		if answer := c.request(request[0], request[1]); answer.status != 403 || answer.body != "Access denied\r\n" {
			t.Errorf("%v was answered %+v, want 403 and Access denied", request, answer)
		}
	}
	if answer := c.request("POST", "/v1/x/..//./request-landing"); answer.status != 200 {
		t.Errorf("a path with another way to write it was answered %+v, want 200", answer)
	}

	w.enforce(2, landing("PUT"))
	if answer := c.request("POST", "/v1/request-landing"); answer.status != 403 {
		t.Errorf("after the change POST on the same connection was answered %+v, want 403", answer)
	}
	if answer := c.request("PUT", "/v1/request-landing"); answer.status != 200 {
		t.Errorf("after the change PUT on the same connection was answered %+v, want 200", answer)
	}
	packets := sniffed()
	if packets[c.local().Port()] == 0 {
		t.Error("no packet for the client was seen at its interface")
	}
	for port, n := range packets {
		if port != c.local().Port() {
			t.Errorf("%d packets for port %d reached the client, which has %d: they are the proxy's", n, port, c.local().Port())
		}
	}
}

// conntrackHasBothLegs: the client's connection with its route, and Envoy's own
// from another port.
func (w *envoyWorld) conntrackHasBothLegs(f envoyFamily, client, leg netip.AddrPort) {
	w.t.Helper()
	server := netip.AddrPortFrom(f.server, envoyPort)
	c, ok := w.gate.Conntrack().Lookup(client, server)
	if !ok || !c.Redirected || c.ProxyLeg || c.Ingress != uint32(envoySet) {
		w.t.Errorf("conntrack has %+v (%t) for the client's connection, want it redirected with its set", c, ok)
	}
	if leg.Port() == client.Port() {
		return
	}
	c, ok = w.gate.Conntrack().Lookup(leg, server)
	if !ok || !c.Redirected || !c.ProxyLeg || !c.SeenReply {
		w.t.Errorf("conntrack has %+v (%t) for Envoy's connection from %s, want the proxy's leg", c, ok, leg)
	}
}
