package cnp

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

// cluster is a small world to ask questions of: workloads named
// "namespace/app", whose label app is their name.
type cluster struct {
	t     *testing.T
	rules []policy.Rule
	ids   *policy.Identities
	names map[string]policy.Identity
}

var reservedNames = map[string]policy.Identity{
	"host": policy.IdentityHost, "health": policy.IdentityHealth, "init": policy.IdentityInit,
	"remote-node": policy.IdentityRemoteNode, "kube-apiserver": policy.IdentityKubeAPIServer,
	"ingress": policy.IdentityIngress, "unmanaged": policy.IdentityUnmanaged, "world": policy.IdentityWorld,
}

func newCluster(t *testing.T, documents ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, ids: policy.NewIdentities(), names: map[string]policy.Identity{}}
	for i, doc := range documents {
		policies, err := Decode(fmt.Sprintf("policy %d", i), []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range policies {
			c.rules = append(c.rules, p.Rules...)
		}
	}
	for i, name := range []string{"default/web", "default/db", "default/client", "shop/web", "shop/client", "kube-system/dns"} {
		namespace, app, _ := strings.Cut(name, "/")
		labels, err := policy.EndpointLabels(namespace, app, "", map[string]string{"team": namespace + "-team"}, map[string]string{"app": app})
		if err != nil {
			t.Fatal(err)
		}
		info := policy.IdentityInfo{ID: policy.IdentityMinWorkload + policy.Identity(i), Labels: labels}
		if app == "web" {
			info.NamedPorts = policy.NamedPorts{"http": {{Proto: policy.ProtoTCP, Port: 8080}}}
		}
		c.add(name, info)
	}
	for i, prefix := range policy.Prefixes(c.rules) {
		c.add(prefix.String(), policy.IdentityInfo{ID: policy.IdentityMinLocal + policy.Identity(i), Prefix: prefix})
	}
	maps.Copy(c.names, reservedNames)
	return c
}

func (c *cluster) add(name string, info policy.IdentityInfo) {
	c.t.Helper()
	if err := c.ids.Add(info); err != nil {
		c.t.Fatal(err)
	}
	c.names[name] = info.ID
}

// identity finds a workload or an entity by name, or an address by the longest
// prefix.
func (c *cluster) identity(name string) policy.Identity {
	c.t.Helper()
	if id, ok := c.names[name]; ok {
		return id
	}
	addr := netip.MustParseAddr(name)
	id, bits := policy.IdentityWorldIPv4, -1
	if addr.Is6() {
		id = policy.IdentityWorldIPv6
	}
	c.ids.Each(func(info policy.IdentityInfo) bool {
		if info.Prefix.IsValid() && info.Prefix.Contains(addr) && info.Prefix.Bits() > bits {
			id, bits = info.ID, info.Prefix.Bits()
		}
		return true
	})
	return id
}

// ask answers "ingress default/web < default/client TCP 80" as a verdict, a
// space, and the rule; with an HTTP request behind it, for that request.
func (c *cluster) ask(question string) string {
	c.t.Helper()
	words := strings.Fields(question)
	dir := policy.Ingress
	if words[0] == "egress" {
		dir = policy.Egress
	}
	proto := map[string]policy.Proto{"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "ICMP": policy.ProtoICMP, "ICMPv6": policy.ProtoICMPv6}[words[4]]
	var port uint16
	if _, err := fmt.Sscan(words[5], &port); err != nil {
		c.t.Fatal(err)
	}
	info, ok := c.ids.Get(c.identity(words[1]))
	if !ok {
		c.t.Fatal(question)
	}
	table, sets := policy.Resolve(policy.Subject{Labels: info.Labels, NamedPorts: info.NamedPorts}, c.rules, c.ids)
	e := table.Lookup(c.identity(words[3]), dir, proto, port)
	var ref policy.Ref
	if e.Rule != 0 {
		ref = table.Rules[e.Rule-1]
	}
	if len(words) < 8 {
		return strings.TrimSpace(e.Verdict.String() + " " + ref.String())
	}
	if e.Verdict != policy.Redirect {
		c.t.Fatalf("%s: no L7 rules there, %s", question, e.Verdict)
	}
	judge, err := policy.CompileL7(sets[e.Set])
	if err != nil {
		c.t.Fatal(err)
	}
	d := judge.Decide(&policy.HTTPRequest{Method: []byte(words[6]), Path: []byte(words[7])})
	return strings.TrimSpace(d.Verdict.String() + " " + d.Rule.String())
}

// expect holds questions against the beginnings of their answers.
func (c *cluster) expect(questions map[string]string) {
	c.t.Helper()
	for _, q := range slices.Sorted(maps.Keys(questions)) {
		if got := c.ask(q); got != questions[q] && !strings.HasPrefix(got, questions[q]+" ") {
			c.t.Errorf("%s: %s, want %s", q, got, questions[q])
		}
	}
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
	newCluster(t).expect(map[string]string{
		"ingress default/web < world TCP 80":           "allow",
		"egress default/web > default/db ICMP 8":       "allow",
		"ingress default/web < kube-system/dns UDP 53": "allow",
	})
}

func TestDirectionsAreSeparate(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+client+`]}]}`)).expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/p ingress[0]",
		"ingress default/web < default/client ICMP 8": "allow default/p ingress[0]",
		"ingress default/web < default/db TCP 80":     "deny",
		"egress default/web > default/db TCP 80":      "allow",
		"ingress default/db < world TCP 80":           "allow",
	})
}

