package policy

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func mustFQDN(name, pattern string) FQDN {
	f, err := NewFQDN(name, pattern)
	if err != nil {
		panic(err)
	}
	return f
}

var someFQDNs = []FQDN{
	mustFQDN("api.example.com", ""), mustFQDN("www.example.com", ""), mustFQDN("", "*.example.com"), mustFQDN("", "*"), mustFQDN("", "**.example.org"),
}

var someNames = []string{"api.example.com", "www.example.com", "other.example.com", "a.b.example.org", "example.net"}

// withNames lets some rules pick by names.
func (w *world) withNames(r *rand.Rand) {
	for i := range w.rules {
		if r.IntN(2) == 0 {
			w.rules[i].Direction = Egress
			w.rules[i].Peers = append(w.rules[i].Peers, someFQDNs[r.IntN(len(someFQDNs))])
		}
	}
}

func (w *world) prefixes() []netip.Prefix {
	var out []netip.Prefix
	w.ids.Each(func(i IdentityInfo) bool {
		if i.Prefix.IsValid() {
			out = append(out, i.Prefix)
		}
		return true
	})
	return out
}

// longest is the prefix whose identity an address has.
func longest(prefixes []netip.Prefix, a netip.Addr) netip.Prefix {
	best := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if a.Is6() {
		best = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	for _, p := range prefixes {
		if p.Contains(a) && p.Bits() > best.Bits() {
			best = p
		}
	}
	return best
}

// What a table says of the addresses of a prefix is what every rule, asked about one
// of them with its names, says of it.
func TestNameTableProperty(t *testing.T) {
	r := newRand(t)
	tables := 0
	for range 400 {
		w := randomWorld(r)
		w.withNames(r)
		nt := NewNameTable(w.subject, w.rules, w.prefixes(), false)
		if nt == nil {
			continue
		}
		tables++
		if !w.checkNames(t, r, nt) {
			for _, rule := range w.rules {
				t.Logf("%+v", rule)
			}
			return
		}
	}
	if tables < 50 {
		t.Errorf("only %d worlds have rules about names", tables)
	}
}

func (w *world) checkNames(t *testing.T, r *rand.Rand, nt *NameTable) bool {
	t.Helper()
	for _, text := range []string{"10.1.1.7", "10.9.9.9", "192.0.2.1", "8.8.8.8", "2001:db8::1", "2606::1"} {
		a := netip.MustParseAddr(text)
		var names []string
		for range r.IntN(3) {
			names = append(names, someNames[r.IntN(len(someNames))])
		}
		var picked []FQDN
		for _, f := range nt.Selectors() {
			if slices.ContainsFunc(names, f.MatchesName) {
				picked = append(picked, f)
			}
		}
		audited, sets := nt.Resolve(longest(w.prefixes(), a), picked)
		table := Table{Entries: map[Key]Entry{}, Rules: audited.Rules}
		for k, e := range audited.Entries {
			if k.Peer != 0 || k.Direction != Egress {
				t.Errorf("entry %+v names a peer or the other direction", k)
			}
			table.Entries[k] = e.Entry
		}
		if _, ok := audited.Entries[Key{Direction: Egress}]; !ok {
			t.Error("the entry for every protocol is missing")
			return false
		}
		self := netip.PrefixFrom(a, a.BitLen())
		info := &IdentityInfo{ID: IdentityMinLocal + 99, Prefix: self, Labels: NamedLabels(self, names...)}
		for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoSCTP, ProtoICMP, 47} {
			for _, port := range w.borders {
				want := naive(w.subject, w.rules, info, Egress, proto, port)
				audit := naive(w.subject, enforced(w.rules), info, Egress, proto, port)
				got := table.Lookup(info.ID, Egress, proto, port)
				if problem := compare(want, audit, got, &table, sets); problem != "" {
					t.Errorf("%s known as %v, proto %d port %d: %s", a, names, proto, port, problem)
					return false
				}
			}
		}
	}
	return true
}

func TestNameTable(t *testing.T) {
	l, err := EndpointLabels("x", "", "", nil, map[string]string{"app": "a"})
	if err != nil {
		t.Fatal(err)
	}
	me := Subject{Labels: l}
	named := Rule{Direction: Egress, DefaultDeny: true, Peers: []Peer{someFQDNs[2], someFQDNs[0], someFQDNs[2]}, Ref: Ref{"p", "egress[0]"}}
	other := Rule{Direction: Egress, DefaultDeny: true, Peers: []Peer{EntityHost, Selector{[]Requirement{{SourceK8s, "app", OpIn, []string{"b"}}}}}, Ref: Ref{"p", "egress[1]"}}
	web := Rule{Direction: Egress, AnyPeer: true, Ports: []PortRule{{Name: "web"}}, Ref: Ref{"p", "egress[2]"}}
	if NewNameTable(me, []Rule{other, web}, nil, false) != nil {
		t.Error("there is a table though no rule picks by names")
	}
	nt := NewNameTable(me, []Rule{named, other, web}, nil, false)
	if nt == nil || len(nt.Rules) != 3 || len(nt.Rules[1].Peers) != 0 || nt.Rules[2].AnyPeer {
		t.Fatalf("%+v: want who is never outside left out", nt)
	}
	if got := nt.Selectors(); len(got) != 2 {
		t.Errorf("selectors %v, want two", got)
	}
	if same := NewNameTable(me, []Rule{named, other, web}, nil, false); same.ID != nt.ID {
		t.Error("the same rules have another id")
	}
	named.Ports = []PortRule{{Proto: ProtoTCP, First: 80, Last: 80}}
	if changed := NewNameTable(me, []Rule{named, other, web}, nil, false); changed.ID == nt.ID {
		t.Error("other rules have the same id")
	}
	if NewNameTable(Subject{Labels: l, Enforcement: EnforcementNever}, []Rule{named}, nil, false) != nil {
		t.Error("there is a table though rules have no effect")
	}
}
