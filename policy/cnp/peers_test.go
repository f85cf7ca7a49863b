package cnp

import (
	"net/netip"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/policytest"
)

func group(name, labels, cidrs string) string {
	return "apiVersion: cilium.io/v2\nkind: CiliumCIDRGroup\nmetadata: {name: " + name + ", labels: " + labels + "}\nspec: {externalCIDRs: [" + cidrs + "]}\n"
}

func TestCIDRGroups(t *testing.T) {
	groups := group("a", "{zone: x}", "10.0.0.0/8, 192.0.2.0/24") + "---\n" + group("b", "{zone: y}", `"2001:db8::/32"`)
	newCluster(t, groups, cnp("p", `{`+web+`, ingress: [{fromCIDRSet: [{cidrGroupRef: a, except: [10.1.0.0/16]}, {cidrGroupRef: none}]}]}`)).Expect(map[string]string{
		"ingress default/web < 10.2.0.1 TCP 80":    "allow default/p ingress[0]",
		"ingress default/web < 10.1.0.1 TCP 80":    "deny",
		"ingress default/web < 192.0.2.1 TCP 80":   "allow",
		"ingress default/web < 2001:db8::1 TCP 80": "deny",
		"ingress default/web < default/db TCP 80":  "deny",
	})
	newCluster(t, groups, cnp("p", `{`+web+`, ingress: [{fromCIDRSet: [{cidrGroupSelector: {matchLabels: {zone: "y"}}}]}]}`)).Expect(map[string]string{
		"ingress default/web < 10.2.0.1 TCP 80":    "deny",
		"ingress default/web < 2001:db8::1 TCP 80": "allow",
	})
}

// CVE-2025-64715 again: a group that is empty or not there is not left out and so
// everybody.
func TestEmptyGroupsNameNobody(t *testing.T) {
	for _, docs := range [][]string{{}, {group("a", "{}", "")}} {
		for _, ports := range []string{"", ", toPorts: [{" + port80 + "}]"} {
			newCluster(t, append(docs, cnp("p", `{`+web+`, ingress: [{fromCIDRSet: [{cidrGroupRef: a}]`+ports+`}]}`))...).Expect(map[string]string{
				"ingress default/web < 10.2.0.1 TCP 80":   "deny",
				"ingress default/web < world TCP 80":      "deny",
				"ingress default/web < default/db TCP 80": "deny",
			})
		}
	}
	newCluster(t, cnp("p", `{`+web+`, egress: [{toServices: [{k8sService: {serviceName: none}}], toPorts: [{`+port80+`}]}, {toFQDNs: [], toPorts: [{`+port80+`}]}, {toNodes: [], toPorts: [{`+port80+`}]}]}`)).Expect(map[string]string{
		"egress default/web > default/db TCP 80": "deny",
		"egress default/web > world TCP 80":      "deny",
	})
}

// Note 9.
func TestNames(t *testing.T) {
	setup := policytest.Setup{Names: map[string][]string{
		"cilium.io": {"192.0.2.1"}, "app.cilium.io": {"192.0.2.2"}, "Test.App.Cilium.io.": {"192.0.2.3"}, "example.io": {"192.0.2.4", "10.0.0.4"},
	}}
	ask := func(peers string, want map[string]string) {
		t.Helper()
		policytest.New(t, Decode, setup, cnp("p", `{`+web+`, egress: [{toFQDNs: [`+peers+`], toPorts: [{`+port80+`}]}]}`)).Expect(want)
	}
	ask(`{matchName: CILIUM.io.}`, map[string]string{
		"egress default/web > 192.0.2.1 TCP 80":  "allow default/p egress[0].toPorts[0]",
		"egress default/web > 192.0.2.1 TCP 443": "deny",
		"egress default/web > 192.0.2.2 TCP 80":  "deny",
	})
	ask(`{matchPattern: "**.cilium.io"}`, map[string]string{
		"egress default/web > 192.0.2.1 TCP 80": "deny",
		"egress default/web > 192.0.2.2 TCP 80": "allow",
		"egress default/web > 192.0.2.3 TCP 80": "allow",
	})
	ask(`{matchPattern: "*"}`, map[string]string{
		"egress default/web > 192.0.2.4 TCP 80":  "allow",
		"egress default/web > 192.0.2.9 TCP 80":  "deny", // never seen in the DNS
		"egress default/web > world TCP 80":      "deny",
		"egress default/web > default/db TCP 80": "deny",
	})
	policytest.New(t, Decode, setup, cnp("p", `{`+web+`, egressDeny: [{toCIDR: [10.0.0.0/8]}], egress: [{toFQDNs: [{matchName: example.io}]}]}`)).Expect(map[string]string{
		"egress default/web > 192.0.2.4 TCP 80": "allow",
		"egress default/web > 10.0.0.4 TCP 80":  "deny default/p egressDeny[0]",
	})
}