// Note 1.
func TestEmptyRuleOnlySwitchesDefaultDenyOn(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{}]}`)).expect(map[string]string{
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < host TCP 80":           "deny",
		"egress default/web > default/client TCP 80":  "allow",
	})
}

// Note 2, and CVE-2025-64715: an empty list of peers is not "everybody".
func TestEmptyPeersSelectNobody(t *testing.T) {
	for _, field := range []string{"fromEndpoints", "fromCIDR", "fromCIDRSet", "fromEntities"} {
		for _, more := range []string{"", ", toPorts: [{" + port80 + "}]", ", icmps: [{fields: [{type: 8}]}]"} {
			newCluster(t, cnp("p", `{`+web+`, ingress: [{`+field+`: []`+more+`}]}`)).expect(map[string]string{
				"ingress default/web < default/client TCP 80": "deny",
				"ingress default/web < world TCP 80":          "deny",
				"ingress default/web < 192.0.2.1 ICMP 8":      "deny",
			})
		}
	}
}

// Note 3.
func TestNamespaceOfSelectors(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{}]}]}`)).expect(map[string]string{
		"ingress default/web < default/db TCP 80":  "allow",
		"ingress default/web < shop/client TCP 80": "deny",
		"ingress default/web < world TCP 80":       "deny",
		"ingress default/web < host TCP 80":        "deny",
		"ingress default/web < init TCP 80":        "deny",
		"ingress shop/web < world TCP 80":          "allow", // another namespace
	})
	for _, key := range []string{"io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace"} {
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {"`+key+`": shop}}]}]}`)).expect(map[string]string{
			"ingress default/web < shop/client TCP 80":    "allow",
			"ingress default/web < default/client TCP 80": "deny",
		})
	}
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.namespace.labels.team: shop-team}}]}]}`)).expect(map[string]string{
		"ingress default/web < shop/client TCP 80":    "allow",
		"ingress default/web < default/client TCP 80": "deny",
	})
	newCluster(t, ccnp("p", `{`+web+`, ingress: [{fromEndpoints: [{}]}]}`)).expect(map[string]string{
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
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+selector+`]}]}`)).expect(map[string]string{
			"ingress default/web < default/db TCP 80":  "allow",
			"ingress default/web < shop/client TCP 80": "deny",
			"ingress default/web < world TCP 80":       "deny",
			"ingress default/web < host TCP 80":        "deny",
		})
		newCluster(t, cnp("p", `{endpointSelector: `+selector+`, ingress: [{}]}`)).expect(map[string]string{
			"ingress default/web < world TCP 80": "deny",
			"ingress shop/web < world TCP 80":    "allow",
		})
	}
	outside := `{matchExpressions: [{key: io.kubernetes.pod.namespace, operator: NotIn, values: [kube-system]}]}`
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [`+outside+`]}]}`)).expect(map[string]string{
		"ingress default/web < shop/client TCP 80":     "allow",
		"ingress default/web < kube-system/dns TCP 80": "deny",
		"ingress default/web < world TCP 80":           "deny",
	})
}

// Note 4.
func TestDenyOnlyPolicySwitchesDefaultDenyOn(t *testing.T) {
	deny := `{` + web + `, egressDeny: [{toCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}]}]}`
	newCluster(t, cnp("p", deny)).expect(map[string]string{
		"egress default/web > 10.2.0.1 TCP 80":  "deny default/p egressDeny[0]",
		"egress default/web > 10.1.0.1 TCP 80":  "deny",
		"egress default/web > 192.0.2.1 TCP 80": "deny",
	})
	newCluster(t, cnp("p", deny), cnp("q", `{`+web+`, egress: [{toEntities: [all]}]}`)).expect(map[string]string{
		"egress default/web > 10.2.0.1 TCP 80": "deny default/p egressDeny[0]",
		"egress default/web > 10.1.0.1 TCP 80": "allow default/q egress[0]",
	})
}

// Note 5.
func TestDefaultDenyCanBeLeftOff(t *testing.T) {
	l7 := `{` + web + `, enableDefaultDeny: {ingress: false}, ingress: [{toPorts: [{` + port80 + `, rules: {http: [{path: /a}]}}]}]}`
	newCluster(t, cnp("p", l7)).expect(map[string]string{
		"ingress default/web < default/client TCP 443":       "allow",
		"ingress default/web < default/client TCP 80":        "redirect default/p ingress[0].toPorts[0]",
		"ingress default/web < default/client TCP 80 GET /a": "allow default/p ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /b": "allow default/p ingress[0].toPorts[0]",
	})
	newCluster(t, cnp("p", l7), cnp("q", `{`+web+`, ingress: [{}]}`)).expect(map[string]string{
		"ingress default/web < default/client TCP 443": "deny",
		"ingress default/web < default/client TCP 80":  "redirect",
	})
	newCluster(t, cnp("p", `{`+web+`, enableDefaultDeny: {egress: true, ingress: false}, ingress: [{}]}`)).expect(map[string]string{
		"ingress default/web < world TCP 80": "allow",
		"egress default/web > world TCP 80":  "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, enableDefaultDeny: {ingress: false}, ingressDeny: [{fromEntities: [world]}]}`)).expect(map[string]string{
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
				newCluster(t, cnp("p", `{`+web+`, ingress: [`+order+`]}`)).expect(map[string]string{
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
	).expect(map[string]string{
		"ingress default/web < default/client TCP 80 GET /a": "allow default/p ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /b": "allow default/q ingress[0].toPorts[0].http[0]",
		"ingress default/web < default/client TCP 80 PUT /a": "deny",
		"ingress default/web < default/db TCP 80 GET /a":     "deny",
		"ingress default/web < default/db TCP 80 GET /b":     "allow",
	})
}

// CVE-2024-52529: a range does not swallow the L7 port inside it.
func TestRangeDoesNotSwallowL7Port(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{path: /a}]}}]}, {toPorts: [{ports: [{port: "79", endPort: 81, protocol: TCP}]}]}]}`)).expect(map[string]string{
		"ingress default/web < world TCP 79":        "allow",
		"ingress default/web < world TCP 80":        "redirect",
		"ingress default/web < world TCP 81":        "allow",
		"ingress default/web < world TCP 80 GET /b": "deny",
	})
}

// Note 7.
func TestHTTPMatchesTheWholeValue(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{method: GET|HEAD, path: /public}]}}]}]}`)).expect(map[string]string{
		"ingress default/web < world TCP 80 GET /public":     "allow",
		"ingress default/web < world TCP 80 HEAD /public":    "allow",
		"ingress default/web < world TCP 80 HEADX /public":   "deny",
		"ingress default/web < world TCP 80 GET /public?x=1": "deny",
	})
}

