package cnp

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/policy/policytest"
)

func newCluster(t *testing.T, documents ...string) *policytest.Cluster {
	t.Helper()
	return policytest.New(t, Decode, policytest.Setup{}, documents...)
}

// cnp writes a policy of the namespace default.
func cnp(name, spec string) string {
	return "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

func ccnp(name, spec string) string {
	return "apiVersion: cilium.io/v2\nkind: CiliumClusterwideNetworkPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

const (
	web    = `endpointSelector: {matchLabels: {app: web}}`
	client = `{matchLabels: {app: client}}`
	port80 = `ports: [{port: "80", protocol: TCP}]`
)

func TestWithoutPolicyAllIsAllowed(t *testing.T) {
	newCluster(t).Expect(map[string]string{
		"ingress default/web < world TCP 80":           "allow",
		"egress default/web > default/db ICMP 8":       "allow",
		"ingress default/web < kube-system/dns UDP 53": "allow",
	})
}

func TestDirectionsAreSeparate(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+client+`]}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/p ingress[0]",
		"ingress default/web < default/client ICMP 8": "allow default/p ingress[0]",
		"ingress default/web < default/db TCP 80":     "deny",
		"egress default/web > default/db TCP 80":      "allow",
		"ingress default/db < world TCP 80":           "allow",
	})
}

// Note 1.
func TestEmptyRuleOnlySwitchesDefaultDenyOn(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < host TCP 80":           "deny",
		"egress default/web > default/client TCP 80":  "allow",
	})
}

// Note 2, and CVE-2025-64715: an empty list of peers is not "everybody".
func TestEmptyPeersSelectNobody(t *testing.T) {
	for _, field := range []string{"fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities"} {
		for _, more := range []string{"", ", toPorts: [{" + port80 + "}]", ", icmps: [{fields: [{type: 8}]}]"} {
			newCluster(t, cnp("p", `{`+web+`, ingress: [{`+field+`: []`+more+`}]}`)).Expect(map[string]string{
				"ingress default/web < default/client TCP 80": "deny",
				"ingress default/web < world TCP 80":          "deny",
				"ingress default/web < 192.0.2.1 ICMP 8":      "deny",
			})
		}
	}
}

// Note 3.
func TestNamespaceOfSelectors(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{}]}]}`)).Expect(map[string]string{
		"ingress default/web < default/db TCP 80":  "allow",
		"ingress default/web < shop/client TCP 80": "deny",
		"ingress default/web < world TCP 80":       "deny",
		"ingress default/web < host TCP 80":        "deny",
		"ingress default/web < init TCP 80":        "deny",
		"ingress shop/web < world TCP 80":          "allow", // another namespace
	})
	for _, key := range []string{"io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace"} {
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {"`+key+`": shop}}]}]}`)).Expect(map[string]string{
			"ingress default/web < shop/client TCP 80":    "allow",
			"ingress default/web < default/client TCP 80": "deny",
		})
	}
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: shop-team}}]}]}`)).Expect(map[string]string{
		"ingress default/web < shop/client TCP 80":    "allow",
		"ingress default/web < default/client TCP 80": "deny",
	})
	newCluster(t, ccnp("p", `{`+web+`, ingress: [{fromEndpoints: [{}]}]}`)).Expect(map[string]string{
		"ingress default/web < shop/client TCP 80":    "allow p ingress[0]",
		"ingress shop/web < default/client TCP 80":    "allow",
		"ingress default/web < world TCP 80":          "deny",
		"ingress default/web < host TCP 80":           "deny",
		"ingress default/web < health TCP 80":         "deny",
		"ingress default/web < 192.0.2.1 TCP 80":      "deny",
		"ingress default/web < kube-apiserver TCP 80": "deny",
	})
}

