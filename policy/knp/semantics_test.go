package knp

import (
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
	"github.com/headgate/headgate/policy/policytest"
)

func decodeFile(file string, data []byte) ([]policy.Policy, error) {
	return manifest.Decode(file, data, Kinds())
}

func newCluster(t *testing.T, documents ...string) *policytest.Cluster {
	t.Helper()
	return policytest.New(t, decodeFile, policytest.Setup{}, documents...)
}

// knp writes a policy of the namespace default.
func knp(name, spec string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: " + name + "}\nspec: " + spec + "\n"
}

const web = `podSelector: {matchLabels: {app: web}}`

// Note 1: other than in a CiliumNetworkPolicy, an empty rule allows everything,
// and no rule isolates.
func TestEmptyRules(t *testing.T) {
	newCluster(t, knp("p", `{`+web+`, ingress: [{}]}`)).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/p ingress[0]",
		"ingress default/web < world ICMP 8":          "allow",
		"ingress default/web < host UDP 53":           "allow",
	})
	for _, spec := range []string{`{` + web + `, ingress: []}`, `{` + web + `}`, `{` + web + `, policyTypes: [Ingress]}`} {
		newCluster(t, knp("p", spec)).Expect(map[string]string{
			"ingress default/web < default/client TCP 80": "deny",
			"ingress default/web < world TCP 80":          "deny",
			"egress default/web > world TCP 80":           "allow",
			"ingress default/db < world TCP 80":           "allow",
			"ingress shop/web < world TCP 80":             "allow",
		})
	}
}

