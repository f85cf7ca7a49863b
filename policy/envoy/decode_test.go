package envoy

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy/manifest"
)

// document is one with these resources, in flow style.
func document(resources ...string) string {
	return "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: c, namespace: ns}\nspec:\n  resources:\n  - " + strings.Join(resources, "\n  - ") + "\n"
}

const at = `"@type": type.googleapis.com/envoy.`

func cluster(more string) string {
	return `{` + at + `config.cluster.v3.Cluster, name: k, connectTimeout: 1s` + more + `}`
}

func routes(action string) string {
	return `{` + at + `config.route.v3.RouteConfiguration, name: r, virtualHosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, ` + action + `}]}]}`
}

func listener(filter, more string) string {
	return `{` + at + `config.listener.v3.Listener, name: l, address: {anything: here}, filterChains: [{filters: [` + filter + `]}]` + more + `}`
}

const manager = `{name: envoy.filters.network.http_connection_manager, typedConfig: {` + at + `extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, statPrefix: x, rds: {routeConfigName: r}, httpFilters: [{name: envoy.filters.http.router, typedConfig: {` + at + `extensions.filters.http.router.v3.Router}}]}}`

const tcpProxy = `{name: envoy.filters.network.tcp_proxy, typedConfig: {` + at + `extensions.filters.network.tcp_proxy.v3.TcpProxy, statPrefix: x, cluster: k}}`

func TestDecode(t *testing.T) {
	ps, err := manifest.Decode("f", []byte(document(listener(manager, ""), routes("route: {cluster: k}"), cluster(", type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED"))), Kinds())
	if err != nil {
		t.Fatal(err)
	}
	resources := ps[0].Envoy.Resources
	if len(resources) != 3 || !resources[0].IsListener() || resources[0].Name != "ns/c/l" {
		t.Fatalf("%+v", resources)
	}
	var l listenerv3.Listener
	var m hcmv3.HttpConnectionManager
	if err := proto.Unmarshal(resources[0].Value, &l); err != nil {
		t.Fatal(err)
	}
	if err := l.GetFilterChains()[0].GetFilters()[0].GetTypedConfig().UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	if l.GetName() != "ns/c/l" || m.GetRds().GetRouteConfigName() != "ns/c/r" || m.GetRds().GetConfigSource().GetAds() == nil {
		t.Errorf("the listener is %v", &l)
	}
	if !strings.Contains(string(resources[1].Value), "ns/c/k") {
		t.Errorf("the routes lead to %q", resources[1].Value)
	}
	var k clusterv3.Cluster
	if err := proto.Unmarshal(resources[2].Value, &k); err != nil || k.GetName() != "ns/c/k" {
		t.Errorf("the cluster is %v, %v", &k, err)
	}
}

// TestAddresses: a document says where its clusters lead, so that a node can refuse itself.
func TestAddresses(t *testing.T) {
	const endpoints = `endpoints: [{lbEndpoints: [{endpoint: {address: {socketAddress: {address: 192.0.2.1, portValue: 80}}}}]}]`
	for name, resources := range map[string][]string{
		"in the cluster": {cluster(", type: STATIC, loadAssignment: {clusterName: k, " + endpoints + "}")},
		"by themselves":  {cluster(", type: EDS"), `{` + at + `config.endpoint.v3.ClusterLoadAssignment, clusterName: k, ` + endpoints + `}`},
	} {
		ps, err := manifest.Decode("f", []byte(document(resources...)), Kinds())
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(ps[0].Envoy.Addresses); got != "[192.0.2.1]" {
			t.Errorf("%s: it leads to %s", name, got)
		}
	}
}