// CVE-2023-41333: what must not be there does not lead out of the namespace.
func TestNegativeSelectorsStayInside(t *testing.T) {
	for _, expr := range []string{
		`{key: "reserved:init", operator: DoesNotExist}`,
		`{key: "reserved:host", operator: NotIn, values: [""]}`,
		`{key: nothing, operator: DoesNotExist}`,
		`{key: app, operator: NotIn, values: [x]}`,
	} {
		selector := `{matchExpressions: [` + expr + `]}`
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+selector+`]}]}`)).Expect(map[string]string{
			"ingress default/web < default/db TCP 80":  "allow",
			"ingress default/web < shop/client TCP 80": "deny",
			"ingress default/web < world TCP 80":       "deny",
			"ingress default/web < host TCP 80":        "deny",
		})
		newCluster(t, cnp("p", `{endpointSelector: `+selector+`, ingress: [{}]}`)).Expect(map[string]string{
			"ingress default/web < world TCP 80": "deny",
			"ingress shop/web < world TCP 80":    "allow",
		})
	}
	outside := `{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, values: [kube-system]}]}`
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+outside+`]}]}`)).Expect(map[string]string{
		"ingress default/web < shop/client TCP 80":     "allow",
		"ingress default/web < kube-system/dns TCP 80": "deny",
		"ingress default/web < world TCP 80":           "deny",
	})
}

// Note 4.
func TestDenyOnlyPolicySwitchesDefaultDenyOn(t *testing.T) {
	deny := `{` + web + `, egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]}`
	newCluster(t, cnp("p", deny)).Expect(map[string]string{
		"egress default/web > 10.2.0.1 TCP 80":  "deny default/p egressDeny[0]",
		"egress default/web > 10.1.0.1 TCP 80":  "deny",
		"egress default/web > 192.0.2.1 TCP 80": "deny",
	})
	newCluster(t, cnp("p", deny), cnp("q", `{`+web+`, egress: [{toEntities: [all]}]}`)).Expect(map[string]string{
		"egress default/web > 10.2.0.1 TCP 80": "deny default/p egressDeny[0]",
		"egress default/web > 10.1.0.1 TCP 80": "allow default/q egress[0]",
	})
}

