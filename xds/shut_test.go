package xds

import (
	"strings"
	"sync/atomic"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// servedTLS serves two sets that end TLS and ask for names.
func servedTLS(t *testing.T, b *Backend) {
	t.Helper()
	if err := b.Enforce(patient(t), secretsFor(t, 1, endsOf(1, "a.example"), endsOf(2, "b.example"))); err != nil {
		t.Fatal(err)
	}
	for _, n := range []byte{1, 2} {
		if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(n)}); err != nil {
			t.Fatal(err)
		}
	}
}

// offers reports whether a response has the resource, as one of some.
func offers(r *discoveryv3.DeltaDiscoveryResponse, typeURL, text string) bool {
	return r.GetTypeUrl() == typeURL && strings.Contains(r.String(), text)
}

// TestRefusedListenerCloses: a listener that Envoy refuses closes what comes, until it is
// to be another; what else changes is in force, then and later.
func TestRefusedListenerCloses(t *testing.T) {
	var refusals atomic.Int32
	refuse := func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if offers(r, resource.ListenerType, "worse") {
			refusals.Add(1)
			return "no such matcher"
		}
		return ""
	}
	const open, shut = "carried closed carried2 refused", "idle closed"
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, refuse)
	servedTLS(t, b)
	bad, good := pair{ingress: number}, pair{ingress: number + 1}
	check := func(what string, revision uint64, sets []*policy.L7Set, chain, why string) {
		t.Helper()
		err := b.Enforce(patient(t), secretsFor(t, revision, sets...))
		if got := failure(err); (got == "") != (why == "") || !strings.Contains(got, why) || why == "" && err != nil {
			t.Errorf("%s: %v, want %q", what, err, why)
		}
		if got := chains(t, f, bad); got != chain {
			t.Errorf("%s: the listener has the chains %s, want %s", what, got, chain)
		}
		if got := chains(t, f, good); got != open {
			t.Errorf("%s: the other has the chains %s, want %s", what, got, open)
		}
	}
	check("refused", 2, []*policy.L7Set{endsOf(3, "worse.example"), endsOf(4, "c.example")}, shut, "no such matcher")
	check("still", 3, []*policy.L7Set{endsOf(3, "worse.example"), endsOf(5, "d.example")}, shut, "no such matcher")
	if n := refusals.Load(); n != 1 {
		t.Errorf("it was offered %d times", n)
	}
	if port, err := b.Serve(patient(t), redirect.Route{Ingress: setID(3)}); err != nil || port == 0 {
		t.Errorf("it is served by %d, %v", port, err)
	}
	check("another", 4, []*policy.L7Set{endsOf(6, "e.example"), endsOf(5, "d.example")}, open, "")

	// An Envoy that comes anew is told of all at once, and refuses all for one.
	f.stop()
	waitFor(t, func() bool { return b.Status().State == "down" })
	if err := b.Enforce(patient(t), secretsFor(t, 5, endsOf(7, "worse.example"), endsOf(5, "d.example"))); err == nil {
		t.Error("rules are in force without Envoy")
	}
	f = connectFake(t, b, nil, refuse)
	check("anew", 6, []*policy.L7Set{endsOf(7, "worse.example"), endsOf(5, "d.example")}, shut, "no such matcher")
}

// TestRefusedClusterCloses: where Envoy refuses the cluster that connections are to lead
// to, its listeners close, and no other.
func TestRefusedClusterCloses(t *testing.T) {
	var refusing atomic.Bool
	refusing.Store(true)
	b := newTestBackend(t, Config{})
	f := connectFake(t, b, nil, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if refusing.Load() && offers(r, resource.ClusterType, trustedSecret) {
			return "no such option"
		}
		return ""
	})
	plain := httpSet(2, "GET")
	for revision := uint64(1); revision < 3; revision++ {
		err := b.Enforce(patient(t), secretsFor(t, revision, endsOf(1), plain))
		if got := failure(err); revision > 1 && !strings.Contains(got, "no such option") {
			t.Errorf("Enforce gave %v", err)
		}
		for _, n := range []byte{1, 2} {
			if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(n)}); err != nil {
				t.Fatal(err)
			}
		}
		if got := chains(t, f, pair{ingress: number}); got != "idle closed" {
			t.Errorf("the listener has the chains %s", got)
		}
		if s := b.Status(); !strings.Contains(s.Detail, "no such option") {
			t.Errorf("status says %q", s.Detail)
		}
	}
	// Once nobody needs it, it is forgotten.
	refusing.Store(false)
	if err := b.Enforce(patient(t), secretsFor(t, 3, endsOf(1))); failure(err) == "" {
		t.Errorf("Enforce gave %v while it is needed", err)
	}
	if err := b.Enforce(patient(t), snapshot(4, plain)); err != nil {
		t.Fatal(err)
	}
	if err := b.Enforce(patient(t), secretsFor(t, 5, endsOf(1))); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Serve(patient(t), redirect.Route{Ingress: setID(1)}); err != nil {
		t.Fatal(err)
	}
	if got := chains(t, f, pair{ingress: number}); got != "carried closed carried2" {
		t.Errorf("once Envoy takes the cluster the listener has the chains %s", got)
	}
}
