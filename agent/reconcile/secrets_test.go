package reconcile

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestSecrets: the backend gets the values that policies refer to, anew when they
// change, and nobody else does.
func TestSecrets(t *testing.T) {
	n := newNode(t)
	ref := policy.SecretRef{Namespace: "default", Name: "token"}
	value, fails := "one", error(nil)
	n.engine.cfg.Secrets = func(r policy.SecretRef) (string, error) {
		if r != ref {
			t.Errorf("asked for %v", r)
		}
		return value, fails
	}
	n.add("web", "10.0.0.1", nil)
	n.apply(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p}, spec: {endpointSelector: {}, ingress: [{toPorts: [{ports: [{port: "80", protocol: TCP}],
  rules: {http: [{headerMatches: [{name: X-Token, secret: {name: token}, mismatch: REPLACE}]}]}}]}]}}`)
	want := func(value string) {
		t.Helper()
		if got := n.backend.last.Secrets[ref]; got != value {
			t.Errorf("the backend has %q, want %q", got, value)
		}
	}
	want("one")
	before := len(n.log)
	if err := n.engine.CheckSecrets(t.Context()); err != nil || len(n.log) != before {
		t.Error(err, n.log[before:])
	}
	value = "two"
	if err := n.engine.CheckSecrets(t.Context()); err != nil {
		t.Error(err)
	}
	want("two")
	fails = errors.New("gone")
	if err := n.engine.CheckSecrets(t.Context()); !errors.Is(err, fails) {
		t.Error(err)
	}
	want("")
}
