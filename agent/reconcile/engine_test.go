package reconcile

import (
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/redirect"
)

const l4 = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: web}
spec:
  endpointSelector: {matchLabels: {app: web}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
`

const l7 = l4 + `      rules: {http: [{method: GET}]}
`

func star(t *testing.T) *node {
	n := newNode(t)
	n.add("web", "10.0.0.1", map[string]string{"app": "web"})
	n.add("client", "10.0.0.2", map[string]string{"app": "client"})
	n.add("other", "10.0.0.3", map[string]string{"app": "other"})
	return n
}

func (n *node) want(from, to string, want policy.Verdict) {
	n.t.Helper()
	if got := n.verdict(from, to, 80); got != want {
		n.t.Errorf("%s → %s: %v, want %v", from, to, got, want)
	}
}

func TestPoliciesBecomeTables(t *testing.T) {
	n := star(t)
	n.want("10.0.0.3", "10.0.0.1", policy.Allow)
	n.apply(l4)
	n.want("10.0.0.2", "10.0.0.1", policy.Allow)
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
	n.apply(l7)
	n.want("10.0.0.2", "10.0.0.1", policy.Redirect)
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
	if _, _, err := n.engine.DeletePolicies(t.Context(), []string{"CiliumNetworkPolicy/default/web"}); err != nil {
		t.Fatal(err)
	}
	n.want("10.0.0.3", "10.0.0.1", policy.Allow)
}

func TestLabelsChangeWhatIsAllowed(t *testing.T) {
	n := star(t)
	n.apply(l4)
	if _, err := n.engine.LabelEndpoint(t.Context(), "default/other", map[string]string{"app": "client"}, nil); err != nil {
		t.Fatal(err)
	}
	n.want("10.0.0.3", "10.0.0.1", policy.Allow)
	if _, err := n.engine.LabelEndpoint(t.Context(), "default/client", nil, []string{"app"}); err != nil {
		t.Fatal(err)
	}
	n.want("10.0.0.2", "10.0.0.1", policy.Deny)
	if _, err := n.engine.LabelEndpoint(t.Context(), "default/nobody", nil, nil); !errors.Is(err, ErrNotFound) {
		t.Errorf("labelled an endpoint that is not there: %v", err)
	}
	// A label that claims another namespace would claim its rights.
	spoof := map[string]string{policy.KeyNamespace: "kube-system"}
	if _, err := n.engine.LabelEndpoint(t.Context(), "default/client", spoof, nil); err == nil {
		t.Error("an endpoint could label itself into another namespace")
	}
}

// The order of a change: sets before tables, tables before endpoints, the revision
// last; and the sets of the policy before stay known.
func TestOrderOfAChange(t *testing.T) {
	n := star(t)
	n.apply(l7)
	n.log = nil
	n.apply(strings.Replace(l7, "GET", "POST", 1))
	want := []string{"enforce 2 sets", "table 1", "revision 6"}
	if !slices.Equal(n.log, want) {
		t.Errorf("a policy change does %q, want %q", n.log, want)
	}
	n.log = nil
	n.add("late", "10.0.0.4", map[string]string{"app": "late"})
	last := n.log[len(n.log)-1]
	at := slices.IndexFunc(n.log, func(s string) bool { return strings.HasPrefix(s, "endpoint 10.0.0.4") })
	tables := slices.IndexFunc(n.log, func(s string) bool { return strings.HasPrefix(s, "table") })
	if at < 0 || tables < 0 || tables > at || !strings.HasPrefix(last, "revision") {
		t.Errorf("an endpoint had traffic before its policy was in force: %q", n.log)
	}
}

func TestBackendDownClosesOnlyItsPorts(t *testing.T) {
	n := star(t)
	n.backend.fail = redirect.ErrNotReady
	n.apply(l7)
	n.want("10.0.0.2", "10.0.0.1", policy.Redirect) // to a port that nobody serves
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
	wanted, enforced := n.engine.Revisions()
	if enforced >= wanted {
		t.Errorf("revision %d counts as in force, though no proxy has it", enforced)
	}
	n.backend.fail = nil
	if err := n.engine.Retry(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, enforced := n.engine.Revisions(); enforced != wanted {
		t.Errorf("after the proxy is back revision %d is in force, want %d", enforced, wanted)
	}
	if len(n.backend.last.Sets) != 1 {
		t.Errorf("the proxy got %d sets, want 1", len(n.backend.last.Sets))
	}
}

func TestFullMapClosesTheSubject(t *testing.T) {
	n := star(t)
	n.gate.failSync = errors.New("no room")
	ps, _ := decode.Decode("test.yaml", []byte(l4))
	if _, _, err := n.engine.ApplyPolicies(t.Context(), ps); err == nil {
		t.Error("a policy that could not be written counts as applied")
	}
	n.want("10.0.0.2", "10.0.0.1", policy.Deny)
	n.gate.failSync = nil
	if err := n.engine.Retry(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.want("10.0.0.2", "10.0.0.1", policy.Allow)
}

// A table of which only a part could be written stays closed until all of it is
// there: the part that is missing may be a deny.
func TestHalfWrittenTableIsWrittenWhole(t *testing.T) {
	n := star(t)
	n.gate.room = 2
	ps, err := decode.Decode("test.yaml", []byte(`
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: deny}
spec:
  endpointSelector: {matchLabels: {app: web}}
  enableDefaultDeny: {ingress: false}
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: other}}]
`))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.engine.ApplyPolicies(t.Context(), ps); err == nil {
		t.Fatal("a table that found no room counts as applied")
	}
	for range 2 { // whatever is tried again: denied until it is whole
		n.want("10.0.0.3", "10.0.0.1", policy.Deny)
		n.want("10.0.0.2", "10.0.0.1", policy.Deny)
		if err := n.engine.Retry(t.Context()); err == nil {
			t.Error("half a table counts as in force")
		}
	}
	if n.gate.revision != uint32(n.engine.revision) {
		t.Error("what other tables forbid does not bind open connections")
	}
	n.gate.room = 0
	if err := n.engine.Retry(t.Context()); err != nil {
		t.Fatal(err)
	}
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
	n.want("10.0.0.2", "10.0.0.1", policy.Allow)
}

// A start that fails leaves what is running as it is.
func TestFailedStartLeavesTheTables(t *testing.T) {
	n := star(t)
	n.apply(l4)
	e := New(Config{
		Gate: n.gate, Backend: n.backend, Cluster: policy.DefaultCluster, Logger: slog.New(slog.DiscardHandler),
		Save: func(State) error { return errors.New("no space left on device") },
	})
	if err := e.Start(t.Context(), n.state, n.policies()); err == nil {
		t.Fatal("started without being able to remember")
	}
	n.want("10.0.0.2", "10.0.0.1", policy.Allow)
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
}

// A restarted engine takes over without a moment in which the verdicts differ, and
// keeps the numbers that open connections carry.
func TestRestartKeepsNumbersAndVerdicts(t *testing.T) {
	n := star(t)
	n.apply(l7)
	before := n.gate.endpoints[netip.MustParseAddr("10.0.0.1")]
	sets := n.backend.last.Sets
	state, policies := n.state, n.policies()
	n.log = nil
	n.restart(state, policies)
	after := n.gate.endpoints[netip.MustParseAddr("10.0.0.1")]
	if after.Identity != before.Identity || after.Subject == before.Subject {
		t.Errorf("the endpoint went from %+v to %+v: want the same identity, another table", before, after)
	}
	for id, s := range n.backend.last.Sets {
		if sets[id].Number != s.Number {
			t.Errorf("set %x had number %x, has %x", id, sets[id].Number, s.Number)
		}
	}
	n.want("10.0.0.2", "10.0.0.1", policy.Redirect)
	n.want("10.0.0.3", "10.0.0.1", policy.Deny)
	if len(n.gate.tables) != 3 {
		t.Errorf("%d tables are in the gate, want 3: those of the agent before are left", len(n.gate.tables))
	}
}

// policies decodes what was saved, as an agent does.
func (n *node) policies() []*Policy {
	var out []*Policy
	for _, sp := range n.state.Policies {
		ps, err := decode.Decode(sp.Origin, []byte(sp.Source))
		if err != nil {
			n.t.Fatal(err)
		}
		for _, p := range ps {
			out = append(out, &Policy{Policy: p, Revision: sp.Revision})
		}
	}
	return out
}

func TestCIDRsGetIdentities(t *testing.T) {
	n := star(t)
	n.apply(`
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: cidr}
spec:
  endpointSelector: {matchLabels: {app: web}}
  egress:
  - toCIDRSet: [{cidr: 198.51.100.0/24, except: [198.51.100.128/25]}]
