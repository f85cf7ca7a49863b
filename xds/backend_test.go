package xds

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const number = redirect.SetNumber(1<<24 | 1)

func setID(n byte) policy.SetID { return policy.SetID{n} }

func httpSet(n byte, methods ...string) *policy.L7Set {
	s := &policy.L7Set{ID: setID(n), Protocol: policy.ProtocolHTTP}
	for _, m := range methods {
		s.HTTP = append(s.HTTP, policy.HTTPRule{Method: m})
	}
	return s
}

// snapshot numbers sets from number on.
func snapshot(revision uint64, sets ...*policy.L7Set) redirect.Snapshot {
	s := redirect.Snapshot{Revision: revision, Sets: map[policy.SetID]redirect.NumberedSet{}}
	for i, x := range sets {
		s.Sets[x.ID] = redirect.NumberedSet{Number: number + redirect.SetNumber(i), Set: x}
	}
	return s
}

func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// allowed are the methods that the fake has been told to allow in one direction;
// nil: no rules, everything passes.
func allowed(t *testing.T, f *fakeEnvoy, p pair, filter string) []string {
	t.Helper()
	var c routev3.RouteConfiguration
	if !f.get(resource.RouteType, p.name(), &c) {
		t.Fatalf("no routes %s", p.name())
	}
	var per httprbacv3.RBACPerRoute
	if err := c.GetVirtualHosts()[0].GetTypedPerFilterConfig()[filter].UnmarshalTo(&per); err != nil {
		t.Fatal(err)
	}
	if per.GetRbac() == nil {
		return nil
	}
	methods := []string{}
	for _, x := range per.GetRbac().GetRules().GetPolicies() {
		methods = append(methods, x.GetPermissions()[0].GetAndRules().GetRules()[0].GetHeader().GetStringMatch().GetSafeRegex().GetRegex())
	}
	return methods
}

func served(t *testing.T, answer func(*discoveryv3.DeltaDiscoveryResponse) string) (*Backend, *fakeEnvoy, redirect.ProxyPort) {
	t.Helper()
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, answer)
	if err := b.Enforce(patient(t), snapshot(1, httpSet(1, "GET"))); err != nil {
		t.Fatal(err)
	}
	port, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)})
	if err != nil {
		t.Fatal(err)
	}
	return b, f, port
}

func TestServeAndEnforce(t *testing.T) {
	b, f, port := served(t, nil)
	p := pair{ingress: number}
	if got := allowed(t, f, p, egressFilter); got != nil {
		t.Errorf("egress without a set has rules: %v", got)
	}
	if got := allowed(t, f, p, ingressFilter); len(got) != 1 || got[0] != "GET" {
		t.Errorf("ingress allows %v, want GET", got)
	}
	again, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)})
	if err != nil || again != port {
		t.Errorf("the same route is served on %d, then on %d (%v)", port, again, err)
	}
	// Another set under the same number: the same listener, other rules.
	if err := b.Enforce(patient(t), snapshot(2, httpSet(2, "PUT"))); err != nil {
		t.Fatal(err)
	}
	if got := allowed(t, f, p, ingressFilter); len(got) != 1 || got[0] != "PUT" {
		t.Errorf("after the change ingress allows %v, want PUT", got)
	}
	if port2, err := b.Serve(patient(t), redirect.Route{Ingress: setID(2)}); err != nil || port2 != port {
		t.Errorf("the changed set is served on %d (%v), want %d", port2, err, port)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err == nil {
		t.Error("a set that is gone is served")
	}
	if n := f.count(resource.ListenerType); n != 2 { // none at first, then one
		t.Errorf("%d responses for listeners, want 2: they must not change", n)
	}
	if s := b.Status(); s.State != "ready" || s.Revision != 2 || s.Version != "1.40.0" {
		t.Errorf("status %+v", s)
	}
}

