// Package policytest is a small world that tests of policies ask questions of.
package policytest

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/policy"
)

// Decode reads a file of policies.
type Decode func(file string, data []byte) ([]policy.Policy, error)

// Setup is what there is in the world beside what always is.
type Setup struct {
	Services []policy.Service
	Names    map[string][]string          // DNS names and their addresses
	Nodes    map[string]map[string]string // names of nodes, as "n1", and their labels
}

// Cluster is a world: workloads named "namespace/app", whose label app is their
// name and whose service account too; web calls 8080/TCP http.
type Cluster struct {
	t     *testing.T
	rules []policy.Rule
	ids   *policy.Identities
	names map[string]policy.Identity
	nodes map[string]bool
	audit bool
}

var reserved = map[string]policy.Identity{
	"host": policy.IdentityHost, "health": policy.IdentityHealth, "init": policy.IdentityInit,
	"remote-node": policy.IdentityRemoteNode, "kube-apiserver": policy.IdentityKubeAPIServer,
	"ingress": policy.IdentityIngress, "unmanaged": policy.IdentityUnmanaged, "world": policy.IdentityWorld,
}

// New makes a world with policies.
func New(t *testing.T, decode Decode, setup Setup, documents ...string) *Cluster {
	t.Helper()
	c := &Cluster{t: t, ids: policy.NewIdentities(), names: map[string]policy.Identity{}, nodes: map[string]bool{}}
	objects := policy.Objects{Services: setup.Services}
	for i, doc := range documents {
		policies, err := decode(fmt.Sprintf("policy %d", i), []byte(doc))
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range policies {
			c.rules = append(c.rules, p.Rules...)
		}
		objects.AddGroups(policies...)
	}
	c.rules = objects.Expand(c.rules)
	for i, name := range []string{"default/web", "default/db", "default/client", "shop/web", "shop/client", "kube-system/dns"} {
		namespace, app, _ := strings.Cut(name, "/")
		labels, err := policy.EndpointLabels(namespace, app, "", map[string]string{"team": namespace + "-team"}, map[string]string{"app": app})
		if err != nil {
			t.Fatal(err)
		}
		info := policy.IdentityInfo{ID: policy.IdentityMinWorkload + policy.Identity(i), Labels: labels}
		if app == "web" {
			info.NamedPorts = policy.NamedPorts{"http": {{Proto: policy.ProtoTCP, Port: 8080}}}
		}
		c.add(name, info)
	}
	c.addLocal(setup)
	maps.Copy(c.names, reserved)
	return c
}

// addLocal adds what only the node knows: prefixes, named addresses, nodes.
func (c *Cluster) addLocal(setup Setup) {
	named := map[netip.Prefix][]string{}
	for _, p := range policy.Prefixes(c.rules) {
		named[p] = nil
	}
	for _, name := range slices.Sorted(maps.Keys(setup.Names)) {
		for _, ip := range setup.Names[name] {
			addr := netip.MustParseAddr(ip)
			p := netip.PrefixFrom(addr, addr.BitLen())
			named[p] = append(named[p], name)
		}
	}
	next := policy.IdentityMinLocal
	for _, p := range slices.SortedFunc(maps.Keys(named), netip.Prefix.Compare) {
		c.add(p.String(), policy.IdentityInfo{ID: next, Prefix: p, Labels: policy.NamedLabels(p, named[p]...)})
		next++
	}
	for _, name := range slices.Sorted(maps.Keys(setup.Nodes)) {
		labels, err := policy.NodeLabels(false, setup.Nodes[name])
		if err != nil {
			c.t.Fatal(err)
		}
		c.add(name, policy.IdentityInfo{ID: next, Labels: labels})
		c.nodes[name] = true
		next++
	}
}

func (c *Cluster) add(name string, info policy.IdentityInfo) {
	c.t.Helper()
	if err := c.ids.Add(info); err != nil {
		c.t.Fatal(err)
	}
	c.names[name] = info.ID
}

// Audit makes the world answer as if the policies that audit enforced.
func (c *Cluster) Audit() *Cluster { c.audit = true; return c }

