package reconcile

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
)

// TestAdmitClusters: no listener that is new leads to this machine itself. One that was
// there before does not stand in the way of other changes.
func TestAdmitClusters(t *testing.T) {
	node := netip.MustParseAddr("192.0.2.1")
	leads := func(to string) *Policy {
		return &Policy{Policy: policy.Policy{Envoy: &policy.EnvoyConfig{Addresses: []netip.Addr{netip.MustParseAddr(to)}}}}
	}
	e := &Engine{cfg: Config{NodeAddresses: func() ([]netip.Addr, error) { return []netip.Addr{node}, nil }}}
	before := map[string]*Policy{"old": leads("192.0.2.1")}
	e.policies = map[string]*Policy{"old": before["old"], "new": leads("192.0.2.2"), "none": {}}
	if err := e.admitClusters(before); err != nil {
		t.Error(err)
	}
	e.policies["new"] = leads("192.0.2.1")
	if err := e.admitClusters(before); !errors.Is(err, ErrRefused) {
		t.Errorf("a cluster that leads to the node: %v", err)
	}
	e.cfg.NodeAddresses = func() ([]netip.Addr, error) { return nil, errors.New("unreadable") }
	if err := e.admitClusters(before); err == nil {
		t.Error("it is taken though nobody knows the node's addresses")
	}
}

// TestNoEnvoy: what is Envoy's is refused where there is none, whole, and so is a policy
// that hands connections to it. What is in force from before stands in nobody's way.
func TestNoEnvoy(t *testing.T) {
	const config = `apiVersion: cilium.io/v2
kind: CiliumEnvoyConfig
metadata: {name: ways}
spec:
  resources:
  - {"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster, name: x, type: STATIC, connectTimeout: 1s}
`
	handing := strings.TrimRight(l4, "\n") + "\n      listener: {envoyConfig: {kind: CiliumEnvoyConfig, name: ways}, name: x}\n"
	handing = strings.NewReplacer("ingress:", "egress:", "fromEndpoints", "toEndpoints").Replace(handing)
	n := star(t)
	for name, document := range map[string]string{"a config": l7 + "---\n" + config, "a listener": handing} {
		ps, err := decode.Decode("test.yaml", []byte(document))
		if err != nil {
			t.Fatal(err)
		}
		_, _, err = n.engine.ApplyPolicies(t.Context(), ps)
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "--backend envoy") {
			t.Errorf("%s: %v", name, err)
		}
		n.want("10.0.0.3", "10.0.0.1", policy.Allow)
	}
	old, err := decode.Decode("test.yaml", []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	var before []*Policy
	for _, p := range old {
		before = append(before, &Policy{Policy: p})
	}
	n.restart(n.state, before)
	n.apply(l4)
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
}