func TestEnforceWaitsForAcknowledgement(t *testing.T) {
	var hold atomic.Bool
	release := make(chan struct{})
	b, _, _ := served(t, func(*discoveryv3.DeltaDiscoveryResponse) string {
		if hold.Load() {
			<-release
		}
		return ""
	})
	hold.Store(true)
	done := make(chan error, 1)
	ctx := patient(t)
	go func() { done <- b.Enforce(ctx, snapshot(2, httpSet(9, "PUT"))) }()
	select {
	case err := <-done:
		t.Fatalf("Enforce returned before Envoy answered: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if s := b.Status(); s.Revision != 1 {
		t.Errorf("revision %d is said to be in force", s.Revision)
	}
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestRefusedRuleIsLeftOut has Envoy refuse one rule of one set. All else is in force, an
// Envoy that comes anew gets it too, and what was refused is not offered again.
func TestRefusedRuleIsLeftOut(t *testing.T) {
	var refusals atomic.Int32
	b, f, _ := served(t, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if strings.Contains(r.String(), "BAD") {
			refusals.Add(1)
			return "no such method"
		}
		return ""
	})
	other := number + 1
	if err := b.Enforce(patient(t), snapshot(2, httpSet(1, "GET"), httpSet(2, "PUT"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(2)}); err != nil {
		t.Fatal(err)
	}
	now := snapshot(3, httpSet(3, "GET", "BAD", "HEAD", "PUT"), httpSet(4, "POST"))
	for range 2 {
		err := b.Enforce(patient(t), now)
		var sets *redirect.SetsError
		if !errors.As(err, &sets) || len(sets.Failed) != 1 || !strings.Contains(sets.Failed[number], "no such method") {
			t.Fatalf("Enforce gave %v", err)
		}
		now.Revision++
	}
	tried := refusals.Load()
	if tried == 0 || tried > 8 { // by halves; how many come in one response differs
		t.Errorf("what was refused was sent %d times", tried)
	}
	check := func() {
		t.Helper()
		got := allowed(t, f, pair{ingress: number}, ingressFilter)
		slices.Sort(got)
		if !slices.Equal(got, []string{"GET", "HEAD", "PUT"}) {
			t.Errorf("ingress allows %v, want all but what was refused", got)
		}
		if got := allowed(t, f, pair{ingress: other}, ingressFilter); len(got) != 1 || got[0] != "POST" {
			t.Errorf("the other set allows %v, want POST", got)
		}
	}
	check()
	if s := b.Status(); s.Revision != 4 {
		t.Errorf("status %+v", s)
	}
	f.stop()
	waitFor(t, func() bool { return b.Status().State == "down" })
	f = connectFake(t, b, nil, nil)
	if err := b.Enforce(patient(t), now); err == nil {
		t.Error("the rule that is left out is forgotten")
	}
	check()
	if n := refusals.Load(); n != tried {
		t.Errorf("what was refused was sent again, %d times", n-tried)
	}
	// A route that is served later with a rule that Envoy refuses.
	f.answer = func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if strings.Contains(r.String(), "WORSE") {
			return "no"
		}
		return ""
	}
	if err := b.Enforce(patient(t), snapshot(9, httpSet(6, "GET"), httpSet(4, "POST"), httpSet(5, "WORSE", "TRACE"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(5)}); err != nil {
		t.Fatal(err)
	}
	if got := allowed(t, f, pair{ingress: number + 2}, ingressFilter); len(got) != 1 || got[0] != "TRACE" {
		t.Errorf("the route served last allows %v, want TRACE", got)
	}
}

func TestForgottenSetDeniesAndGoes(t *testing.T) {
	var denied atomic.Bool
	var f *fakeEnvoy
	b, f, _ := served(t, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if r.GetTypeUrl() == resource.ListenerType && len(r.GetRemovedResources()) > 0 {
			denied.Store(len(allowed(t, f, pair{ingress: number}, ingressFilter)) == 0)
		}
		return ""
	})
	if err := b.Enforce(patient(t), snapshot(2)); err != nil {
		t.Fatal(err)
	}
	if names := f.names(resource.ListenerType); len(names) > 0 {
		t.Errorf("listeners %v are left", names)
	}
	if !denied.Load() {
		t.Error("the listener went before its rules denied")
	}
}

func TestUntranslatableSetDeniesAlone(t *testing.T) {
	b, f, _ := served(t, nil)
	bad := httpSet(2, "(")
	err := b.Enforce(patient(t), snapshot(2, httpSet(9, "POST"), bad))
	var sets *redirect.SetsError
	if !errors.As(err, &sets) || len(sets.Failed) != 1 || sets.Failed[number+1] == "" {
		t.Fatalf("Enforce gave %v", err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Egress: bad.ID, Ingress: setID(9)}); err != nil {
		t.Fatal(err)
	}
	p := pair{number + 1, number}
	if got := allowed(t, f, p, egressFilter); got == nil || len(got) > 0 {
		t.Errorf("the bad set allows %v, want nothing", got)
	}
	if got := allowed(t, f, p, ingressFilter); len(got) != 1 || got[0] != "POST" {
		t.Errorf("the good set allows %v, want POST", got)
	}
}

func TestWithoutEnvoy(t *testing.T) {
	b := newTestBackend(t, Config{})
	if s := b.Status(); s.State != "starting" {
		t.Errorf("status %+v", s)
	}
	if err := b.Enforce(patient(t), snapshot(1, httpSet(1, "GET"))); !errors.Is(err, redirect.ErrNotReady) {
		t.Errorf("Enforce gave %v", err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); !errors.Is(err, redirect.ErrNotReady) {
		t.Errorf("Serve gave %v", err)
	}
	f := connectFake(t, b, nil, nil)
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	// The stream breaks, rules change, the same Envoy comes back with what it has.
	f.stop()
	waitFor(t, func() bool { return b.Status().State == "down" })
	if err := b.Enforce(patient(t), snapshot(2, httpSet(9, "PUT"))); !errors.Is(err, redirect.ErrNotReady) {
		t.Errorf("Enforce gave %v", err)
	}
	f = connectFake(t, b, f.have, nil)
	if err := b.Enforce(patient(t), snapshot(2, httpSet(9, "PUT"))); err != nil {
		t.Fatal(err)
	}
	if got := allowed(t, f, pair{ingress: number}, ingressFilter); len(got) != 1 || got[0] != "PUT" {
		t.Errorf("after it came back ingress allows %v, want PUT", got)
	}
	if n := f.count(resource.ListenerType); n != 1 || len(f.responses[0].GetResources()) > 1 {
		t.Errorf("%d responses for listeners, want the first without news", n)
	}
}

func TestTakenPortIsTriedAgain(t *testing.T) {
	var tries atomic.Int32
	b := newTestBackend(t, Config{})
	connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if r.GetTypeUrl() == resource.ListenerType && len(r.GetResources()) > 0 && tries.Add(1) == 1 {
			return "cannot bind '127.0.0.1:1': Address already in use"
		}
		return ""
	})
	if err := b.Enforce(patient(t), snapshot(1, httpSet(1, "GET"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Egress: setID(1)}); err != nil || tries.Load() != 2 {
		t.Errorf("served after %d tries: %v", tries.Load(), err)
	}
}

func TestRefusedRouteLeavesNothing(t *testing.T) {
	for _, refuse := range []string{resource.ListenerType, resource.RouteType} {
		b := newTestBackend(t, Config{})
		connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
			if r.GetTypeUrl() == refuse && len(r.GetResources()) > 0 {
				return "unknown filter"
			}
			return ""
		})
		if err := b.Enforce(patient(t), snapshot(1, httpSet(1, "GET"))); err != nil {
			t.Fatal(err)
		}
		_, err := b.Serve(patient(t), redirect.Route{Egress: setID(1)})
		if refused := (*RefusedError)(nil); !errors.As(err, &refused) {
			t.Errorf("%s refused: Serve gave %v", refuse, err)
		}
		for _, typeURL := range []string{resource.ListenerType, resource.RouteType} {
			if n := b.store.caches[typeURL].NumResources(); n != 0 {
				t.Errorf("%s refused: %d of %s are left", refuse, n, typeURL)
			}
		}
	}
}