// identity finds a workload, a node or an entity by name, or an address by the
// longest prefix.
func (c *Cluster) identity(name string) policy.Identity {
	c.t.Helper()
	if id, ok := c.names[name]; ok {
		return id
	}
	addr := netip.MustParseAddr(name)
	id, bits := policy.IdentityWorldIPv4, -1
	if addr.Is6() {
		id = policy.IdentityWorldIPv6
	}
	c.ids.Each(func(info policy.IdentityInfo) bool {
		if info.Prefix.IsValid() && info.Prefix.Contains(addr) && info.Prefix.Bits() > bits {
			id, bits = info.ID, info.Prefix.Bits()
		}
		return true
	})
	return id
}

var protos = map[string]policy.Proto{
	"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP, "ICMP": policy.ProtoICMP, "ICMPv6": policy.ProtoICMPv6,
}

// Ask answers "ingress default/web < default/client TCP 80" as a verdict, a
// space, and the rule; with a request behind it, for that request. A request is
// "GET /path", or one word as "dns=www.example.com", "sni=www.example.com",
// "grpc=pkg.Service/Method" or "kafka=produce,topic=t,client=c,group=g,txn=x".
func (c *Cluster) Ask(question string) string {
	c.t.Helper()
	words := strings.Fields(question)
	dir := policy.Ingress
	if words[0] == "egress" {
		dir = policy.Egress
	}
	var port uint16
	if _, err := fmt.Sscan(words[5], &port); err != nil {
		c.t.Fatal(err)
	}
	info, ok := c.ids.Get(c.identity(words[1]))
	if !ok || protos[words[4]] == 0 {
		c.t.Fatal(question)
	}
	resolve := policy.Resolve
	if c.audit {
		resolve = policy.ResolveAudit
	}
	table, sets := resolve(policy.Subject{Labels: info.Labels, NamedPorts: info.NamedPorts, Node: c.nodes[words[1]]}, c.rules, c.ids)
	e := table.Lookup(c.identity(words[3]), dir, protos[words[4]], port)
	var ref policy.Ref
	if e.Rule != 0 {
		ref = table.Rules[e.Rule-1]
	}
	if len(words) < 7 {
		return strings.TrimSpace(e.Verdict.String() + " " + ref.String())
	}
	if e.Verdict != policy.Redirect {
		c.t.Fatalf("%s: no L7 rules there, %s", question, e.Verdict)
	}
	judge, err := policy.CompileSet(sets[e.Set])
	if err != nil {
		c.t.Fatal(err)
	}
	d := judge.Decide(c.request(words[6:]))
	return strings.TrimSpace(d.Verdict.String() + " " + d.Rule.String())
}

func (c *Cluster) request(words []string) policy.Request {
	kind, text, special := strings.Cut(words[0], "=")
	if !special {
		r := &policy.HTTPRequest{Method: []byte(words[0]), Path: []byte(words[1])}
		for _, w := range words[2:] {
			name, value, _ := strings.Cut(w, ":")
			r.Headers = append(r.Headers, policy.HTTPHeader{Name: []byte(name), Value: []byte(value)})
		}
		return r
	}
	switch kind {
	case "dns":
		return &policy.DNSRequest{Name: text, Type: 1}
	case "sni":
		return &policy.TLSRequest{ServerName: text}
	case "grpc":
		service, method, _ := strings.Cut(text, "/")
		return &policy.GRPCRequest{Service: []byte(service), Method: []byte(method)}
	case "kafka":
		return c.kafka(strings.Split(text, ","))
	}
	c.t.Fatalf("%q is no request", words[0])
	return nil
}

func (c *Cluster) kafka(parts []string) policy.Request {
	key, ok := policy.KafkaAPI(parts[0])
	if !ok {
		key = 999
	}
	r := &policy.KafkaRequest{APIKey: key}
	for _, p := range parts[1:] {
		name, value, _ := strings.Cut(p, "=")
		switch name {
		case "topic":
			r.Topic = value
		case "client":
			r.ClientID = value
		case "group":
			r.Group = value
		case "txn":
			r.TransactionalID = value
		case "version":
			if _, err := fmt.Sscan(value, &r.APIVersion); err != nil {
				c.t.Fatal(err)
			}
		default:
			c.t.Fatalf("%q is no part of a request", p)
		}
	}
	return r
}

// Expect holds questions against the beginnings of their answers.
func (c *Cluster) Expect(questions map[string]string) {
	c.t.Helper()
	for _, q := range slices.Sorted(maps.Keys(questions)) {
		if got := c.Ask(q); got != questions[q] && !strings.HasPrefix(got, questions[q]+" ") {
			c.t.Errorf("%s: %s, want %s", q, got, questions[q])
		}
	}
}