// Note 5.
func TestDefaultDenyCanBeLeftOff(t *testing.T) {
	l7 := `{` + web + `, enableDefaultDeny: {ingress: false}, ingress: [{toPorts: [{` + port80 + `, rules: {http: [{path: /a}]}}]}]}`
	newCluster(t, cnp("p", l7)).Expect(map[string]string{
		"ingress default/web < default/client TCP 443":       "allow",
		"ingress default/web < default/client TCP 80":        "redirect default/p ingress[0].toPorts[0]",
		"ingress default/web < default/client TCP 80 GET /a": "allow default/p ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /b": "allow default/p ingress[0].toPorts[0]",
	})
	newCluster(t, cnp("p", l7), cnp("q", `{`+web+`, ingress: [{}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 443": "deny",
		"ingress default/web < default/client TCP 80":  "redirect",
	})
	newCluster(t, cnp("p", `{`+web+`, enableDefaultDeny: {egress: true, ingress: false}, ingress: [{}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80": "allow",
		"egress default/web > world TCP 80":  "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEntities: [world]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":      "deny default/p ingressDeny[0]",
		"ingress default/web < default/db TCP 80": "allow",
	})
}

// Note 6, and CVE-2023-30851.
func TestWhatVoidsL7Rules(t *testing.T) {
	l7 := `{fromEndpoints: [` + client + `], toPorts: [{` + port80 + `, rules: {http: [{path: /a}]}}]}`
	for name, tt := range map[string]struct{ rule, client, db string }{
		"L4 rule for everybody":    {`{toPorts: [{` + port80 + `}]}`, "allow", "allow"},
		"L4 rule for the peer":     {`{fromEndpoints: [` + client + `], toPorts: [{` + port80 + `}]}`, "allow", "deny"},
		"L3 rule for the peer":     {`{fromEndpoints: [` + client + `]}`, "allow", "deny"},
		"L3 rule for everybody":    {`{fromEntities: [all]}`, "allow", "allow"},
		"L4 rule for another peer": {`{fromEndpoints: [{matchLabels: {app: db}}], toPorts: [{` + port80 + `}]}`, "redirect", "allow"},
		"L3 rule for another peer": {`{fromEndpoints: [{matchLabels: {app: db}}]}`, "redirect", "allow"},
		"L4 rule for another port": {`{toPorts: [{ports: [{port: "81", protocol: TCP}]}]}`, "redirect", "deny"},
		"other protocol":           {`{toPorts: [{ports: [{port: "80", protocol: UDP}]}]}`, "redirect", "deny"},
		"wider range":              {`{toPorts: [{ports: [{port: "1", endPort: 1024, protocol: TCP}]}]}`, "redirect", "allow"},
		"every port":               {`{toPorts: [{ports: [{port: "0", protocol: TCP}]}]}`, "redirect", "allow"},
		"L7 rule for everybody":    {`{toPorts: [{` + port80 + `, rules: {http: [{path: /b}]}}]}`, "redirect", "redirect"},
		"no L7 rules in the list":  {`{toPorts: [{` + port80 + `, rules: {http: []}}]}`, "allow", "allow"},
		"no L7 rules in the map":   {`{toPorts: [{` + port80 + `, rules: {}}]}`, "allow", "allow"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, order := range []string{l7 + ", " + tt.rule, tt.rule + ", " + l7} {
				newCluster(t, cnp("p", `{`+web+`, ingress: [`+order+`]}`)).Expect(map[string]string{
					"ingress default/web < default/client TCP 80": tt.client,
					"ingress default/web < default/db TCP 80":     tt.db,
				})
			}
		})
	}
}

func TestL7RulesAreAUnion(t *testing.T) {
	newCluster(t,
		cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+client+`], toPorts: [{`+port80+`, rules: {http: [{method: GET}]}}]}]}`),
		cnp("q", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /b}]}}]}]}`),
	).Expect(map[string]string{
		"ingress default/web < default/client TCP 80 GET /a": "allow default/p ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /b": "allow default/q ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /a": "deny",
		"ingress default/web < default/db TCP 80 GET /a":     "deny",
		"ingress default/web < default/db TCP 80 GET /b":     "allow",
	})
}

// CVE-2024-52529: a range does not swallow the L7 port inside it.
func TestRangeDoesNotSwallowL7Port(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /a}]}}]}, {toPorts: [{ports: [{port: "79", endPort: 81, protocol: TCP}]}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 79":        "allow",
		"ingress default/web < world TCP 80":        "redirect",
		"ingress default/web < world TCP 81":        "allow",
		"ingress default/web < world TCP 80 GET /b": "deny",
	})
}

// Note 7.
func TestHTTPMatchesTheWholeValue(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{method: GET|HEAD, path: /public}]}}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80 GET /public":     "allow",
		"ingress default/web < world TCP 80 HEAD /public":    "allow",
		"ingress default/web < world TCP 80 HEADX /public":   "deny",
		"ingress default/web < world TCP 80 GET /public?x=1": "deny",
	})
}

func TestEmptyHTTPRuleMatchesEveryRequest(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{}]}}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":        "redirect",
		"ingress default/web < world TCP 80 PUT /x": "allow default/p ingress[0].toPorts[0].http[0]",
	})
}

// Note 8.
func TestCIDRNeverSelectsWorkloadsOrNodes(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromCIDR: [0.0.0.0/0, "::/0"]}, {fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}]}]}`)).Expect(map[string]string{
		"ingress default/web < 192.0.2.1 TCP 80":      "allow",
		"ingress default/web < 2001:db8::1 TCP 80":    "allow",
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < host TCP 80":           "deny",
		"ingress default/web < remote-node TCP 80":    "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.1.0/24}]}]}`)).Expect(map[string]string{
		"ingress default/web < 10.2.0.1 TCP 80": "allow",
		"ingress default/web < 10.1.2.1 TCP 80": "deny",
		"ingress default/web < 10.1.1.1 TCP 80": "allow", // an except binds its own entry only
	})
}

