package xds

import (
	"strings"
	"sync/atomic"
	"testing"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestRefusedRuleBesideTLS: where Envoy refuses one of the rules of a set that ends TLS, the
// first time that they are served, TLS still ends, names are asked, and the rest holds. No
// listener reads plain text meanwhile.
func TestRefusedRuleBesideTLS(t *testing.T) {
	var plain atomic.Bool
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		for _, x := range r.GetResources() {
			var l listenerv3.Listener
			if r.GetTypeUrl() == resource.ListenerType && x.GetResource().UnmarshalTo(&l) == nil && l.GetFilterChainMatcher() == nil {
				plain.Store(true)
			}
		}
		if strings.Contains(r.String(), "BAD") {
			return "no such method"
		}
		return ""
	})
	set := endsOf(1, "a.example")
	set.HTTP = append(set.HTTP, policy.HTTPRule{Method: "BAD"})
	if err := b.Enforce(patient(t), secretsFor(t, 1, set)); err != nil {
		t.Fatal(err)
	}
	p := pair{ingress: number}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	if got := chains(t, f, p); got != "carried closed carried2 refused" {
		t.Errorf("the listener has the chains %s", got)
	}
	if plain.Load() {
		t.Error("a listener that does not look for TLS was offered")
	}
	if got := allowed(t, f, p, ingressFilter); len(got) != 1 || got[0] != "GET" {
		t.Errorf("ingress allows %v, want GET", got)
	}
	if s := b.Status(); !strings.Contains(s.Detail, "no such method") {
		t.Errorf("status says %q", s.Detail)
	}
}

// TestPlanWithoutRules: a set whose rules are not in force lets nothing pass where TLS is
// concerned, and answers as before where it is not.
func TestPlanWithoutRules(t *testing.T) {
	names := httpSet(1, "GET")
	names.TLS = []policy.TLSRule{{ServerName: "a.example"}}
	for name, tt := range map[string]struct {
		set  *policy.L7Set
		shut bool
	}{"TLS ends": {endsOf(1), true}, "names": {names, true}, "plain": {httpSet(1, "GET"), false}} {
		for _, rules := range []map[redirect.SetNumber]*program{nil, {number: closed()}} {
			b := &Backend{sets: rules, given: map[redirect.SetNumber]*policy.L7Set{number: tt.set}, secrets: newShelf()}
			if plan := b.planOf(pair{ingress: number}); (plan != nil) != tt.shut || plan.shut() != tt.shut {
				t.Errorf("%s: %+v", name, plan)
			}
		}
	}
}
