package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"testing"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/redirect"
)

// fakeGate is a gate in memory, which writes down what happens to it.
type fakeGate struct {
	endpoints map[netip.Addr]bpf.Endpoint
	prefixes  map[netip.Prefix]policy.Identity
	tables    map[uint32]bpf.PolicyTable
	revision  uint32
	closed    map[uint32]bool
	log       *[]string
	failSync  error
	room      int // entries that a table may have; 0: any number
	spareRoom int // prefixes, likewise
	settings  bpf.Settings
	names     map[uint32]uint32 // tables of rules about names, by subject
	routes    map[bpf.Route]uint16
}

func newFakeGate(log *[]string) *fakeGate {
	return &fakeGate{
		endpoints: map[netip.Addr]bpf.Endpoint{}, prefixes: map[netip.Prefix]policy.Identity{},
		tables: map[uint32]bpf.PolicyTable{}, closed: map[uint32]bool{}, log: log, names: map[uint32]uint32{}, routes: map[bpf.Route]uint16{},
	}
}

func (g *fakeGate) note(format string, args ...any) {
	*g.log = append(*g.log, fmt.Sprintf(format, args...))
}

func (g *fakeGate) SetEndpoint(e bpf.Endpoint) error {
	g.note("endpoint %s subject %d ready %t", e.Addr, e.Subject, e.Ready)
	g.endpoints[e.Addr] = e
	return nil
}

func (g *fakeGate) DeleteEndpoint(a netip.Addr) error {
	g.note("delete endpoint %s", a)
	delete(g.endpoints, a)
	return nil
}

func (g *fakeGate) Endpoints() (out []bpf.Endpoint, err error) {
	for _, e := range g.endpoints {
		out = append(out, e)
	}
	return out, nil
}

func (g *fakeGate) SetIdentity(p netip.Prefix, id policy.Identity) error {
	g.note("identity %s", p)
	g.prefixes[p] = id
	return nil
}

func (g *fakeGate) SetSpareIdentity(p netip.Prefix, id policy.Identity) error {
	if g.spareRoom > 0 && len(g.prefixes) >= g.spareRoom {
		return errors.New("no room")
	}
	return g.SetIdentity(p, id)
}

func (g *fakeGate) ClosePolicy(subject uint32) error {
	g.note("close %d", subject)
	g.closed[subject] = true
	return nil
}

func (g *fakeGate) SetSettings(s bpf.Settings) error {
	g.settings = s
	return nil
}

func (g *fakeGate) DeleteIdentity(p netip.Prefix) error {
	g.note("delete identity %s", p)
	delete(g.prefixes, p)
	return nil
}

func (g *fakeGate) Identities() (map[netip.Prefix]policy.Identity, error) {
	return maps.Clone(g.prefixes), nil
}

func (g *fakeGate) SyncPolicy(subject uint32, old, want bpf.PolicyTable) error {
	if g.failSync != nil {
		g.tables[subject] = bpf.PolicyTable{}
		return g.failSync
	}
	g.note("table %d", subject)
	table := g.tables[subject]
	if table == nil {
		table = bpf.PolicyTable{}
	}
	g.tables[subject] = table
	for k, e := range want { // only what differs is written, as in the kernel
		if o, ok := old[k]; ok && o == e {
			continue
		}
		if _, known := table[k]; !known && g.room > 0 && len(table) >= g.room {
			g.closed[subject] = true
			return errors.New("no room")
		}
		table[k] = e
	}
	for k := range old {
		if _, ok := want[k]; !ok {
			delete(table, k)
		}
	}
	delete(g.closed, subject)
	return nil
}

func (g *fakeGate) DeletePolicy(subject uint32, _ bpf.PolicyTable) error {
	for _, e := range g.endpoints {
		if e.Subject == subject {
			return fmt.Errorf("table %d is still in use by %s", subject, e.Addr)
		}
	}
	g.note("delete table %d", subject)
	delete(g.tables, subject)
	return nil
}

func (g *fakeGate) Policies() (map[uint32]bpf.PolicyTable, error) { return maps.Clone(g.tables), nil }
func (g *fakeGate) Routes() (map[bpf.Route]uint16, error)         { return maps.Clone(g.routes), nil }
func (g *fakeGate) SetRoute(r bpf.Route, port uint16) error {
	g.routes[r] = port
	return nil
}

