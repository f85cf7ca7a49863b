package policy

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the property tests; 0: a new one each time")

func newRand(t *testing.T) *rand.Rand {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("to repeat: go test -run %s -seed %d", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// opinion is what the naive evaluator says of one connection.
type opinion struct {
	verdict Verdict
	rules   []Ref // those that may be named as deciding
	http    []HTTPRule
	deny    []HTTPRule
	// observed: no policy that enforces has rules for requests.
	observed bool
}

// set is the L7 set that an opinion is.
func (o *opinion) set() *L7Set {
	s := &L7Set{Protocol: ProtocolHTTP, HTTP: o.http, Observed: o.observed}
	if o.deny != nil {
		s.Deny = &L7Rules{Protocol: ProtocolHTTP, HTTP: o.deny}
	}
	s.seal()
	return s
}

// allHTTP allows every request, tunnels too.
func allHTTP(ref Ref) []HTTPRule { return []HTTPRule{{Ref: ref}, {Method: "CONNECT", Ref: ref}} }

// naive judges one connection by going through all rules, as the documentation
// of Resolve says it.
func naive(s Subject, rules []Rule, info *IdentityInfo, dir Direction, proto Proto, port uint16) opinion {
	if s.Enforcement == EnforcementNever {
		return opinion{verdict: Allow}
	}
	cluster, _ := s.Labels.Get(SourceK8s, KeyCluster)
	defaultDeny := s.Enforcement == EnforcementAlways
	type match struct {
		rule        *Rule
		ports       *PortRule
		whole       bool
		first, last uint16
	}
	var requires [2][]Requirement // of allows, of denies
	asks := func(deny bool) *[]Requirement {
		if deny {
			return &requires[1]
		}
		return &requires[0]
	}
	concerns := func(r *Rule) bool {
		return r.Direction == dir && r.Node == s.Node && r.Subject.Matches(s.Labels)
	}
	for i := range rules {
		if r := &rules[i]; concerns(r) && r.Mode == ModeEnforce {
			defaultDeny = defaultDeny || r.DefaultDeny
			*asks(r.Deny) = append(*asks(r.Deny), r.Requires...)
		}
	}
	var matches []match
	for i := range rules {
		r := &rules[i]
		if !concerns(r) {
			continue
		}
		peer := r.AnyPeer
		for _, p := range r.Peers {
			selects := p.selects(info, cluster)
			if _, ok := p.(Selector); ok {
				selects = selects && Selector{*asks(r.Deny)}.Matches(info.Labels)
			}
			peer = peer || selects
		}
		if !peer {
			continue
		}
		if len(r.Ports) == 0 {
			matches = append(matches, match{rule: r, whole: true, last: 65535})
		}
		for j := range r.Ports {
			p := &r.Ports[j]
			if p.Proto != proto && (p.Proto != ProtoAny || proto != ProtoTCP && proto != ProtoUDP && proto != ProtoSCTP) {
				continue
			}
			spans := []NamedPort{{proto, p.First}}
			if p.Name != "" {
				spans = s.NamedPorts[p.Name]
				if dir == Egress {
					spans = info.NamedPorts[p.Name]
				}
			}
			for _, n := range spans {
				m := match{rule: r, ports: p, first: n.Port, last: n.Port}
				if p.Name == "" {
					m.last = p.Last
				}
				if n.Proto == proto && m.first <= port && port <= m.last {
					matches = append(matches, m)
				}
			}
		}
	}

	var o opinion
	ref := func(m match) Ref {
		if m.ports != nil {
			return m.ports.Ref
		}
		return m.rule.Ref
	}
	var plain, l7, denyPlain, denyL7, shown []match
	for _, m := range matches {
		hasL7 := m.ports != nil && m.ports.L7 != nil
		switch {
		case m.rule.Mode != ModeEnforce && hasL7:
			shown = append(shown, m)
		case m.rule.Mode != ModeEnforce:
		case m.rule.Deny && hasL7:
			denyL7 = append(denyL7, m)
		case m.rule.Deny:
			denyPlain = append(denyPlain, m)
		case hasL7:
			l7 = append(l7, m)
		default:
			plain = append(plain, m)
		}
	}
	for _, m := range denyPlain {
		o.rules = append(o.rules, ref(m))
	}
	if len(denyPlain) > 0 || len(plain)+len(l7) == 0 && defaultDeny {
		return o
	}
	for _, m := range denyL7 {
		o.deny = append(o.deny, m.ports.L7.HTTP...)
	}
	for _, m := range l7 {
		if !slices.ContainsFunc(plain, func(p match) bool { return p.whole || p.first >= m.first && p.last <= m.last }) {
			o.verdict = Redirect
		}
	}
	switch {
	case o.verdict == Redirect:
		for _, m := range l7 {
			o.rules = append(o.rules, ref(m))
			o.http = append(o.http, m.ports.L7.HTTP...)
			if !m.rule.DefaultDeny {
				o.http = append(o.http, allHTTP(m.ports.Ref)...)
			}
		}
	case len(denyL7)+len(shown) > 0: // everything, less what is denied
		o.verdict = Redirect
		o.rules = []Ref{ref(slices.Concat(plain, denyL7, shown)[0])}
		o.http, o.observed = allHTTP(o.rules[0]), len(denyL7) == 0
	default:
		o.verdict = Allow
		for _, m := range plain {
			o.rules = append(o.rules, ref(m))
		}
	}
	return o
}

type world struct {
	ids     *Identities
	subject Subject
	rules   []Rule
	borders []uint16
}

func randomWorld(r *rand.Rand) world {
	w := world{ids: NewIdentities()}
	apps := []string{"a", "b", "c", "d"}
	names := []string{"web", "db"}
	for i := range 8 {
		app := apps[i%len(apps)]
		l, err := EndpointLabels([]string{"x", "y"}[i/4], "", "", nil, map[string]string{"app": app})
		if err != nil {
			panic(err)
		}
		info := IdentityInfo{ID: IdentityMinWorkload + Identity(i), Labels: l, NamedPorts: NamedPorts{}}
		for _, n := range names {
			if r.IntN(2) == 0 {
				info.NamedPorts[n] = []NamedPort{{ProtoTCP, randomPort(r)}}
			}
		}
		if err := w.ids.Add(info); err != nil {
			panic(err)
		}
	}
	for i, p := range []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.0/24", "192.0.2.0/24", "2001:db8::/32"} {
		if err := w.ids.Add(IdentityInfo{ID: IdentityMinLocal + Identity(i), Prefix: netip.MustParsePrefix(p)}); err != nil {
			panic(err)
		}
	}
	me, _ := w.ids.Get(IdentityMinWorkload)
	w.subject = Subject{Labels: me.Labels, NamedPorts: NamedPorts{"web": {{ProtoTCP, randomPort(r)}, {ProtoUDP, 53}}}}
	if r.IntN(8) == 0 {
		w.subject.Enforcement = Enforcement(1 + r.IntN(2))
	}
	for i := range r.IntN(9) {
		w.rules = append(w.rules, randomRule(r, i))
	}
	w.collectBorders()
	return w
}

func randomPort(r *rand.Rand) uint16 {
	if r.IntN(2) == 0 {
		return []uint16{0, 1, 79, 80, 81, 443, 8080, 65535}[r.IntN(8)]
	}
	return uint16(r.IntN(65536))
}

func randomPeer(r *rand.Rand) Peer {
	switch r.IntN(4) {
	case 0:
		all := Entities()
		return all[r.IntN(len(all))]
	case 1:
		c := CIDR{Prefix: netip.MustParsePrefix([]string{"0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "::/0"}[r.IntN(4)])}
		if r.IntN(2) == 0 {
			c.Except = []netip.Prefix{netip.MustParsePrefix("10.1.1.0/24")}
		}
		return c
	}
	q := Requirement{Source: SourceAny, Key: []string{"app", KeyNamespace, "none"}[r.IntN(3)], Op: Operator(1 + r.IntN(4))}
	if q.Op == OpIn || q.Op == OpNotIn {
		q.Values = []string{"a", "x", "b"}[r.IntN(3):]
	}
	s := Selector{Requirements: []Requirement{q}}
	if r.IntN(2) == 0 {
		s.Requirements = append(s.Requirements, Requirement{Source: SourceK8s, Key: "app", Op: OpIn, Values: []string{"a", "c"}})
	}
	return s
}

func randomRule(r *rand.Rand, i int) Rule {
	rule := Rule{
		Direction:   Direction(r.IntN(2)),
		Deny:        r.IntN(4) == 0,
		DefaultDeny: r.IntN(3) > 0,
		AnyPeer:     r.IntN(4) == 0,
		Ref:         Ref{"p", fmt.Sprintf("rule[%d]", i)},
	}
	if r.IntN(6) == 0 {
		rule.Mode = Mode(1 + r.IntN(2))
	}
	if r.IntN(12) == 0 {
		rule.Node = true
	}
	if rule.Mode == ModeEnforce && r.IntN(12) == 0 { // those of policies that audit limit nobody yet
		rule.Requires = []Requirement{{SourceAny, "app", OpIn, []string{"a", "b"}}}
	}
	if r.IntN(8) == 0 {
		rule.Subject = Selector{[]Requirement{{SourceAny, "app", OpIn, []string{"b"}}}} // not the subject
	}
	for range r.IntN(3) {
		rule.Peers = append(rule.Peers, randomPeer(r))
	}
	for j := range r.IntN(4) {
		p := PortRule{Proto: []Proto{ProtoAny, ProtoTCP, ProtoTCP, ProtoTCP, ProtoUDP, ProtoICMP}[r.IntN(6)], First: randomPort(r)}
		p.Ref = Ref{"p", fmt.Sprintf("rule[%d].toPorts[%d]", i, j)}
		switch r.IntN(4) {
		case 0:
			p.Last = 65535
		case 1:
			p.Last = max(p.First, randomPort(r))
		default:
			p.Last = p.First
		}
		if r.IntN(8) == 0 {
			p.Name, p.First, p.Last = []string{"web", "db", "nope"}[r.IntN(3)], 0, 0
		}
		if p.Proto == ProtoTCP && r.IntN(2) == 0 {
			p.L7 = &L7Rules{Protocol: ProtocolHTTP, HTTP: []HTTPRule{{Path: fmt.Sprint("/", i, j), Ref: Ref{"p", fmt.Sprintf("rule[%d].toPorts[%d].http[0]", i, j)}}}}
		}
		rule.Ports = append(rule.Ports, p)
	}
	return rule
}

// collectBorders finds the ports at which something may change.
func (w *world) collectBorders() {
	add := func(p uint16) { w.borders = append(w.borders, p-1, p, p+1) }
	add(0)
	add(32768)
	for _, r := range w.rules {
		for _, p := range r.Ports {
			add(p.First)
			add(p.Last)
		}
	}
	addNames := func(n NamedPorts) {
		for _, list := range n {
			for _, p := range list {
				add(p.Port)
			}
		}
	}
	addNames(w.subject.NamedPorts)
	w.ids.Each(func(i IdentityInfo) bool { addNames(i.NamedPorts); return true })
	slices.Sort(w.borders)
	w.borders = slices.Compact(w.borders)
}

func (w *world) check(t *testing.T, table *Table, sets L7Table) bool {
	t.Helper()
	peers := []IdentityInfo{{ID: 60000}} // one that nothing is known of
	w.ids.Each(func(i IdentityInfo) bool { peers = append(peers, i); return true })
	for _, dir := range []Direction{Ingress, Egress} {
		for i := range peers {
			peer := &peers[i]
			for _, proto := range []Proto{ProtoTCP, ProtoUDP, ProtoSCTP, ProtoICMP, ProtoICMPv6, 47} {
				for _, port := range w.borders {
					rules := w.rules
					if peer.ID == 60000 { // concerned by what concerns everybody
						rules = anyPeerOnly(rules)
					}
					want := naive(w.subject, rules, peer, dir, proto, port)
					audit := naive(w.subject, enforced(rules), peer, dir, proto, port)
					got := table.Lookup(peer.ID, dir, proto, port)
					if problem := compare(want, audit, got, table, sets); problem != "" {
						t.Errorf("%s peer %d (%s) proto %d port %d: %s", dir, peer.ID, peer.Labels, proto, port, problem)
						for _, r := range w.rules {
							t.Logf("%+v", r)
						}
						return false
					}
				}
			}
		}
	}
	return true
}

// anyPeerOnly takes the peers out, as no rule selects an unknown peer by them.
func anyPeerOnly(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		rules[i].Peers = nil
	}
	return rules
}

func compare(want, audit opinion, got Entry, table *Table, sets L7Table) string {
	if got.Verdict != want.verdict {
		return fmt.Sprintf("%s, want %s", got.Verdict, want.verdict)
	}
	if (got.Rule == 0) != (len(want.rules) == 0) {
		return fmt.Sprintf("rule %d, want one of %v", got.Rule, want.rules)
	}
	if got.Rule != 0 && !slices.Contains(want.rules, table.Rules[got.Rule-1]) {
		return fmt.Sprintf("rule %s, want one of %v", table.Rules[got.Rule-1], want.rules)
	}
	if got.Verdict != Redirect {
		return ""
	}
	set := sets[got.Set]
	if set == nil {
		return "the L7 set is not in the L7 table"
	}
	wanted := want.set()
	if a := audit.set(); audit.verdict == Redirect && a.ID != wanted.ID {
		wanted.Audit = a
		wanted.seal()
	}
	if wanted.ID != set.ID {
		return fmt.Sprintf("L7 set %+v, want %+v", set, wanted)
	}
	return ""
}

// TestResolveProperty holds Resolve against the naive evaluator.
func TestResolveProperty(t *testing.T) {
	r := newRand(t)
	rounds := 300
	if testing.Short() {
		rounds = 30
	}
	for range rounds {
		w := randomWorld(r)
		table, sets := Resolve(w.subject, w.rules, w.ids)
		if !w.check(t, &table, sets) {
			return
		}
		for _, e := range table.Entries {
			if e.Verdict == Redirect {
				delete(sets, e.Set)
			}
		}
		if len(sets) > 0 {
			t.Fatalf("L7 sets that no entry points to: %v", sets)
		}
	}
}