`)
	web := n.gate.endpoints[netip.MustParseAddr("10.0.0.1")]
	for prefix, want := range map[string]policy.Verdict{"198.51.100.0/24": policy.Allow, "198.51.100.128/25": policy.Deny} {
		id := n.gate.prefixes[netip.MustParsePrefix(prefix)]
		if !id.Local() {
			t.Fatalf("%s has identity %d, want a local one", prefix, id)
		}
		if got := lookup(n.gate.tables[web.Subject], id, policy.Egress, 443); got != want {
			t.Errorf("%s: %v, want %v", prefix, got, want)
		}
	}
	if _, _, err := n.engine.DeletePolicies(t.Context(), []string{"CiliumNetworkPolicy/default/cidr"}); err != nil {
		t.Fatal(err)
	}
	if id, ok := n.gate.prefixes[netip.MustParsePrefix("198.51.100.0/24")]; ok {
		t.Errorf("the CIDR keeps identity %d after its policy is gone", id)
	}
}

func TestOnePolicyTwiceIsRefusedWhole(t *testing.T) {
	n := star(t)
	a, _ := decode.Decode("a.yaml", []byte(l4))
	b, _ := decode.Decode("b.yaml", []byte(l7))
	if _, _, err := n.engine.ApplyPolicies(t.Context(), append(a, b...)); err == nil {
		t.Error("the same policy from two files was applied")
	}
	n.want("10.0.0.3", "10.0.0.1", policy.Allow)
}