func (g *fakeGate) Revision() (uint32, error) { return g.revision, nil }
func (g *fakeGate) SetRevision(r uint32) error {
	g.note("revision %d", r)
	g.revision = r
	return nil
}

// fakeBackend remembers the snapshots it got.
func (g *fakeGate) SetNameTable(subject, table uint32) error {
	g.names[subject] = table
	return nil
}

func (g *fakeGate) NameTables() (map[uint32]uint32, error) { return g.names, nil }

type fakeBackend struct {
	log  *[]string
	fail error
	last redirect.Snapshot
	told func(redirect.Snapshot)
}

func (b *fakeBackend) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolHTTP} }
func (b *fakeBackend) Status() redirect.Status      { return redirect.Status{} }
func (b *fakeBackend) Serve(context.Context, redirect.Route) (redirect.ProxyPort, error) {
	return 1, nil
}

func (b *fakeBackend) Enforce(_ context.Context, s redirect.Snapshot) error {
	if b.fail != nil {
		return b.fail
	}
	*b.log = append(*b.log, fmt.Sprintf("enforce %d sets", len(s.Sets)))
	if b.told != nil {
		b.told(s)
	}
	b.last = s
	return nil
}

// node is an engine over fakes.
type node struct {
	t       *testing.T
	log     []string
	gate    *fakeGate
	backend *fakeBackend
	state   State
	engine  *Engine

	perRoute  bool // HTTP has a port for each route
	maxRoutes int
}

func newNode(t *testing.T) *node {
	n := &node{t: t}
	n.gate, n.backend = newFakeGate(&n.log), &fakeBackend{log: &n.log}
	n.restart(State{}, nil)
	return n
}

// restart starts another engine over the same gate.
func (n *node) restart(s State, policies []*Policy) {
	n.engine = New(Config{
		Gate: n.gate, Backend: n.backend, Cluster: policy.DefaultCluster, Logger: slog.New(slog.DiscardHandler),
		Fixed: map[netip.Prefix]policy.Identity{netip.MustParsePrefix("192.0.2.1/32"): policy.IdentityHost},
		Save:  func(s State) error { n.state = s; return nil },

		PerRoute: func(policy.Protocol) bool { return n.perRoute }, MaxRoutes: n.maxRoutes,
	})
	if err := n.engine.Start(n.t.Context(), s, policies); err != nil && !errors.Is(err, redirect.ErrNotReady) {
		n.t.Fatal(err)
	}
}

func (n *node) add(name, ip string, labels map[string]string) *endpoint.Endpoint {
	n.t.Helper()
	e, err := n.engine.AddEndpoint(n.t.Context(), &endpoint.Endpoint{
		ID: uint16(len(n.gate.endpoints) + 1), Name: name, Namespace: "default", Labels: labels,
		IPs: []netip.Addr{netip.MustParseAddr(ip)}, Ifindex: len(n.gate.endpoints) + 10, MAC: "02:00:00:00:00:05",
	})
	if err != nil {
		n.t.Fatal(err)
	}
	return e
}

func (n *node) apply(doc string) {
	n.t.Helper()
	ps, err := decode.Decode("test.yaml", []byte(doc))
	if err == nil {
		_, _, err = n.engine.ApplyPolicies(n.t.Context(), ps)
	}
	if err != nil && !errors.Is(err, redirect.ErrNotReady) {
		n.t.Fatal(err)
	}
}

// verdict looks a connection up as the kernel would.
func (n *node) verdict(from, to string, port uint16) policy.Verdict {
	n.t.Helper()
	src, ok1 := n.gate.endpoints[netip.MustParseAddr(from)]
	dst, ok2 := n.gate.endpoints[netip.MustParseAddr(to)]
	if !ok1 || !ok2 || !src.Ready || !dst.Ready || n.gate.closed[src.Subject] || n.gate.closed[dst.Subject] {
		return policy.Deny
	}
	if lookup(n.gate.tables[src.Subject], dst.Identity, policy.Egress, port) == policy.Deny {
		return policy.Deny
	}
	return lookup(n.gate.tables[dst.Subject], src.Identity, policy.Ingress, port)
}

func lookup(table bpf.PolicyTable, peer policy.Identity, d policy.Direction, port uint16) policy.Verdict {
	t := policy.Table{Entries: map[policy.Key]policy.Entry{}}
	for k, e := range table {
		t.Entries[k] = policy.Entry{Verdict: e.Verdict}
	}
	return t.Lookup(peer, d, policy.ProtoTCP, port).Verdict
}