// CVE-2024-47825: a broad deny holds against a narrower allow.
func TestBroadDenyBeatsNarrowAllow(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, egressDeny: [{toCIDR: [10.0.0.0/8]}], egress: [{toCIDR: [10.1.0.0/16], toPorts: [{`+port80+`}]}, {toEntities: [all]}]}`)).Expect(map[string]string{
		"egress default/web > 10.1.0.1 TCP 80":  "deny default/p egressDeny[0]",
		"egress default/web > 192.0.2.1 TCP 80": "allow",
	})
}

func TestDenyOfAPortLeavesTheOthers(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [all]}], ingressDeny: [{fromEndpoints: [`+client+`], toPorts: [{ports: [{port: "4096", endPort: 8191, protocol: TCP}]}]}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 4095": "allow",
		"ingress default/web < default/client TCP 4096": "deny default/p ingressDeny[0].toPorts[0]",
		"ingress default/web < default/client TCP 8191": "deny",
		"ingress default/web < default/client TCP 8192": "allow",
		"ingress default/web < default/client UDP 4096": "allow",
		"ingress default/web < default/db TCP 4096":     "allow",
	})
}

func TestEntities(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [world]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":          "allow",
		"ingress default/web < 192.0.2.1 TCP 80":      "allow",
		"ingress default/web < 2001:db8::1 TCP 80":    "allow",
		"ingress default/web < host TCP 80":           "deny",
		"ingress default/web < default/client TCP 80": "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [cluster]}]}`)).Expect(map[string]string{
		"ingress default/web < shop/client TCP 80": "allow",
		"ingress default/web < host TCP 80":        "allow",
		"ingress default/web < world TCP 80":       "deny",
		"ingress default/web < 192.0.2.1 TCP 80":   "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [none]}]}`)).Expect(map[string]string{
		"ingress default/web < shop/client TCP 80": "deny",
	})
}

func TestPortsAndProtocols(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{ports: [{port: "53"}, {port: "0", protocol: UDP}, {port: http, protocol: TCP}]}]}, {icmps: [{fields: [{type: 8}]}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 53":   "allow",
		"ingress default/web < world UDP 53":   "allow",
		"ingress default/web < world UDP 9999": "allow",
		"ingress default/web < world TCP 54":   "deny",
		"ingress default/web < world TCP 8080": "allow", // named
		"ingress default/web < world ICMP 8":   "allow",
		"ingress default/web < world ICMP 0":   "deny",
		"ingress default/web < world ICMPv6 8": "deny",
	})
}

// A port's name in an egress rule means what the peer calls so.
func TestNamedPortsOfPeers(t *testing.T) {
	for _, peers := range []string{"", "toEndpoints: [{}], "} {
		newCluster(t, cnp("p", `{endpointSelector: `+client+`, egress: [{`+peers+`toPorts: [{ports: [{port: http}]}]}]}`)).Expect(map[string]string{
			"egress default/client > default/web TCP 8080": "allow default/p egress[0].toPorts[0]",
			"egress default/client > default/web TCP 80":   "deny",
			"egress default/client > default/db TCP 8080":  "deny",
			"egress default/client > world TCP 8080":       "deny",
		})
	}
	newCluster(t, cnp("p", `{endpointSelector: `+client+`, egress: [{toEntities: [all]}], egressDeny: [{toPorts: [{ports: [{port: http}]}]}]}`)).Expect(map[string]string{
		"egress default/client > default/web TCP 8080": "deny default/p egressDeny[0].toPorts[0]",
		"egress default/client > default/web TCP 80":   "allow",
		"egress default/client > default/db TCP 8080":  "allow",
	})
}

func TestSpecsHaveTheirOwnPaths(t *testing.T) {
	doc := strings.Replace(cnp("p", `[{`+web+`, ingress: [{fromEntities: [host]}]}, {`+web+`, ingress: [{fromEndpoints: [`+client+`], toPorts: [{`+port80+`}]}]}]`), "spec:", "specs:", 1)
	newCluster(t, doc).Expect(map[string]string{
		"ingress default/web < host TCP 80":           "allow default/p specs[0].ingress[0]",
		"ingress default/web < default/client TCP 80": "allow default/p specs[1].ingress[0].toPorts[0]",
	})
}

// Note 13 is in testdata/refused/ports.yaml.
