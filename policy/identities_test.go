package policy

import (
	"net/netip"
	"slices"
	"testing"
)

func labelsOf(t *testing.T, namespace string, labels map[string]string) Labels {
	t.Helper()
	l, err := EndpointLabels(namespace, "", "", nil, labels)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func add(t *testing.T, ids *Identities, info IdentityInfo) {
	t.Helper()
	if err := ids.Add(info); err != nil {
		t.Fatal(err)
	}
}

func TestIdentities(t *testing.T) {
	ids := NewIdentities()
	app := func(v string) Peer {
		return Selector{[]Requirement{{SourceAny, "app", OpIn, []string{v}}}}
	}
	add(t, ids, IdentityInfo{ID: 300, Labels: labelsOf(t, "x", map[string]string{"app": "a"})})
	if got := ids.Select(app("a"), ""); !slices.Equal(got, []Identity{300}) {
		t.Error(got)
	}
	add(t, ids, IdentityInfo{ID: 300, Labels: labelsOf(t, "x", map[string]string{"app": "b"})})
	if got := append(ids.Select(app("a"), ""), ids.Select(app("b"), "")...); !slices.Equal(got, []Identity{300}) {
		t.Error("after a change:", got)
	}
	ids.Remove(300)
	ids.Remove(IdentityHost)
	if _, ok := ids.Get(300); ok || ids.Len() != 10 || len(ids.Select(app("b"), "")) != 0 {
		t.Error("after removal")
	}
	if _, ok := ids.Get(IdentityHost); !ok {
		t.Error("reserved identities can be removed")
	}
	for _, bad := range []IdentityInfo{{ID: 0}, {ID: IdentityHost}, {ID: 1 << 24, Prefix: netip.MustParsePrefix("10.0.0.1/8")}} {
		if ids.Add(bad) == nil {
			t.Errorf("%+v can be added", bad)
		}
	}
	p := netip.MustParsePrefix("10.0.0.0/8")
	add(t, ids, IdentityInfo{ID: 1 << 24, Prefix: p})
	if ids.Add(IdentityInfo{ID: 1<<24 + 1, Prefix: p}) == nil {
		t.Error("one prefix with two identities")
	}
	if info, _ := ids.Get(1 << 24); info.Labels.String() != "cidr:10.0.0.0/8,reserved:world,reserved:world-ipv4" {
		t.Error(info.Labels)
	}
}

// TestPeers: which peers select which identities.
func TestPeers(t *testing.T) {
	ids := NewIdentities()
	add(t, ids, IdentityInfo{ID: 256, Labels: labelsOf(t, "x", nil)})
	other, err := EndpointLabels("x", "", "far", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	add(t, ids, IdentityInfo{ID: 257, Labels: other})
	const c8, c16, c24, c6 = IdentityMinLocal, IdentityMinLocal + 1, IdentityMinLocal + 2, IdentityMinLocal + 3
	for id, p := range map[Identity]string{c8: "10.0.0.0/8", c16: "10.1.0.0/16", c24: "10.1.2.0/24", c6: "2001:db8::/32"} {
		add(t, ids, IdentityInfo{ID: id, Prefix: netip.MustParsePrefix(p)})
	}
	cidr := func(p string, except ...string) CIDR {
		c := CIDR{Prefix: netip.MustParsePrefix(p)}
		for _, e := range except {
			c.Except = append(c.Except, netip.MustParsePrefix(e))
		}
		return c
	}
	for _, tt := range []struct {
		peer Peer
		want []Identity
	}{
		{EntityHost, []Identity{1}},
		{EntityWorld, []Identity{2, 9, 10, c8, c16, c24, c6}},
		{EntityWorldIPv4, []Identity{9, c8, c16, c24}},
		{EntityWorldIPv6, []Identity{10, c6}},
		{EntityRemoteNode, []Identity{6, 7}},
		{EntityKubeAPIServer, []Identity{7}},
		{EntityInit, []Identity{5}},
		{EntityCluster, []Identity{1, 3, 4, 5, 6, 7, 8, 256}},
		{EntityClusterMesh, []Identity{1, 3, 4, 5, 6, 7, 8, 256, 257}},
		{EntityNone, nil},
		{Entity("unheard of"), nil},
		{cidr("0.0.0.0/0"), []Identity{9, c8, c16, c24}},
		{cidr("::/0"), []Identity{10, c6}},
		{cidr("10.0.0.0/8"), []Identity{c8, c16, c24}},
		{cidr("10.1.0.0/16"), []Identity{c16, c24}},
		{cidr("10.0.0.0/8", "10.1.0.0/16"), []Identity{c8}},
		{cidr("0.0.0.0/0", "10.0.0.0/8"), []Identity{9}},
		{CIDR{}, nil},
		{Selector{[]Requirement{{}}}, nil},
		{Selector{[]Requirement{{SourceReserved, "host", OpExists, nil}}}, []Identity{1}},
		{Selector{[]Requirement{{SourceK8s, KeyNamespace, OpExists, nil}}}, []Identity{256, 257}},
		{Selector{[]Requirement{{SourceK8s, KeyNamespace, OpExists, nil}, {SourceK8s, KeyCluster, OpNotIn, []string{"far"}}}}, []Identity{256}},
	} {
		if got := ids.Select(tt.peer, DefaultCluster); !slices.Equal(got, tt.want) {
			t.Errorf("%T %v selects %v, want %v", tt.peer, tt.peer, got, tt.want)
		}
	}
}

func TestPrefixes(t *testing.T) {
	p := netip.MustParsePrefix
	rules := []Rule{
		{Peers: []Peer{CIDR{Prefix: p("10.0.0.0/8"), Except: []netip.Prefix{p("10.1.0.0/16")}}, EntityWorld}},
		{Peers: []Peer{CIDR{Prefix: p("0.0.0.0/0")}, CIDR{Prefix: p("10.1.0.0/16")}, CIDR{Prefix: p("192.0.2.1/24")}}},
	}
	want := []netip.Prefix{p("10.0.0.0/8"), p("10.1.0.0/16"), p("192.0.2.0/24")}
	if got := Prefixes(rules); !slices.Equal(got, want) {
		t.Error(got)
	}
}

func TestSetID(t *testing.T) {
	a := HTTPRule{Method: "GET", Ref: Ref{"p", "1"}}
	b := HTTPRule{Path: "GET", Ref: Ref{"p", "1"}}
	id := func(rules ...HTTPRule) SetID {
		s := L7Set{Protocol: ProtocolHTTP, HTTP: rules}
		s.seal()
		return s.ID
	}
	if id(a, b) != id(b, a, b) {
		t.Error("order or repetition changes the id")
	}
	c := a
	c.Headers = []HeaderRule{{Name: "X"}}
	d := a
	d.Ref.Path = "2"
	seen := map[SetID]bool{}
	for _, s := range []SetID{id(a), id(b), id(c), id(d), id(), id(a, b), {}} {
		if seen[s] {
			t.Error("different rules, one id")
		}
		seen[s] = true
	}
}

func BenchmarkResolve(b *testing.B) {
	ids := NewIdentities()
	var rules []Rule
	for i := range 1000 {
		name := string(rune('a'+i%26)) + string(rune('a'+i/26%26)) + string(rune('a'+i/676))
		l, err := EndpointLabels("x", "", "", nil, map[string]string{"app": name})
		if err != nil {
			b.Fatal(err)
		}
		if err := ids.Add(IdentityInfo{ID: Identity(256 + i), Labels: l}); err != nil {
			b.Fatal(err)
		}
		rules = append(rules, Rule{
			DefaultDeny: true,
			Peers:       []Peer{Selector{[]Requirement{{SourceAny, "app", OpIn, []string{name}}}}},
			Ports:       []PortRule{{Proto: ProtoTCP, First: 80, Last: 80}},
		})
	}
	for b.Loop() {
		Resolve(Subject{}, rules, ids)
	}
}
