package integration

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// envoyFlags are the flags of a node whose HTTP is judged by Envoy.
func envoyFlags(t *testing.T, more ...string) []string {
	return append([]string{"--backend", "envoy", "--envoy-path", envoyBinary(t), "--envoy-workers", "1"}, more...)
}

// manager is a filter chain with a connection manager, which has these routes.
func manager(routes string) string {
	return fmt.Sprintf(`    filterChains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typedConfig:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          statPrefix: mine
          %s
          httpFilters:
          - name: envoy.filters.http.router
            typedConfig: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`, routes)
}

// envoyConfig is a CiliumEnvoyConfig with two listeners: "stamp" passes on what it gets and
// adds a header to answers, "canary" leads elsewhere.
func envoyConfig(stamp string, canary ...netip.AddrPort) string {
	endpoints := ""
	for _, c := range canary {
		endpoints += fmt.Sprintf("      - {endpoint: {address: {socketAddress: {address: %q, portValue: %d}}}}\n", c.Addr(), c.Port())
	}
	return `apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: ways}
spec:
  resources:
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: stamp
` + manager("rds: {routeConfigName: stamped}") + `
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: stamped
    virtualHosts:
    - name: all
      domains: ["*"]
      responseHeadersToAdd: [{header: {key: x-stamp, value: "` + stamp + `"}}]
      routes: [{match: {prefix: /}, route: {cluster: original-destination}}]
  - "@type": type.googleapis.com/envoy.config.listener.v3.Listener
    name: canary
` + manager("routeConfig: {name: x, virtualHosts: [{name: all, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: canaries}}]}]}") + `
  - "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
    name: canaries
    type: EDS
    connectTimeout: 5s
  - "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
    clusterName: canaries
    endpoints:
    - lbEndpoints:
` + endpoints
}

// handOver makes an egress policy that hands connections to a listener.
func handOver(name, app, to, listener string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: %s}}
  egress:
  - toEndpoints: [{matchLabels: {app: %s}}]
    toPorts:
    - ports: [{port: "8080", protocol: TCP}]
      listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: ways}, name: %s}
`, name, app, to, listener)
}

// curl asks with a connection of its own and returns the head and the body.
func (w *workload) curl(t *testing.T, to netip.AddrPort, path string) string {
	t.Helper()
	return w.run(t, "curl", "-sS", "-i", "--max-time", "10", "--retry", "5", "--retry-connrefused", "--noproxy", "*", "http://"+to.String()+path)
}

// TestEnvoyConfig hands connections to listeners of policies: one adds a header to
// answers, one leads elsewhere, where policy says whether it may.
func TestEnvoyConfig(t *testing.T) {
	t.Parallel()
	n := startNode(t, envoyFlags(t, "--envoy-max-listeners", "3", "--metrics-listen", "127.0.0.1:9964")...)
	client := n.workload(t, "client", "app=client")
	server, other := n.workload(t, "server", "app=server"), n.workload(t, "other", "app=other")
	atServer, atOther := server.serveWeb(t, 8080), other.serveWeb(t, 8080)

	o := n.try(t, handOver("ways", "client", "server", "stamp"), "policy", "apply", "-f", "-")
	if o.code != 1 || !strings.Contains(o.stderr, "CiliumEnvoyConfig/default/ways") {
		t.Errorf("a listener that is not there: exit code %d, %s", o.code, o.stderr)
	}
	n.apply(t, envoyConfig("one", other.at(4, 8080)), handOver("ways", "client", "server", "stamp"))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		if answer := client.curl(t, server.at(v, 8080), "/a"); !strings.Contains(answer, "200 OK") || !strings.Contains(answer, "x-stamp: one") {
			t.Errorf("the answer is %s", answer)
		}
		if seen := atServer.requests(); len(seen) == 0 || seen[len(seen)-1].from.Addr() != client.addr(v) {
			t.Errorf("the server saw %v, want the client's address", seen)
		}
	})
	n.awaitFlow(t, "the request", []string{"--type", "l7", "--http-path", "/a"}, func(f *flowpb.Flow) bool {
		return f.GetVerdict() == flowpb.Verdict_FORWARDED && f.GetTrafficDirection() == flowpb.TrafficDirection_EGRESS && f.GetSource().GetPodName() == "client"
	})
	n.apply(t, envoyConfig("two", other.at(4, 8080)))
	if answer := client.curl(t, server.at(4, 8080), "/b"); !strings.Contains(answer, "x-stamp: two") {
		t.Errorf("after the change the answer is %s", answer)
	}
	t.Run("elsewhere", func(t *testing.T) { n.leadsElsewhere(t, client, server, atOther) })
	t.Run("dump", func(t *testing.T) { n.dumpShowsWhatIsServed(t) })
	t.Run("refused", func(t *testing.T) { n.refusesWhatItCannotCarry(t, client, server, other) })
	t.Run("metrics", func(t *testing.T) { n.envoyIsMeasured(t) })
}

func (n *node) leadsElsewhere(t *testing.T, client, server *workload, atOther *webServer) {
	atOther.forget()
	n.apply(t, handOver("ways", "client", "server", "canary"))
	if answer := client.curl(t, server.at(4, 8080), "/c"); !strings.Contains(answer, "200 OK") {
		t.Errorf("the answer is %s", answer)
	}
	if seen := atOther.requests(); len(seen) != 1 || seen[0].from.Addr() != client.addr(4) {
		t.Errorf("where the listener leads, %v was seen, want one request of the client", seen)
	}
	closed := allow("closed", "other", fromApp("nobody"), 8080)
	n.apply(t, closed)
	answer := client.run(t, "curl", "-sS", "-i", "--max-time", "3", "--noproxy", "*", "http://"+server.at(4, 8080).String()+"/d")
	if strings.Contains(answer, "200 OK") {
		t.Errorf("where policy lets the client not go, the listener led it: %s", answer)
	}
	if seen := atOther.requests(); len(seen) != 1 {
		t.Errorf("where policy lets the client not go, %v was seen", seen)
	}
	n.withdraw(t, closed)
	if answer := client.curl(t, server.at(4, 8080), "/e"); !strings.Contains(answer, "200 OK") {
		t.Errorf("once it is allowed again the answer is %s", answer)
	}
}

func (n *node) dumpShowsWhatIsServed(t *testing.T) {
	var dump struct {
		Resources []struct {
			Type, Name, Version, State string
			Resource                   json.RawMessage
		}
		Clients []struct {
			Node, Agent, Role string
			Types             []struct{ Type, SentNonce, AckedNonce string }
		}
	}
	text := n.headgate(t, "xds", "dump", "-o", "json")
	if err := json.Unmarshal([]byte(text), &dump); err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, r := range dump.Resources {
		states[r.Type[strings.LastIndexByte(r.Type, '.')+1:]+" "+r.Name] = r.State
		if len(r.Resource) < 10 || r.Version == "" {
			t.Errorf("%s %s has nothing in it: %s", r.Type, r.Name, r.Resource)
		}
	}
	for _, want := range []string{"Cluster original-destination", "Cluster default/ways/canaries", "ClusterLoadAssignment default/ways/canaries"} {
		if states[want] != "acked" {
			t.Errorf("%s is %q, want acked; all: %v", want, states[want], states)
		}
	}
	if len(dump.Clients) != 1 || dump.Clients[0].Role != "proxy" || !strings.HasPrefix(dump.Clients[0].Agent, "envoy ") {
		t.Fatalf("the clients are %+v, want one Envoy", dump.Clients)
	}
	for _, s := range dump.Clients[0].Types {
		if s.SentNonce == "" || s.SentNonce != s.AckedNonce {
			t.Errorf("of %s nonce %q was sent and %q acknowledged", s.Type, s.SentNonce, s.AckedNonce)
		}
	}
	if table := n.headgate(t, "xds", "dump", "--type", "cluster"); !strings.Contains(table, "default/ways/canaries") || strings.Contains(table, "route-") {
		t.Errorf("the table is\n%s", table)
	}
	if o := n.try(t, "", "xds", "dump", "--type", "nonsense"); o.code != 1 || !strings.Contains(o.stderr, "nonsense") {
		t.Errorf("a type that is none: exit code %d, %s", o.code, o.stderr)
	}
}

// refusesWhatItCannotCarry: nothing of a change is applied that needs more listeners than
// there may be, or a listener and rules of the server.
func (n *node) refusesWhatItCannotCarry(t *testing.T, client, server, other *workload) {
	before := n.headgate(t, "policy", "list", "-o", "json")
	many := ""
	for i := range 4 {
		many += allow(fmt.Sprintf("many%d", i), "other", fromApp("client"), 9000+i, httpRule{"GET", fmt.Sprintf("/%d", i)}) + "\n---\n"
	}
	for name, refused := range map[string]struct{ documents, says string }{
		"too many":        {many, "--envoy-max-listeners"},
		"listener and L7": {allow("l7", "server", fromApp("client"), 8080, httpRule{"GET", "/"}), "default/ways/canary"},
		"in use": {`apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: ways}