// Note 2: an empty list of peers is everybody, an empty list of ports every port.
func TestEmptyListsAreNone(t *testing.T) {
	newCluster(t, knp("p", `{`+web+`, ingress: [{from: [], ports: [{port: 80}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":      "allow",
		"ingress default/web < shop/web TCP 80":   "allow",
		"ingress default/web < default/db TCP 81": "deny",
	})
	newCluster(t, knp("p", `{`+web+`, ingress: [{from: [{podSelector: {}}], ports: []}]}`)).Expect(map[string]string{
		"ingress default/web < default/db UDP 7": "allow",
		"ingress default/web < shop/web TCP 80":  "deny",
	})
}

// Note 11.
func TestTypes(t *testing.T) {
	const egress = `egress: [{to: [{podSelector: {matchLabels: {app: db}}}]}]`
	for spec, want := range map[string][2]string{ // from the outside, and to it
		`{` + web + `, ` + egress + `}`:                                        {"deny", "deny"},
		`{` + web + `, ` + egress + `, policyTypes: []}`:                       {"deny", "deny"},
		`{` + web + `, ` + egress + `, policyTypes: [Egress]}`:                 {"allow", "deny"},
		`{` + web + `, ` + egress + `, policyTypes: [Ingress]}`:                {"deny", "allow"},
		`{` + web + `, egress: []}`:                                            {"deny", "allow"},
		`{` + web + `, egress: [], policyTypes: [Egress]}`:                     {"allow", "deny"},
		`{` + web + `, policyTypes: [Ingress, Egress]}`:                        {"deny", "deny"},
		`{` + web + `, ingress: [{}], policyTypes: [Egress]}`:                  {"allow", "deny"},
		`{` + web + `, ingress: [{}], egress: [{}]}`:                           {"allow", "allow"},
		`{` + web + `, ingress: [{}], egress: [{}], policyTypes: [Ingress]}`:   {"allow", "allow"},
		`{` + web + `, ingress: [], egress: [{}], policyTypes: [Egress]}`:      {"allow", "allow"},
		`{podSelector: {matchLabels: {app: nobody}}, ingress: [], egress: []}`: {"allow", "allow"},
	} {
		newCluster(t, knp("p", spec)).Expect(map[string]string{
			"ingress default/web < world TCP 80": want[0],
			"egress default/web > world TCP 80":  want[1],
		})
	}
	newCluster(t, knp("p", `{`+web+`, `+egress+`}`)).Expect(map[string]string{
		"egress default/web > default/db TCP 80": "allow default/p egress[0]",
		"egress default/web > shop/web TCP 80":   "deny",
	})
}

func TestSelectors(t *testing.T) {
	ask := func(from string, want map[string]string) {
		t.Helper()
		newCluster(t, knp("p", `{`+web+`, ingress: [{from: [`+from+`]}]}`)).Expect(want)
	}
	ask(`{podSelector: {matchLabels: {app: client}}}`, map[string]string{ // of the own namespace
		"ingress default/web < default/client TCP 80": "allow",
		"ingress default/web < shop/client TCP 80":    "deny",
	})
	ask(`{namespaceSelector: {matchLabels: {team: shop-team}}}`, map[string]string{
		"ingress default/web < shop/client TCP 80": "allow",
		"ingress default/web < default/db TCP 80":  "deny",
	})
	ask(`{namespaceSelector: {matchLabels: {team: shop-team}}, podSelector: {matchLabels: {app: web}}}`, map[string]string{
		"ingress default/web < shop/web TCP 80":    "allow",
		"ingress default/web < shop/client TCP 80": "deny",
		"ingress default/web < default/db TCP 80":  "deny",
	})
	ask(`{namespaceSelector: {matchLabels: {team: shop-team}}}, {podSelector: {matchLabels: {app: db}}}`, map[string]string{
		"ingress default/web < shop/client TCP 80":    "allow",
		"ingress default/web < default/db TCP 80":     "allow",
		"ingress default/web < default/client TCP 80": "deny",
	})
	// Every namespace has its name as a label.
	ask(`{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}}`, map[string]string{
		"ingress default/web < kube-system/dns TCP 80": "allow",
		"ingress default/web < default/db TCP 80":      "deny",
	})
	for _, all := range []string{`{}`, `{matchExpressions: [{key: nothing, operator: DoesNotExist}]}`, `{matchExpressions: [{key: kubernetes.io/metadata.name, operator: NotIn, values: [x]}]}`} {
		ask(`{namespaceSelector: `+all+`}`, map[string]string{ // workloads, never more: CVE-2023-41333
			"ingress default/web < shop/client TCP 80": "allow",
			"ingress default/web < default/db TCP 80":  "allow",
			"ingress default/web < world TCP 80":       "deny",
			"ingress default/web < host TCP 80":        "deny",
			"ingress default/web < 192.0.2.1 TCP 80":   "deny",
		})
	}
}

// Note 8, and CVE-2026-56743: ipBlock names addresses outside, and nothing else.
func TestIPBlock(t *testing.T) {
	newCluster(t, knp("p", `{`+web+`, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {ipBlock: {cidr: 10.1.1.0/24}}], ports: [{port: 80}]}]}`)).Expect(map[string]string{
		"ingress default/web < 10.2.0.1 TCP 80":       "allow default/p ingress[0].ports[0]",
		"ingress default/web < 10.1.0.1 TCP 80":       "deny",
		"ingress default/web < 10.1.1.1 TCP 80":       "allow",
		"ingress default/web < 192.0.2.1 TCP 80":      "deny",
		"ingress default/web < default/client TCP 80": "deny",
		"ingress default/web < shop/client TCP 80":    "deny",
	})
	newCluster(t, knp("p", `{`+web+`, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`)).Expect(map[string]string{
		"ingress default/web < 192.0.2.1 TCP 80":   "allow",
		"ingress default/web < default/db TCP 80":  "deny",
		"ingress default/web < host TCP 80":        "deny",
		"ingress default/web < 2001:db8::1 TCP 80": "deny",
	})
}

func TestPorts(t *testing.T) {
	newCluster(t, knp("p", `{`+web+`, ingress: [{ports: [{port: 80}, {protocol: UDP}, {port: http}, {port: 3868, protocol: SCTP}, {port: 100, endPort: 102}]}]}`)).Expect(map[string]string{
		"ingress default/web < world TCP 80":    "allow default/p ingress[0].ports[0]",
		"ingress default/web < world TCP 81":    "deny",
		"ingress default/web < world UDP 9999":  "allow default/p ingress[0].ports[1]",
		"ingress default/web < world TCP 8080":  "allow", // named
		"ingress default/web < world SCTP 3868": "allow",
		"ingress default/web < world SCTP 80":   "deny",
		"ingress default/web < world TCP 99":    "deny",
		"ingress default/web < world TCP 100":   "allow",
		"ingress default/web < world TCP 102":   "allow",
		"ingress default/web < world TCP 103":   "deny",
		"ingress default/web < world ICMP 8":    "deny",
	})
	// To other pods a port's name means what they call so.
	newCluster(t, knp("p", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: http}]}]}`)).Expect(map[string]string{
		"egress default/client > shop/web TCP 8080":   "allow",
		"egress default/client > default/db TCP 8080": "deny",
	})
}

func TestPoliciesAreAUnion(t *testing.T) {
	newCluster(t,
		knp("p", `{`+web+`, ingress: []}`),
		knp("q", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}`),
	).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/q ingress[0]",
		"ingress default/web < default/db TCP 80":     "deny",
	})
}
