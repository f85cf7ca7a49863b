package reconcile

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
)

// TestChangesAddUp: after any changes in any order the tables are those of an agent
// that starts with what came of them.
func TestChangesAddUp(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5 {
		n := newNode(t)
		for i := range 6 {
			n.add(fmt.Sprintf("e%d", i), fmt.Sprintf("10.0.0.%d", i+1), map[string]string{"app": anApp(r)})
		}
		for range 40 {
			n.changeSomething(r)
			n.equalsFreshStart()
		}
	}
}

func anApp(r *rand.Rand) string { return string(rune('a' + r.IntN(3))) }

func (n *node) changeSomething(r *rand.Rand) {
	n.t.Helper()
	var err error
	one := fmt.Sprintf("default/e%d", r.IntN(6))
	switch r.IntN(10) {
	case 0:
		_, err = n.engine.LabelEndpoint(n.t.Context(), one, map[string]string{"app": anApp(r)}, nil)
	case 1:
		_, err = n.engine.LabelNamespace(n.t.Context(), "default", map[string]string{"team": anApp(r)}, nil)
	case 2:
		err = n.engine.SetConfig(n.t.Context(), SettingAudit, []string{"off", "on"}[r.IntN(2)], 0)
	case 3:
		err = n.engine.SetConfig(n.t.Context(), SettingEnforcement, []string{"default", "always", "never"}[r.IntN(3)], 0)
	case 4:
		if list, _ := n.engine.Policies(); len(list) > 0 {
			_, _, err = n.engine.DeletePolicies(n.t.Context(), []string{list[r.IntN(len(list))].Key()})
		}
	case 5:
		n.apply(fmt.Sprintf("{apiVersion: cilium.io/v2, kind: CiliumCIDRGroup, metadata: {name: g}, spec: {externalCIDRs: [198.51.100.%d/32]}}", r.IntN(3)))
	default:
		n.apply(aPolicy(r))
	}
	if err != nil {
		n.t.Fatal(err)
	}
}

func aPolicy(r *rand.Rand) string {
	peers := []string{
		"%sEndpoints: [{matchLabels: {app: " + anApp(r) + "}}]",
		"%sEndpoints: [{matchLabels: {k8s:io.cilium.k8s.namespace.labels.team: " + anApp(r) + "}}]",
		"%sCIDRSet: [{cidrGroupRef: g}]",
		fmt.Sprintf("%%sCIDR: [198.51.100.%d/32]", r.IntN(3)),
		"%sEntities: [all]",
	}
	direction := r.IntN(2)
	section := []string{"ingress", "egress"}[direction] + []string{"", "", "Deny"}[r.IntN(3)]
	rules := ""
	if r.IntN(3) == 0 && section == "ingress" {
		rules = fmt.Sprintf(", rules: {http: [{method: %s}]}", []string{"GET", "PUT"}[r.IntN(2)])
	}
	mode := []string{"enforce", "enforce", "audit"}[r.IntN(3)]
	return fmt.Sprintf(`{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: p%d, annotations: {headgate.dev/mode: %s}}, spec: {
		endpointSelector: {matchLabels: {app: %s}}, %s: [{%s, toPorts: [{ports: [{port: "%d", protocol: TCP}]%s}]}]}}`,
		r.IntN(8), mode, anApp(r), section, fmt.Sprintf(peers[r.IntN(len(peers))], []string{"from", "to"}[direction]), 80+r.IntN(3), rules)
}

func (n *node) equalsFreshStart() {
	n.t.Helper()
	list, _ := n.engine.Policies()
	s := n.state // its numbers change as the engine goes on
	s.Numbers.Identities, s.Numbers.Sets = maps.Clone(s.Numbers.Identities), maps.Clone(s.Numbers.Sets)
	s.Numbers.NextSet, s.Numbers.rules, s.Numbers.refs = maps.Clone(s.Numbers.NextSet), nil, nil
	s.Endpoints = nil
	for _, ep := range n.engine.Endpoints() {
		s.Endpoints = append(s.Endpoints, ep.Clone())
	}
	fresh := &node{t: n.t}
	fresh.gate, fresh.backend = newFakeGate(&fresh.log), &fakeBackend{log: &fresh.log}
	fresh.restart(s, slices.Clone(list))
	for _, ep := range s.Endpoints {
		if got, want := n.tableOf(ep), fresh.tableOf(ep); !maps.Equal(got, want) {
			n.t.Fatalf("%s with %v:\n%v\nand after a fresh start\n%v", ep.Key(), ep.Labels, got, want)
		}
	}
}

// say is what a table says of a key.
type say struct {
	policy.Verdict
	set   uint32
	audit bool
	rule  policy.Ref
}

func (n *node) tableOf(ep *endpoint.Endpoint) map[policy.Key]say {
	out := map[policy.Key]say{}
	for k, e := range n.gate.tables[n.gate.endpoints[ep.IPs[0]].Subject] {
		if _, ok := n.engine.ids.Get(k.Peer); k.Peer != 0 && !ok {
			continue // nobody has that identity since; the next change forgets it
		}
		out[k] = say{e.Verdict, e.Set, e.Audit, n.engine.Reference(e.Rule)}
	}
	return out
}