func TestServices(t *testing.T) {
	setup := policytest.Setup{Services: []policy.Service{
		{Namespace: "shop", Name: "web", Labels: map[string]string{"tier": "front"}, Selector: map[string]string{"app": "web"}, Addresses: []netip.Addr{netip.MustParseAddr("10.96.0.1")}},
		{Namespace: "shop", Name: "outside", Labels: map[string]string{"tier": "back"}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}},
		{Namespace: "default", Name: "web", Selector: map[string]string{"app": "web"}},
	}}
	ask := func(peers string, want map[string]string) {
		t.Helper()
		policytest.New(t, Decode, setup, cnp("p", `{endpointSelector: `+client+`, egress: [{toServices: [`+peers+`]}]}`)).Expect(want)
	}
	ask(`{k8sService: {serviceName: web, namespace: shop}}`, map[string]string{
		"egress default/client > shop/web TCP 80":    "allow default/p egress[0]",
		"egress default/client > default/web TCP 80": "deny",
		"egress default/client > shop/client TCP 80": "deny",
		"egress default/client > 10.96.0.1 TCP 80":   "allow", // before it is translated
	})
	ask(`{k8sService: {serviceName: web}}`, map[string]string{
		"egress default/client > shop/web TCP 80":    "allow",
		"egress default/client > default/web TCP 80": "allow",
		"egress default/client > 192.0.2.1 TCP 80":   "deny",
	})
	ask(`{k8sServiceSelector: {selector: {matchLabels: {"k8s:tier": back}}, namespace: shop}}`, map[string]string{
		"egress default/client > 192.0.2.1 TCP 80": "allow",
		"egress default/client > shop/web TCP 80":  "deny",
	})
}

// CVE-2025-30163: workloads with the labels of a node are no nodes.
func TestNodes(t *testing.T) {
	setup := policytest.Setup{Nodes: map[string]map[string]string{"n1": {"app": "db", "role": "worker"}, "n2": {}}}
	policytest.New(t, Decode, setup, cnp("p", `{`+web+`, ingress: [{fromNodes: [{matchLabels: {app: db}}]}], egress: [{toNodes: [{}]}]}`)).Expect(map[string]string{
		"ingress default/web < n1 TCP 80":         "allow default/p ingress[0]",
		"ingress default/web < n2 TCP 80":         "deny",
		"ingress default/web < default/db TCP 80": "deny",
		"egress default/web > n2 TCP 80":          "allow",
		"egress default/web > remote-node TCP 80": "allow",
		"egress default/web > default/db TCP 80":  "deny",
		"egress default/web > world TCP 80":       "deny",
	})
	policytest.New(t, Decode, setup, cnp("p", `{`+web+`, ingress: [{fromEntities: [remote-node]}], egress: [{toEntities: [cluster]}]}`)).Expect(map[string]string{
		"ingress default/web < n1 TCP 80":         "allow",
		"egress default/web > n1 TCP 80":          "allow",
		"ingress default/web < default/db TCP 80": "deny",
	})
	policytest.New(t, Decode, setup, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {app: db}}]}]}`)).Expect(map[string]string{
		"ingress default/web < n1 TCP 80":         "deny",
		"ingress default/web < default/db TCP 80": "allow",
	})
}

// TestHostPolicies: they are for nodes, and those for workloads are not.
func TestHostPolicies(t *testing.T) {
	setup := policytest.Setup{Nodes: map[string]map[string]string{"n1": {"type": "worker"}, "n2": {}}}
	policytest.New(t, Decode, setup,
		ccnp("host", `{nodeSelector: {matchLabels: {type: worker}}, ingress: [{toPorts: [{ports: [{port: "22", protocol: TCP}]}]}]}`),
		ccnp("all", `{endpointSelector: {}, egress: [{}]}`),
	).Expect(map[string]string{
		"ingress n1 < world TCP 22":           "allow host ingress[0].toPorts[0]",
		"ingress n1 < world TCP 80":           "deny",
		"egress n1 > world TCP 80":            "allow",
		"ingress n2 < world TCP 80":           "allow",
		"ingress default/web < world TCP 80":  "allow",
		"egress default/web > world TCP 80":   "deny",
		"ingress shop/client < world TCP 443": "allow",
	})
}

func TestRequires(t *testing.T) {
	newCluster(t,
		cnp("p", `{`+web+`, ingress: [{fromRequires: [{matchLabels: {app: client}}]}]}`),
		cnp("q", `{`+web+`, ingress: [{fromEndpoints: [{}]}, {fromEntities: [host]}]}`),
		cnp("r", `{endpointSelector: {matchLabels: {app: db}}, ingress: [{fromEndpoints: [{}]}]}`),
	).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/q ingress[0]",
		"ingress default/web < default/db TCP 80":     "deny",
		"ingress default/web < host TCP 80":           "allow", // it is about endpoints only
		"ingress default/db < default/web TCP 80":     "allow", // another subject
	})
	for _, ports := range []string{"", ", toPorts: [{" + port80 + "}]"} { // by itself it allows nobody
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromRequires: [{matchLabels: {app: client}}]`+ports+`}]}`)).Expect(map[string]string{
			"ingress default/web < default/client TCP 80": "deny",
			"ingress default/web < world TCP 80":          "deny",
		})
	}
}