func TestRoutesAreCapped(t *testing.T) {
	b := newTestBackend(t, Config{MaxRoutes: 1})
	connectFake(t, b, nil, nil)
	if err := b.Enforce(patient(t), snapshot(1, httpSet(1, "GET"))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Egress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	// One more: what is needed no more stays for a moment.
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Errorf("the second route gave %v", err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Egress: setID(1), Ingress: setID(1)}); !errors.Is(err, ErrTooManyRoutes) {
		t.Errorf("the third route gave %v", err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{}); err == nil {
		t.Error("a route without sets is served")
	}
}

func TestEnforceWantsFittingNumbers(t *testing.T) {
	b := newTestBackend(t, Config{})
	set := httpSet(1, "GET")
	for name, s := range map[string]redirect.Snapshot{
		"zero":     {Sets: map[policy.SetID]redirect.NumberedSet{set.ID: {Set: set}}},
		"protocol": {Sets: map[policy.SetID]redirect.NumberedSet{set.ID: {Number: 4<<24 | 1, Set: set}}},
		"twice":    {Sets: map[policy.SetID]redirect.NumberedSet{setID(1): {Number: number, Set: set}, setID(2): {Number: number, Set: set}}},
	} {
		if err := b.Enforce(patient(t), s); err == nil || errors.Is(err, redirect.ErrNotReady) {
			t.Errorf("%s: Enforce gave %v", name, err)
		}
	}
}

func TestFreePort(t *testing.T) {
	port, err := freePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for network, addr := range map[string]string{"tcp4": loopback4, "tcp6": loopback6} {
		l, err := listen(t.Context(), network, addr, uint16(port))
		if err != nil {
			t.Fatalf("port %d is not free: %v", port, err)
		}
		defer l.Close()
		if got := netip.MustParseAddrPort(l.Addr().String()).Port(); got != uint16(port) {
			t.Errorf("listening on %d, want %d", got, port)
		}
	}
	if err := listening(t.Context(), port); err != nil {
		t.Error(err)
	}
}