func TestEmptyHTTPRuleMatchesEveryRequest(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{`+port80+`, rules: {http: [{}]}}]}]}`)).expect(map[string]string{
		"ingress default/web < world TCP 80":        "redirect",
		"ingress default/web < world TCP 80 PUT /x": "allow default/p ingress[0].toPorts[0].http[0]",
	})
}

// Note 8.
func TestCIDRNeverSelectsWorkloadsOrNodes(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromCIDR: [0.0.0.0/0, "::/0"]}, {fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.0.0.0/8, except: [10.2.0.0/16]}]}]}`)).expect(map[string]string{
		"ingress default/web < 192.0.2.1 TCP 80":      "allow",
		"ingress default/web < 2001:db8::1 TCP 80":    "allow",
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < host TCP 80":           "deny",
		"ingress default/web < remote-node TCP 80":    "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromCIDRSet: [{cidr: 10.0.0.0/8, except: [10.1.0.0/16]}, {cidr: 10.1.1.0/24}]}]}`)).expect(map[string]string{
		"ingress default/web < 10.2.0.1 TCP 80": "allow",
		"ingress default/web < 10.1.2.1 TCP 80": "deny",
		"ingress default/web < 10.1.1.1 TCP 80": "allow", // an except binds its own entry only
	})
}

