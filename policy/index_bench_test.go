package policy

import (
	"fmt"
	"net/netip"
	"testing"
)

// benchWorld is a cluster as large as one wants: namespaces of 100 workloads each
// of another kind, and for each kind of workload policies that let some kinds of
// its namespace, the ingress namespace, some addresses or the cluster call it.
type benchWorld struct{ policies, identities int }

const benchNamespace = 100 // workloads of a namespace

func (w benchWorld) name(i int) (namespace, app string) {
	i %= w.identities
	return fmt.Sprint("ns-", i/benchNamespace), fmt.Sprint("app-", i%benchNamespace)
}

func (w benchWorld) key(i int) string { return fmt.Sprintf("policy-%06d", i) }

func (w benchWorld) labels(i int, namespaceLabel string) Labels {
	namespace, app := w.name(i)
	labels, err := EndpointLabels(namespace, app, "", map[string]string{"team": namespaceLabel},
		map[string]string{"app": app, "tier": fmt.Sprint("tier-", i%4), "version": fmt.Sprint("v", i%3)})
	if err != nil {
		panic(err)
	}
	return labels
}

func (w benchWorld) identity(i int) IdentityInfo {
	return IdentityInfo{ID: IdentityMinWorkload + Identity(i), Labels: w.labels(i, "blue")}
}

// prefix is one of the ranges of addresses that policies name: one in ten names one.
func (w benchWorld) prefix(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 0}), 24)
}

// rules are those of one policy, all but each fiftieth about their namespace.
func (w benchWorld) rules(i int, port uint16) []Rule {
	namespace, app := w.name(i)
	in := func(key string, values ...string) Requirement { return Requirement{SourceK8s, key, OpIn, values} }
	ref := Ref{w.key(i), "ingress[0]"}
	rule := Rule{
		Subject:     Selector{[]Requirement{in("app", app), in(KeyNamespace, namespace)}},
		DefaultDeny: true,
		Ref:         ref,
		Ports:       []PortRule{{Proto: ProtoTCP, First: port, Last: port, Ref: ref}, {Proto: ProtoTCP, First: 8000, Last: 8099, Ref: ref}},
	}
	switch {
	case i%50 == 49:
		rule.Peers = []Peer{EntityCluster}
	case i%10 == 8:
		rule.Peers = []Peer{CIDR{Prefix: w.prefix(i)}}
	case i%10 == 7:
		rule.Peers = []Peer{Selector{[]Requirement{in(KeyNamespace, "ns-0")}}}
	case i%10 == 6:
		rule.Peers = []Peer{Selector{[]Requirement{in(PrefixOfNamespaceLabels+"team", "green")}}}
	default:
		rule.Peers = []Peer{Selector{[]Requirement{in("tier", fmt.Sprint("tier-", i%4)), in(KeyNamespace, namespace)}}}
	}
	if i%3 == 0 {
		rule.Ports[0].L7 = &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Method: "GET", Path: "/" + app + "/.*", Ref: ref}}}
	}
	return []Rule{rule}
}

// benchIndex makes an index of a cluster, with the subjects of one node: the
// first workloads of namespaces.
func benchIndex(policies, identities, subjects int) (*Index, benchWorld) {
	w := benchWorld{policies, identities}
	x := NewIndex()
	for i := range identities {
		if err := x.SetIdentity(w.identity(i)); err != nil {
			panic(err)
		}
	}
	for i := range policies {
		if i%10 == 8 {
			if err := x.SetIdentity(IdentityInfo{ID: IdentityMinLocal + Identity(i), Prefix: w.prefix(i)}); err != nil {
				panic(err)
			}
		}
		x.SetPolicy(w.key(i), w.rules(i, 80))
	}
	for i := range subjects {
		x.SetSubject(fmt.Sprint(i), Subject{Labels: w.labels(i, "blue")})
	}
	return x, w
}

// BenchmarkResolveIndex measures the tables of the 250 workloads of a node, from
// scratch and after one change.
func BenchmarkResolveIndex(b *testing.B) {
	const subjects = 250
	for _, size := range [][2]int{{1000, 10000}, {10000, 10000}} {
		name := fmt.Sprintf("policies=%d/identities=%d", size[0], size[1])
		b.Run(name+"/scratch", func(b *testing.B) {
			for b.Loop() {
				x, _ := benchIndex(size[0], size[1], subjects)
				x.Changes()
			}
		})
		b.Run(name+"/plain-one-subject", func(b *testing.B) {
			x, w := benchIndex(size[0], size[1], 0)
			var rules []Rule
			for i := range size[0] {
				rules = append(rules, w.rules(i, 80)...)
			}
			for b.Loop() {
				Resolve(Subject{Labels: w.labels(3, "blue")}, rules, x.Identities())
			}
		})
		x, w := benchIndex(size[0], size[1], subjects)
		x.Changes()
		for _, change := range benchChanges(x, w) {
			b.Run(name+"/change="+change.name, func(b *testing.B) {
				tables, n := 0, 0
				for b.Loop() {
					change.make(n)
					tables += len(x.Changes())
					n++
				}
				b.ReportMetric(float64(tables)/float64(n), "tables/op")
			})
		}
	}
}

type benchChange struct {
	name string
	make func(n int) // with an even number it does what an odd one undoes
}

func benchChanges(x *Index, w benchWorld) []benchChange {
	set := func(info IdentityInfo) {
		if err := x.SetIdentity(info); err != nil {
			panic(err)
		}
	}
	label := func(i, n int, with string) {
		info := w.identity(i)
		if n%2 == 0 {
			info.Labels = w.labels(i, with)
		}
		set(info)
		if i < 250 {
			x.SetSubject(fmt.Sprint(i), Subject{Labels: info.Labels})
		}
	}
	return []benchChange{
		{"policy", func(n int) { x.SetPolicy(w.key(3), w.rules(3, uint16(81+n%2))) }},
		{"policy-for-the-cluster", func(n int) { x.SetPolicy(w.key(49), w.rules(49, uint16(81+n%2))) }},
		{"policy-elsewhere", func(n int) { x.SetPolicy(w.key(900), w.rules(900, uint16(81+n%2))) }},
		{"identity-added", func(n int) {
			if info := w.identity(w.identities + 50); n%2 == 0 {
				set(info)
			} else {
				x.RemoveIdentity(info.ID)
			}
		}},
		{"label", func(n int) { label(5, n, "red") }},
		{"namespace-label", func(n int) {
			for i := range benchNamespace {
				label(i, n, "green")
			}
		}},
	}
}
