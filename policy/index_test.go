package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// mirror is what an Index was told, in plain form.
type mirror struct {
	r        *rand.Rand
	index    *Index
	ids      *Identities
	objects  Objects
	policies map[string][]Rule
	subjects map[string]Subject
	last     map[string]Resolved
}

func newMirror(r *rand.Rand) *mirror {
	return &mirror{
		r: r, index: NewIndex(), ids: NewIdentities(), policies: map[string][]Rule{}, subjects: map[string]Subject{}, last: map[string]Resolved{},
	}
}

// step makes one random change.
func (m *mirror) step(t *testing.T) {
	t.Helper()
	key := fmt.Sprint("p", m.r.IntN(6))
	switch m.r.IntN(9) {
	case 0, 1, 2:
		var rules []Rule
		for i := range m.r.IntN(4) {
			rules = append(rules, m.rule(key, i))
		}
		m.policies[key] = rules
		m.index.SetPolicy(key, rules)
	case 3, 4:
		info := m.identity()
		if m.ids.Add(info) == nil {
			if err := m.index.SetIdentity(info); err != nil {
				t.Fatal(err)
			}
		}
	case 5:
		id := Identity(m.r.IntN(12))
		if m.r.IntN(3) > 0 {
			id += IdentityMinWorkload
		} else if m.r.IntN(2) > 0 {
			id += IdentityMinLocal
		}
		m.ids.Remove(id)
		m.index.RemoveIdentity(id)
	case 6, 7:
		name := fmt.Sprint("s", m.r.IntN(4))
		if m.r.IntN(4) == 0 {
			delete(m.subjects, name)
			delete(m.last, name)
			m.index.RemoveSubject(name)
			return
		}
		m.subjects[name] = m.subject()
		m.index.SetSubject(name, m.subjects[name])
	case 8:
		m.objects = Objects{
			CIDRGroups: []CIDRGroup{{Name: "g", CIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.%d.0.0/16", m.r.IntN(3)))}}},
			Services:   []Service{{Namespace: "x", Name: "web", Selector: map[string]string{"app": []string{"a", "b"}[m.r.IntN(2)]}}},
		}
		m.index.SetObjects(m.objects)
	}
}

func (m *mirror) rule(policy string, i int) Rule {
	rule := randomRule(m.r, i)
	rule.Ref.Policy = policy
	switch m.r.IntN(10) {
	case 0:
		rule.Peers = append(rule.Peers, CIDRGroupPeer{Name: "g"})
	case 1:
		rule.Peers = append(rule.Peers, ServicePeer{Name: "web"})
	case 2:
		rule.Peers = append(rule.Peers, FQDN{Name: "www.example.com"})
	case 3:
		any, _ := NewFQDN("", "*.example.com")
		rule.Peers = append(rule.Peers, any)
	case 4:
		rule.Peers = append(rule.Peers, NodeSelector{Selector{[]Requirement{{SourceNode, "app", OpIn, []string{"a"}}}}})
	case 5:
		rule.Requires = []Requirement{{SourceK8s, "app", Operator(1 + m.r.IntN(4)), []string{"a", "b"}}}
	case 6:
		rule.Node = true
	case 7:
		rule.Mode = Mode(m.r.IntN(3))
	}
	if m.r.IntN(2) == 0 {
		if s, ok := randomPeer(m.r).(Selector); ok {
			rule.Subject = s
		}
	}
	return rule
}

func (m *mirror) labels() Labels {
	app := map[string]string{"app": []string{"a", "b", "c"}[m.r.IntN(3)]}
	labels, err := EndpointLabels([]string{"x", "y"}[m.r.IntN(2)], "", []string{"", "", "far"}[m.r.IntN(3)], nil, app)
	if m.r.IntN(6) == 0 {
		labels, err = NodeLabels(m.r.IntN(2) == 0, app)
	}
	if err != nil {
		panic(err)
	}
	return labels
}

func (m *mirror) ports() NamedPorts {
	ports := NamedPorts{}
	for _, name := range []string{"web", "db"} {
		if m.r.IntN(2) == 0 {
			ports[name] = []NamedPort{{ProtoTCP, []uint16{80, 8080, 443}[m.r.IntN(3)]}}
		}
	}
	return ports
}

func (m *mirror) identity() IdentityInfo {
	n := Identity(m.r.IntN(12))
	if m.r.IntN(3) > 0 {
		return IdentityInfo{ID: IdentityMinWorkload + n, Labels: m.labels(), NamedPorts: m.ports()}
	}
	texts := []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "10.1.1.7/32", "10.2.0.0/15", "0.0.0.0/0", "2001:db8::/33", "2001:db8::1/128"}
	info := IdentityInfo{ID: IdentityMinLocal + n, Prefix: netip.MustParsePrefix(texts[m.r.IntN(len(texts))])}
	if m.r.IntN(2) == 0 {
		info.Labels = NamedLabels(info.Prefix, []string{"www.example.com", "db.example.com", "example.org"}[m.r.IntN(3)])
	}
	return info
}

func (m *mirror) subject() Subject {
	s := Subject{Labels: m.labels(), NamedPorts: m.ports()}
	s.Node = isNode(s.Labels)
	if m.r.IntN(8) == 0 {
		s.Enforcement = Enforcement(m.r.IntN(3))
	}
	return s
}

// check holds the index against Resolve, and what it says has changed against
// what has.
func (m *mirror) check(t *testing.T) {
	t.Helper()
	var rules []Rule
	for _, key := range slices.Sorted(maps.Keys(m.policies)) {
		rules = append(rules, m.policies[key]...)
	}
	rules = m.objects.Expand(rules)
	changed := m.index.Changes()
	for key, subject := range m.subjects {
		table, sets := Resolve(subject, rules, m.ids)
		want := Resolved{table, sets}
		got, _ := m.index.Get(key)
		if !got.equal(&want) || !maps.EqualFunc(got.Sets, sets, func(a, b *L7Set) bool { return a.ID == b.ID }) {
			t.Fatalf("%s: %+v\nwant %+v", key, got, want)
		}
		before, known := m.last[key]
		if _, said := changed[key]; said != (!known || !before.equal(&want)) {
			t.Fatalf("%s: said to have changed: %t", key, said)
		}
		m.last[key] = want
	}
	if len(changed) > len(m.subjects) {
		t.Fatalf("changes of subjects that are gone: %v", changed)
	}
}

// TestIndexProperty makes random changes, and holds the index against Resolve
// after some of them.
func TestIndexProperty(t *testing.T) {
	r := newRand(t)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for range rounds {
		m := newMirror(r)
		for range 80 {
			for range 1 + r.IntN(3) {
				m.step(t)
			}
			m.check(t)
		}
		m.empty(t)
	}
}

// empty takes everything out again: nothing may be left behind.
func (m *mirror) empty(t *testing.T) {
	t.Helper()
	for key := range m.policies {
		m.index.SetPolicy(key, nil)
	}
	for key := range m.subjects {
		m.index.RemoveSubject(key)
	}
	x := m.index
	left := len(x.policies) + len(x.subjects) + len(x.chosen) + len(x.cohorts) + len(x.population) + len(x.heard) + len(x.audiences) + len(x.portNames) + len(x.stale)
	if left > 0 {
		t.Fatalf("%d things are left in an empty index: %+v", left, x)
	}
}

// TestIndexAsksOnlyWhomItConcerns counts the subjects that changes touch.
func TestIndexAsksOnlyWhomItConcerns(t *testing.T) {
	x, w := benchIndex(100, 100, 20)
	x.Changes()
	stale := func(want int, change func()) {
		t.Helper()
		change()
		if len(x.stale) != want {
			t.Errorf("%d subjects are made anew, want %d", len(x.stale), want)
		}
		x.Changes()
	}
	stale(1, func() { x.SetPolicy(w.key(3), w.rules(3, 81)) })
	stale(0, func() { x.SetPolicy(w.key(99), w.rules(99, 81)) }) // of no subject here
	stale(0, func() {
		if err := x.SetIdentity(w.identity(7)); err != nil { // as it was
			t.Fatal(err)
		}
	})
}