spec:
  resources:
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: x, type: STATIC, connectTimeout: 1s}`, "canary"},
		"a file": {`apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: file}
spec:
  resources:
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: x, type: EDS, edsClusterConfig: {edsConfig: {pathConfigSource: {path: /etc/passwd}}}}`, "ads"},
	} {
		o := n.try(t, refused.documents, "policy", "apply", "-f", "-")
		if o.code != 1 || !strings.Contains(o.stderr, refused.says) {
			t.Errorf("%s: exit code %d, %s, want it refused with %q", name, o.code, o.stderr, refused.says)
		}
	}
	if o := n.try(t, "", "policy", "delete", "CiliumEnvoyConfig", "default/ways"); o.code != 1 || !strings.Contains(o.stderr, "CiliumNetworkPolicy") {
		t.Errorf("to delete what a policy refers to: exit code %d, %s", o.code, o.stderr)
	}
	if after := n.headgate(t, "policy", "list", "-o", "json"); after != before {
		t.Errorf("what was refused left something behind:\n%s\nbefore:\n%s", after, before)
	}
	if answer := client.curl(t, server.at(4, 8080), "/f"); !strings.Contains(answer, "200 OK") {
		t.Errorf("after what was refused the answer is %s", answer)
	}
}

func (n *node) envoyIsMeasured(t *testing.T) {
	var text string
	eventually(t, patience, "metrics of Envoy", func() error {
		text = n.scrape(t)
		for _, want := range []string{"headgate_envoy_up 1", `headgate_envoy_cluster_upstream_requests_total{cluster="default/ways/canaries"}`, `headgate_envoy_listeners{state="active"}`, "headgate_drops_total"} {
			if !strings.Contains(text, want) {
				return fmt.Errorf("%s is not among\n%s", want, text)
			}
		}
		return nil
	})
}

// scrape reads the agent's metrics.
func (n *node) scrape(t *testing.T) string {
	t.Helper()
	return (&workload{namespace: n.namespace}).run(t, "curl", "-sS", "--max-time", "10", "--noproxy", "*", "http://127.0.0.1:9964/metrics")
}
