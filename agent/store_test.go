package agent

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/policy"
)

func TestStateSurvives(t *testing.T) {
	s, err := newStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if state, err := s.load(); err != nil || len(state.Endpoints) != 0 {
		t.Fatalf("a new store holds %+v, %v", state, err)
	}
	want := reconcile.State{
		Endpoints: []*endpoint.Endpoint{{
			ID: 7, Name: "web", Namespace: "shop", Labels: map[string]string{"app": "web"},
			IPs: []netip.Addr{netip.MustParseAddr("10.0.0.7")}, Interface: "hg00007", Ifindex: 12,
			Ports: map[string]policy.NamedPort{"http": {Proto: policy.ProtoTCP, Port: 80}},
		}},
		Namespaces: map[string]map[string]string{"shop": {"team": "a"}},
		Policies:   []reconcile.StoredPolicy{{Key: "k", Origin: "f.yaml", Source: "x: y", Revision: 3}},
		Revision:   9,
	}
	if err := s.save(want); err != nil {
		t.Fatal(err)
	}
	got, err := s.load()
	if err != nil {
		t.Fatal(err)
	}
	e := got.Endpoints[0]
	if e.Key() != "shop/web" || e.IPs[0] != want.Endpoints[0].IPs[0] || e.Ports["http"].Port != 80 || e.Ifindex != 12 ||
		got.Namespaces["shop"]["team"] != "a" || got.Policies[0] != want.Policies[0] || got.Revision != 9 {
		t.Errorf("read back %+v", got)
	}
	info, err := os.Stat(s.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the state has mode %v, %v", info.Mode(), err)
	}
}

// An agent that cannot read its state must not start without it: that would let
// through what a remembered policy denies.
func TestUnreadableStateIsAnError(t *testing.T) {
	s, err := newStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for content, want := range map[string]string{
		"{": "move the file away", `{"version": 99}`: "version 99", "": "move the file away",
	} {
		if err := os.WriteFile(s.path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.load(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("state %q: %v, want an error with %q", content, err, want)
		}
	}
}

func TestRememberedPolicyThatIsNoLongerUnderstood(t *testing.T) {
	_, err := policiesOf(reconcile.State{Policies: []reconcile.StoredPolicy{{
		Key: "CiliumNetworkPolicy/default/x", Origin: "x.yaml",
		Source: "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\nspec: {endpointSelector: {}, ingres: [{}]}\n",
	}}})
	if err == nil || !strings.Contains(err.Error(), "default/x") {
		t.Errorf("got %v, want an error that names the policy", err)
	}
}
