package reconcile

import (
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestInheritance: other rules take the number of those before, and with it the connections
// of their port; rules before which TLS ends otherwise do not.
func TestInheritance(t *testing.T) {
	n := newNode(t)
	n.engine.cfg.PerRoute = func(p policy.Protocol) bool { return p == policy.ProtocolHTTP }
	n.engine.cfg.Secrets = func(policy.SecretRef) (string, error) { return "secret", nil }
	n.add("web", "10.0.0.1", nil)
	apply := func(path, secret string) redirect.SetNumber {
		t.Helper()
		tls, ends := "", (*policy.TLSSecrets)(nil)
		if secret != "" {
			ref := policy.SecretRef{Namespace: "default", Name: secret}
			tls, ends = ", terminatingTLS: {secret: {name: "+secret+"}}", &policy.TLSSecrets{Certificate: ref, PrivateKey: ref}
			ends.Certificate.Key, ends.PrivateKey.Key = "tls.crt", "tls.key"
		}
		n.apply(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p}, spec: {endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}],
  rules: {http: [{path: "` + path + `"}]}` + tls + `}]}]}}`)
		for _, s := range n.backend.last.Sets {
			if s.Set.HTTP[0].Path == path && s.Set.Ends.Equal(ends) {
				return s.Number
			}
		}
		t.Fatalf("no set is for %s", path)
		return 0
	}
	const one, other = "one", "other"
	plain := apply("/a", "")
	if got := apply("/b", ""); got != plain {
		t.Errorf("other rules have number %#x, want %#x", got, plain)
	}
	ended := apply("/b", one)
	if ended == plain {
		t.Error("rules before which TLS ends have the number of those for plain text")
	}
	if got := apply("/c", one); got != ended {
		t.Errorf("other rules behind the same TLS have number %#x, want %#x", got, ended)
	}
	if got := apply("/c", other); got == ended {
		t.Error("TLS that ends by another secret has the same number")
	}
	if got := apply("/d", ""); got == ended {
		t.Error("rules for plain text have the number of those before which TLS ends")
	}
}
