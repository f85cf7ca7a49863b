package decode

import (
	"errors"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/policytest"
)

const everyKind = `apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p}
spec: {endpointSelector: {matchLabels: {app: web}}, ingress: [{fromCIDRSet: [{cidrGroupRef: g}]}]}
---
apiVersion: cilium.io/v2
kind: CiliumClusterwideNetworkPolicy
metadata: {name: p}
spec: {endpointSelector: {}, ingressDeny: [{fromCIDR: [10.1.0.0/16]}], enableDefaultDeny: {ingress: false}}
---
{"apiVersion": "cilium.io/v2", "kind": "CiliumCIDRGroup", "metadata": {"name": "g"}, "spec": {"externalCIDRs": ["10.0.0.0/8"]}}
`

// TestKindsTogether: policies of every kind in one file make one policy.
func TestKindsTogether(t *testing.T) {
	policytest.New(t, Decode, policytest.Setup{}, everyKind).Expect(map[string]string{
		"ingress default/web < default/client TCP 80": "allow default/p ingress[0]",
		"ingress default/web < default/db TCP 80":     "deny",
		"ingress default/web < 10.2.0.1 TCP 80":       "allow default/p ingress[0]",
		"ingress default/web < 10.1.0.1 TCP 80":       "deny p ingressDeny[0]",
		"ingress default/db < 10.2.0.1 TCP 80":        "allow",
		"ingress default/db < 10.1.0.1 TCP 80":        "deny p ingressDeny[0]",
	})
}

// TestOneBadDocumentAppliesNothing, of whatever kind it is.
func TestOneBadDocumentAppliesNothing(t *testing.T) {
	for _, bad := range []string{"spec: {podSelector: {}}", "kind: Secret", "kind: CiliumNetworkPolicy\napiVersion: networking.k8s.io/v1"} {
		policies, err := Decode("f.yaml", []byte(everyKind+"---\n"+bad+"\n"))
		var first *Error
		if policies != nil || !errors.As(err, &first) || first.Document != 5 {
			t.Errorf("%q: %v %v", bad, policies, err)
		}
	}
	_, err := Decode("f.yaml", []byte("kind: Ingress\n"))
	if err == nil || !strings.Contains(err.Error(), "CiliumCIDRGroup, NetworkPolicy, CiliumEnvoyConfig or CiliumClusterwideEnvoyConfig") {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(everyKind))
	f.Fuzz(func(t *testing.T, data []byte) {
		policies, err := Decode("fuzz", data)
		if err != nil && policies != nil {
			t.Fatal("both policies and an error")
		}
		for i := range policies {
			p := &policies[i]
			if p.Name == "" {
				t.Fatalf("%+v is accepted", p)
			}
			policy.Unenforceable(p)
			_, sets := policy.Resolve(policy.Subject{}, p.Rules, policy.NewIdentities())
			for _, set := range sets {
				if _, err := policy.CompileSet(set); err != nil {
					t.Fatalf("accepted, but does not compile: %v", err)
				}
			}
		}
	})
}