// TestRefused holds what may not stand in a document, and that the message says what.
func TestRefused(t *testing.T) {
	static := func(address string) string {
		return cluster(`, type: STATIC, loadAssignment: {clusterName: k, endpoints: [{lbEndpoints: [{endpoint: {address: ` + address + `}}]}]}`)
	}
	socket := func(ip string, port int) string {
		return fmt.Sprintf("{socketAddress: {address: %q, portValue: %d}}", ip, port)
	}
	tls := func(text string) string {
		return cluster(`, type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, transportSocket: {name: tls, typedConfig: {` + at + `extensions.transport_sockets.tls.v3.UpstreamTlsContext, ` + text + `}}`)
	}
	filter := func(url, text string) string {
		return listener(`{name: f, typedConfig: {"@type": type.googleapis.com/`+url+text+`}}`, "")
	}
	for name, tt := range map[string]struct{ resource, says string }{
		"type":              {`{"@type": type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap}`, "not one that may stand here"},
		"no type":           {`{name: x}`, "@type is missing"},
		"unknown field":     {cluster(", nonsense: 1"), "nonsense"},
		"slash":             {`{` + at + `config.cluster.v3.Cluster, name: a/b}`, "slash"},
		"unix socket":       {static("{pipe: {path: /run/headgate/headgate.sock}}"), "unix sockets"},
		"internal":          {static("{envoyInternalAddress: {serverListenerName: x}}"), "IP address"},
		"loopback":          {static(socket("127.0.0.1", 80)), "this machine itself"},
		"loopback6":         {static(socket("::1", 80)), "this machine itself"},
		"mapped":            {static(socket("::ffff:127.0.0.1", 80)), "this machine itself"},
		"unspecified":       {static(socket("0.0.0.0", 80)), "this machine itself"},
		"link-local":        {static(socket("169.254.169.254", 80)), "this machine itself"},
		"host name":         {static(socket("localhost", 80)), "not an IP address"},
		"no port":           {static(socket("10.0.0.1", 0)), "no port"},
		"DNS":               {cluster(", type: STRICT_DNS"), "STRICT_DNS"},
		"file EDS":          {cluster(", type: EDS, edsClusterConfig: {edsConfig: {pathConfigSource: {path: /x}}}"), "ads"},
		"other EDS":         {cluster(", type: EDS, edsClusterConfig: {edsConfig: {ads: {}}, serviceName: default/other/x}"), "there is no ClusterLoadAssignment"},
		"client chooses":    {cluster(", type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, originalDstLbConfig: {useHttpHeader: true}"), "clients choose"},
		"mark":              {cluster(", type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, upstreamBindConfig: {sourceAddress: {address: 10.0.0.1, portValue: 1}}"), "client's address"},
		"certificate file":  {tls("commonTlsContext: {tlsCertificates: [{certificateChain: {filename: /etc/x}}]}"), "inlineString"},
		"environment":       {tls("commonTlsContext: {tlsCertificates: [{privateKey: {environmentVariable: X}}]}"), "inlineString"},
		"secret of another": {tls("commonTlsContext: {tlsCertificateSdsSecretConfigs: [{name: x, sdsConfig: {ads: {}}}]}"), "certificate itself"},
		"health check":      {cluster(`, type: STATIC, healthChecks: [{timeout: 1s, interval: 1s, unhealthyThreshold: 1, healthyThreshold: 1, tcpHealthCheck: {}}]`), "connect by itself"},
		"mirror":            {routes("route: {cluster: original-destination, requestMirrorPolicies: [{cluster: original-destination}]}"), "connect by itself"},
		"ext_authz":         {filter("envoy.extensions.filters.http.ext_authz.v3.ExtAuthz", ""), "ExtAuthz"},
		"lua":               {filter("envoy.extensions.filters.http.lua.v3.Lua", ""), "Lua"},
		"wasm":              {filter("envoy.extensions.filters.network.wasm.v3.Wasm", ""), "Wasm"},
		"another's cluster": {routes("route: {cluster: headgate-agent}"), "there is no Cluster"},
		"cluster header":    {routes("route: {clusterHeader: x-to}"), "clients would choose"},
		"environment text":  {routes(`route: {cluster: original-destination}, responseHeadersToAdd: [{header: {key: x, value: "%ENVIRONMENT(HOME)%"}}]`), "environment"},
		"file text":         {routes(`route: {cluster: original-destination}, responseHeadersToAdd: [{header: {key: x, value: "%FILE_CONTENT(/etc/passwd)%"}}]`), "files"},
		"environment bytes": {routes(`directResponse: {status: 200, body: {inlineBytes: "` + base64.StdEncoding.EncodeToString([]byte("%ENVIRONMENT(HOME)%")) + `"}}`), "environment"},
		"deprecated":        {cluster(", type: ORIGINAL_DST, lbPolicy: CLUSTER_PROVIDED, http2ProtocolOptions: {}"), "http2ProtocolOptions: is deprecated"},
		"event log":         {cluster(`, type: STATIC, healthChecks: [{timeout: 1s, interval: 1s, unhealthyThreshold: 1, healthyThreshold: 1, tcpHealthCheck: {}, eventLogPath: /x}]`), "may not stand here"},
		"proxy protocol":    {strings.Replace(listener(tcpProxy, ""), "filterChains: [{", "filterChains: [{useProxyProto: true, ", 1), "useProxyProto: is deprecated"},
		"no chain":          {`{` + at + `config.listener.v3.Listener, name: l}`, "filterChains"},
		"socket options":    {listener(tcpProxy, ", socketOptions: [{level: 1, name: 36, intValue: 2816, state: STATE_PREBIND}]"), "marked"},
		"more addresses":    {listener(tcpProxy, ", additionalAddresses: [{address: {socketAddress: {address: 10.0.0.1, portValue: 1}}}]"), "where a listener listens"},
		"access log":        {listener(tcpProxy, ", accessLog: [{name: x}]"), "agent adds its own"},
		"api listener":      {listener(tcpProxy, ", apiListener: {}"), "filterChains"},
		"not bound":         {listener(tcpProxy, ", bindToPort: false"), "where a listener listens"},
		"missing cluster":   {listener(tcpProxy, ""), "there is no Cluster"},
	} {
		_, err := manifest.Decode("f", []byte(document(tt.resource)), Kinds())
		if err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v, want it refused with %q", name, err, tt.says)
		}
	}
	for name, text := range map[string]string{
		"services":  "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: c}\nspec: {services: [], resources: []}\n",
		"none":      "apiVersion: cilium.io/v2\nkind: CiliumEnvoyConfig\nmetadata: {name: c}\nspec: {resources: []}\n",
		"namespace": strings.Replace(document(cluster(", type: STATIC")), "CiliumEnvoyConfig", "CiliumClusterwideEnvoyConfig", 1),
		"twice":     document(cluster(", type: STATIC"), cluster(", type: STATIC")),
		"schema":    document(strings.Replace(cluster(", type: ORIGINAL_DST"), "1s", "-1s", 1)),
	} {
		if _, err := manifest.Decode("f", []byte(text), Kinds()); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}
