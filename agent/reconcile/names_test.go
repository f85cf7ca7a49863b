package reconcile

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/redirect"
)

const named = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: named}
spec:
  endpointSelector: {matchLabels: {app: a}}
  egress:
  - toFQDNs: [{matchName: api.example.com}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: /a}]}}]
  - toFQDNs: [{matchPattern: "*.example.com"}]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: /b}]}}]
  - toCIDR: [198.51.100.0/24]
`

func (n *node) nameTable(ip string) uint32 {
	return n.gate.names[n.gate.endpoints[netip.MustParseAddr(ip)].Subject]
}

// The proxy has a table before the gate names it, and the sets that a name leads to
// before anybody asks for it.
func TestNameTables(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.add("b", "10.0.0.2", map[string]string{"app": "b"})
	if n.nameTable("10.0.0.1") != 0 {
		t.Error("there is a table though no rule is about names")
	}
	n.apply(named)
	first := n.nameTable("10.0.0.1")
	names := n.backend.last.Names
	if first == 0 || n.nameTable("10.0.0.2") != 0 || names == nil || names.Tables[first] == nil {
		t.Fatalf("table %d of a, %d of b; the proxy has %+v", first, n.nameTable("10.0.0.2"), names)
	}
	if len(names.Endpoints) != 2 || names.Endpoints[0].Table != first || names.Endpoints[1].Table != 0 {
		t.Errorf("endpoints %+v", names.Endpoints)
	}
	if !slices.Contains(names.Prefixes, netip.MustParsePrefix("198.51.100.0/24")) {
		t.Errorf("prefixes %v", names.Prefixes)
	}
	world := netip.MustParsePrefix("0.0.0.0/0")
	known := func(m redirect.MissingSet) bool {
		_, sets := n.backend.last.Names.Tables[m.Table].Resolve(m.Prefix, m.Picked)
		for id := range sets {
			if s := n.backend.last.Names.Sets[id]; s == 0 || n.backend.last.Sets[id].Number != s {
				return false
			}
		}
		return len(sets) > 0
	}
	selectors := names.Tables[first].Selectors()
	for i := range selectors {
		if m := (redirect.MissingSet{Table: first, Prefix: world, Picked: pickedWith(selectors[i], selectors)}); !known(m) {
			t.Errorf("the set of %s is not made before", selectors[i])
		}
	}
	// One that only a name brings together is made when it is missed, and kept.
	api := slices.IndexFunc(selectors, func(f policy.FQDN) bool { return f.Name != "" })
	missed := redirect.MissingSet{Table: first, Prefix: world, Picked: []policy.FQDN{selectors[api]}}
	if known(missed) {
		t.Fatal("a set is made that no name leads to")
	}
	if err := n.engine.AddMissing(t.Context(), []redirect.MissingSet{missed}); err != nil || !known(missed) {
		t.Errorf("a set that was missed: %v", err)
	}
	n.add("c", "10.0.0.3", map[string]string{"app": "c"})
	if !known(missed) {
		t.Error("it is forgotten with the next change")
	}
	n.restart(n.state, n.policies())
	if !known(missed) {
		t.Error("it is forgotten by the next agent: connections that have it would end")
	}

	n.log = nil
	n.apply(strings.Replace(named, "path: /a", "path: /other", 1))
	if second := n.nameTable("10.0.0.1"); second == 0 || second == first {
		t.Errorf("other rules have table %d, and had %d", second, first)
	}

	// The next agent gives the same rules the same number.
	second := n.nameTable("10.0.0.1")
	policies := n.policies()
	n.restart(n.state, policies)
	if got := n.nameTable("10.0.0.1"); got != second {
		t.Errorf("after a restart table %d, before %d", got, second)
	}
	// One that remembers nothing gives none that the gate has.
	n.restart(State{Endpoints: n.state.Endpoints}, policies)
	if got := n.nameTable("10.0.0.1"); got <= second {
		t.Errorf("an agent without memory gives number %d, which may be another's", got)
	}
}

// Where each route has a port of its own, the proxy is told of a set that a name leads to
// when the gate has its port, and not before: an answer would overtake it. Ports for names
// count among those that there may be.
func TestNamesWaitForPorts(t *testing.T) {
	n := newNode(t)
	n.perRoute, n.maxRoutes = true, 4
	n.restart(n.state, nil)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.backend.told = func(s redirect.Snapshot) {
		for _, number := range s.Names.Sets {
			if n.gate.routes[bpf.Route{Egress: uint32(number)}] == 0 {
				t.Errorf("the proxy is told of set %#x, to which no port leads", uint32(number))
			}
		}
	}
	n.apply(named)
	if len(n.backend.last.Names.Sets) != 2 {
		t.Errorf("of the two sets the proxy knows %d in the end", len(n.backend.last.Names.Sets))
	}
	before := n.nameTable("10.0.0.1")
	var many string
	for i := range 5 {
		many += fmt.Sprintf("  - toFQDNs: [{matchName: n%d.example.com}]\n    toPorts: [{ports: [{port: \"80\", protocol: TCP}], rules: {http: [{path: /%d}]}}]\n", i, i)
	}
	ps, err := decode.Decode("test.yaml", []byte(named[:strings.Index(named, "  - toFQDNs")]+many))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := n.engine.ApplyPolicies(t.Context(), ps); !errors.Is(err, ErrRefused) {
		t.Errorf("more ports than there may be: %v, want that it is refused", err)
	}
	if got := n.nameTable("10.0.0.1"); got != before {
		t.Errorf("what was refused gave the endpoint table %d in place of %d", got, before)
	}
}

// While the datapath knows addresses as what they are no more, no new table is in force.
func TestStaleNames(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.apply(named)
	first := n.nameTable("10.0.0.1")
	n.backend.fail = fmt.Errorf("%w: %w", redirect.ErrNotReady, redirect.ErrStaleNames)
	n.apply(strings.Replace(named, "path: /a", "path: /other", 1))
	if got := n.nameTable("10.0.0.1"); got != 0 {
		t.Errorf("table %d is in force, and the one before was %d; want none", got, first)
	}
	n.backend.fail = redirect.ErrNotReady
	if err := n.engine.Retry(t.Context()); !errors.Is(err, redirect.ErrNotReady) {
		t.Error(err)
	}
	if got := n.nameTable("10.0.0.1"); got == 0 || got == first {
		t.Errorf("without a proxy, which writes the table as soon as it is there, table %d is in force", got)
	}
	n.backend.fail = nil
	if err := n.engine.Retry(t.Context()); err != nil {
		t.Error(err)
	}
	if got := n.nameTable("10.0.0.1"); got == 0 || got == first {
		t.Errorf("in the end table %d is in force", got)
	}
}

// An agent whose proxy does not answer in time leaves endpoints with the table of names that
// they have: it is the same one, and what they know goes on.
func TestNextAgentKeepsNames(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.apply(named)
	first, subject := n.nameTable("10.0.0.1"), n.gate.endpoints[netip.MustParseAddr("10.0.0.1")].Subject
	state, policies := n.state, n.policies()
	n.backend.fail = fmt.Errorf("%w: %w", redirect.ErrNotReady, redirect.ErrStaleNames)
	n.restart(state, policies)
	if now := n.gate.endpoints[netip.MustParseAddr("10.0.0.1")].Subject; now == subject {
		t.Errorf("the next agent gives subject %d, as the one before", now)
	}
	if got := n.nameTable("10.0.0.1"); got != first {
		t.Errorf("with the next agent table %d is in force, and was %d", got, first)
	}
	// If the gate did not have it, its names may be stale.
	n.gate.names[n.gate.endpoints[netip.MustParseAddr("10.0.0.1")].Subject] = first + 1
	n.restart(state, policies)
	if got := n.nameTable("10.0.0.1"); got != 0 {
		t.Errorf("table %d is in force for who had another", got)
	}
	n.backend.fail = nil
	if err := n.engine.Retry(t.Context()); err != nil || n.nameTable("10.0.0.1") != first {
		t.Errorf("in the end table %d is in force, want %d: %v", n.nameTable("10.0.0.1"), first, err)
	}
}

// An endpoint that comes while the datapath does not forget names stays closed where they
// matter: its number may be that of who learnt them.
func TestNewcomerWithStaleNames(t *testing.T) {
	n := newNode(t)
	n.add("a", "10.0.0.1", map[string]string{"app": "a"})
	n.add("b", "10.0.0.2", map[string]string{"app": "b"})
	n.apply(named)
	n.backend.fail = fmt.Errorf("%w: %w", redirect.ErrNotReady, redirect.ErrStaleNames)
	ready := func(ip string) bool { return n.gate.endpoints[netip.MustParseAddr(ip)].Ready }
	newcomer := func(name, ip, app string) error {
		_, err := n.engine.AddEndpoint(t.Context(), &endpoint.Endpoint{
			ID: uint16(len(n.gate.endpoints) + 1), Name: name, Namespace: "default", Labels: map[string]string{"app": app},
			IPs: []netip.Addr{netip.MustParseAddr(ip)}, Ifindex: len(n.gate.endpoints) + 10, MAC: "02:00:00:00:00:05",
		})
		return err
	}
	if err := newcomer("heir", "10.0.0.3", "a"); err == nil || ready("10.0.0.3") {
		t.Errorf("an endpoint with rules about names: %v, ready %t; want that it stays closed", err, ready("10.0.0.3"))
	}
	if err := newcomer("c", "10.0.0.4", "b"); err != nil || !ready("10.0.0.4") {
		t.Errorf("one without: %v, ready %t", err, ready("10.0.0.4"))
	}
	if !ready("10.0.0.1") || n.nameTable("10.0.0.1") == 0 {
		t.Error("who was there before has no names any more")
	}
	if err := n.engine.Retry(t.Context()); !errors.Is(err, redirect.ErrStaleNames) || ready("10.0.0.3") {
		t.Errorf("tried again: %v, ready %t", err, ready("10.0.0.3"))
	}
	_, _ = n.engine.LabelEndpoint(t.Context(), "default/c", map[string]string{"app": "a"}, nil)
	if ready("10.0.0.4") {
		t.Error("one that came without rules about names has traffic by some that are not its own")
	}
	n.backend.fail = nil
	if err := n.engine.Retry(t.Context()); err != nil || !ready("10.0.0.3") || !ready("10.0.0.4") {
		t.Errorf("in the end: %v, ready %t and %t", err, ready("10.0.0.3"), ready("10.0.0.4"))
	}
}

// A set that names lead to as well does not leave its number to another: until the gate has
// the new table, connections to names would be judged by rules that are not theirs.
func TestNamesKeepNumbers(t *testing.T) {
	world := named[:strings.Index(named, "  - toFQDNs")] + `  - toEntities: [world]
    toPorts: [{ports: [{port: "80", protocol: TCP}], rules: {http: [{path: /x}]}}]
`
	names := `  - toFQDNs: [{matchPattern: "*.example.com"}]
    toPorts: [{ports: [{port: "81", protocol: TCP}], rules: {http: [{path: /n}]}}]
`
	for doc, inherits := range map[string]bool{world: true, world + names: false} {
		n := newNode(t)
		n.perRoute = true
		n.restart(n.state, nil)
		n.add("a", "10.0.0.1", map[string]string{"app": "a"})
		n.apply(doc)
		before := map[redirect.SetNumber]policy.SetID{}
		for id, s := range n.backend.last.Sets {
			before[s.Number] = id
		}
		n.apply(strings.Replace(doc, "path: /x", "path: /y", 1))
		inherited := false
		for id, s := range n.backend.last.Sets {
			old, was := before[s.Number]
			inherited = inherited || was && old != id
		}
		if inherited != inherits {
			t.Errorf("the new set has the number of the old: %t, want %t, for%s", inherited, inherits, doc)
		}
	}
}