// CVE-2024-47825: a broad deny holds against a narrower allow.
func TestBroadDenyBeatsNarrowAllow(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, egressDeny: [{toCIDR: [10.0.0.0/8]}], egress: [{toCIDR: [10.1.0.0/16], toPorts: [{`+port80+`}]}, {toEntities: [all]}]}`)).expect(map[string]string{
		"egress default/web > 10.1.0.1 TCP 80":  "deny default/p egressDeny[0]",
		"egress default/web > 192.0.2.1 TCP 80": "allow",
	})
}

func TestDenyOfAPortLeavesTheOthers(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [all]}], ingressDeny: [{fromEndpoints: [`+client+`], toPorts: [{ports: [{port: "4096", endPort: 8191, protocol: TCP}]}]}]}`)).expect(map[string]string{
		"ingress default/web < default/client TCP 4095": "allow",
		"ingress default/web < default/client TCP 4096": "deny default/p ingressDeny[0].toPorts[0]",
		"ingress default/web < default/client TCP 8191": "deny",
		"ingress default/web < default/client TCP 8192": "allow",
		"ingress default/web < default/client UDP 4096": "allow",
		"ingress default/web < default/db TCP 4096":     "allow",
	})
}

func TestEntities(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [world]}]}`)).expect(map[string]string{
		"ingress default/web < world TCP 80":          "allow",
		"ingress default/web < 192.0.2.1 TCP 80":      "allow",
		"ingress default/web < 2001:db8::1 TCP 80":    "allow",
		"ingress default/web < host TCP 80":           "deny",
		"ingress default/web < default/client TCP 80": "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [cluster]}]}`)).expect(map[string]string{
		"ingress default/web < shop/client TCP 80": "allow",
		"ingress default/web < host TCP 80":        "allow",
		"ingress default/web < world TCP 80":       "deny",
		"ingress default/web < 192.0.2.1 TCP 80":   "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [none]}]}`)).expect(map[string]string{
		"ingress default/web < shop/client TCP 80": "deny",
	})
}

func TestPortsAndProtocols(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{ports: [{port: "53"}, {port: "0", protocol: UDP}, {port: http, protocol: TCP}]}]}, {icmps: [{fields: [{type: 8}]}]}]}`)).expect(map[string]string{
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
		newCluster(t, cnp("p", `{endpointSelector: `+client+`, egress: [{`+peers+`toPorts: [{ports: [{port: http}]}]}]}`)).expect(map[string]string{
			"egress default/client > default/web TCP 8080": "allow default/p egress[0].toPorts[0]",
			"egress default/client > default/web TCP 80":   "deny",
			"egress default/client > default/db TCP 8080":  "deny",
			"egress default/client > world TCP 8080":       "deny",
		})
	}
	newCluster(t, cnp("p", `{endpointSelector: `+client+`, egress: [{toEntities: [all]}], egressDeny: [{toPorts: [{ports: [{port: http}]}]}]}`)).expect(map[string]string{
		"egress default/client > default/web TCP 8080": "deny default/p egressDeny[0].toPorts[0]",
		"egress default/client > default/web TCP 80":   "allow",
		"egress default/client > default/db TCP 8080":  "allow",
	})
}

func TestSpecsHaveTheirOwnPaths(t *testing.T) {
	doc := strings.Replace(cnp("p", `[{`+web+`, ingress: [{fromEntities: [host]}]}, {`+web+`, ingress: [{fromEndpoints: [`+client+`], toPorts: [{`+port80+`}]}]}]`), "spec:", "specs:", 1)
	newCluster(t, doc).expect(map[string]string{
		"ingress default/web < host TCP 80":           "allow default/p specs[0].ingress[0]",
		"ingress default/web < default/client TCP 80": "allow default/p specs[1].ingress[0].toPorts[0]",
	})
}

// Note 13 is in testdata/refused/ports.yaml.