func TestEveryEntity(t *testing.T) {
	everybody := []string{"default/db", "host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged", "world", "192.0.2.1", "2001:db8::1"}
	for entity, names := range map[string][]string{
		"all": everybody, "none": nil,
		"cluster":        {"default/db", "host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged"},
		"cluster-mesh":   {"default/db", "host", "remote-node", "kube-apiserver", "health", "init", "ingress", "unmanaged"},
		"host":           {"host"},
		"remote-node":    {"remote-node", "kube-apiserver"},
		"kube-apiserver": {"kube-apiserver"},
		"health":         {"health"},
		"init":           {"init"},
		"ingress":        {"ingress"},
		"unmanaged":      {"unmanaged"},
		"world":          {"world", "192.0.2.1", "2001:db8::1"},
		"world-ipv4":     {"192.0.2.1"},
		"world-ipv6":     {"2001:db8::1"},
	} {
		want := map[string]string{}
		for _, name := range everybody {
			want["ingress default/web < "+name+" TCP 80"] = "deny"
		}
		for _, name := range names {
			want["ingress default/web < "+name+" TCP 80"] = "allow"
		}
		newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [`+entity+`]}]}`)).Expect(want)
	}
}

func TestServiceAccountsAndClusters(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.serviceaccount: client, io.cilium.k8s.policy.cluster: default}}]}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow",
		"ingress default/web < default/db TCP 80":     "deny",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEndpoints: [{matchLabels: {io.cilium.k8s.policy.cluster: other}}]}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "deny",
	})
}

// CVE-2023-39347: a workload cannot label itself into another's namespace or
// service account.
func TestDerivedLabelsAreNotAWorkloadsToSet(t *testing.T) {
	for _, key := range []string{policy.KeyNamespace, policy.KeyServiceAccount, policy.KeyCluster, policy.PrefixOfNamespaceLabels + "team"} {
		if _, err := policy.EndpointLabels("default", "a", "", nil, map[string]string{key: "other"}); err == nil {
			t.Errorf("%s is accepted", key)
		}
	}
}

// CVE-2023-27594: no address is the host's because of its family, and CIDR rules
// never name the host. GHSA-c66w-hq56-4q97: nor does ICMP pass where only TCP
// may.
func TestFamiliesAndICMPGetNoSpecialTreatment(t *testing.T) {
	newCluster(t, cnp("p", `{`+web+`, ingress: [{fromEntities: [host]}]}`)).Expect(map[string]string{
		"ingress default/web < 2001:db8::1 TCP 80": "deny",
		"ingress default/web < fe80::1 TCP 80":     "deny",
		"ingress default/web < host TCP 80":        "allow",
	})
	newCluster(t, cnp("p", `{`+web+`, ingress: [{toPorts: [{ports: [{port: "0", protocol: ANY}]}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":     "allow",
		"ingress default/web < world SCTP 80":    "allow",
		"ingress default/web < world ICMP 8":     "deny",
		"ingress default/web < world ICMPv6 128": "deny",
	})
}
