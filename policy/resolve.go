package policy

import (
	"maps"
	"slices"
)

// Resolve makes the tables of a subject from the rules that select it and the
// identities that the rules' peers select.
//
// A deny beats every allow. Between allows, one without L7 rules wins over one
// with them if it names every port, or the same ports or fewer; what names more
// ports leaves the narrower rule in force. Where L7 rules are in force they are
// the union of all that apply to the peer and port. A deny with L7 rules denies
// the requests that these match and no others. Rules of policies that audit or
// observe have no say; their L7 rules send allowed connections to the proxy, to
// be seen there.
func Resolve(subject Subject, rules []Rule, ids *Identities) (Table, L7Table) {
	r := &resolver{
		subject: subject,
		ids:     ids,
		table:   Table{Entries: map[Key]Entry{}},
		sets:    L7Table{},
		ruleIDs: map[Ref]RuleID{},
	}
	r.cluster, _ = subject.Labels.Get(SourceK8s, KeyCluster)
	for _, dir := range []Direction{Ingress, Egress} {
		if subject.Enforcement == EnforcementNever {
			r.table.Entries[Key{Direction: dir}] = Entry{Verdict: Allow}
			continue
		}
		var selected []Rule
		for _, rule := range rules {
			if rule.Direction == dir && rule.Node == subject.Node && rule.Subject.Matches(subject.Labels) {
				selected = append(selected, rule)
			}
		}
		r.direction(dir, selected)
	}
	used := L7Table{}
	for _, e := range r.table.Entries {
		if e.Verdict == Redirect {
			used[e.Set] = r.sets[e.Set]
		}
	}
	return r.table, used
}

// ResolveAudit is Resolve as it would be if the policies that audit enforced.
// What it denies and Resolve allows is what those report.
func ResolveAudit(subject Subject, rules []Rule, ids *Identities) (Table, L7Table) {
	return Resolve(subject, enforced(rules), ids)
}

// enforced makes rules that audit enforce.
func enforced(rules []Rule) []Rule {
	rules = slices.Clone(rules)
	for i := range rules {
		if rules[i].Mode == ModeAudit {
			rules[i].Mode = ModeEnforce
		}
	}
	return rules
}

type resolver struct {
	subject Subject
	cluster string
	ids     *Identities
	table   Table
	sets    L7Table
	ruleIDs map[Ref]RuleID
}

func (r *resolver) ruleID(ref Ref) RuleID {
	id, ok := r.ruleIDs[ref]
	if !ok {
		r.table.Rules = append(r.table.Rules, ref)
		id = RuleID(len(r.table.Rules))
		r.ruleIDs[ref] = id
	}
	return id
}

// direction fills the table for one direction.
func (r *resolver) direction(dir Direction, rules []Rule) {
	s := newScope(r)
	if r.subject.Enforcement == EnforcementAlways {
		s.otherwise, s.auditOtherwise = Entry{}, Entry{}
	}
	for i := range rules {
		if rules[i].Mode == ModeAudit {
			s.audits = true
			if rules[i].DefaultDeny {
				s.auditOtherwise = Entry{}
			}
		}
		if rules[i].Mode != ModeEnforce {
			continue
		}
		if rules[i].DefaultDeny {
			s.otherwise, s.auditOtherwise = Entry{}, Entry{}
		}
		s.requires[rules[i].Deny] = append(s.requires[rules[i].Deny], rules[i].Requires...)
	}
	for i := range rules {
		s.addRule(&rules[i])
	}
	protos := s.protos()

	everyoneElse := s.judge(s.everyone, ProtoAny, 0)
	if everyoneElse != (Entry{}) {
		r.table.Entries[Key{Direction: dir}] = everyoneElse
	}
	everyone := map[Proto]portMap{}
	for _, proto := range protos {
		everyone[proto] = s.portMap(s.everyone, proto)
		r.emit([]Identity{0}, dir, proto, everyone[proto], constant(everyoneElse))
	}

	for _, g := range s.groups() {
		other := s.judge(g.terms, ProtoAny, 0)
		if other != everyoneElse {
			for _, id := range g.ids {
				r.table.Entries[Key{Peer: id, Direction: dir}] = other
			}
		}
		for _, proto := range protos {
			fallback := everyone[proto]
			if other != everyoneElse {
				fallback = constant(other)
			}
			r.emit(g.ids, dir, proto, s.portMap(g.terms, proto), fallback)
		}
	}
}

// emit writes the entries of one protocol for peers that are judged alike.
func (r *resolver) emit(peers []Identity, dir Direction, proto Proto, want, fallback portMap) {
	for _, p := range cover(want, fallback) {
		for _, peer := range peers {
			r.table.Entries[Key{peer, dir, proto, p.port, p.bits}] = p.entry
		}
	}
}

// term is a rule's say on one protocol and range of ports.
type term struct {
	first, last uint16
	proto       Proto // ProtoAny: every protocol, all ports
	deny        bool
	shown       bool     // it only says which requests are to be seen
	audit       bool     // it has a say in what would be if policies that audit enforced
	l7          *L7Rules // nil: none
	response    *DenyResponse
	ref         Ref
}

func (t *term) covers(proto Proto, port uint16) bool {
	return t.proto == ProtoAny || t.proto == proto && t.first <= port && port <= t.last
}

// voids reports whether the term, which has no L7 rules, puts those of the other
// out of force.
func (t *term) voids(o *term) bool {
	if o.l7 != nil && o.l7.Listener != nil { // it is told where to go, not what is allowed
		return false
	}
	return t.proto == ProtoAny || t.first >= o.first && t.last <= o.last
}

// scope collects the terms of one direction, and whom each concerns. Terms are
// named by their index; a lower one comes from an earlier rule.
type scope struct {
	*resolver
	terms     []term
	everyone  []int // terms that concern every peer
	rows      []row
	otherwise Entry // what is said where no term says anything
	audits    bool  // there are policies that audit,
	// and this is said otherwise if they enforced.
	auditOtherwise Entry
	requires       map[bool][]Requirement // of selectors among the peers of allows and of denies
}

func newScope(r *resolver) *scope {
	return &scope{resolver: r, otherwise: Entry{Verdict: Allow}, auditOtherwise: Entry{Verdict: Allow}, requires: map[bool][]Requirement{}}
}

func (s *scope) addRule(rule *Rule) {
	if rule.Mode == ModeObserve && !slices.ContainsFunc(rule.Ports, func(p PortRule) bool { return p.L7 != nil }) {
		return
	}
	peers := s.peersOf(rule)
	var static []int
	if len(rule.Ports) == 0 {
		static = append(static, s.addTerm(rule, nil, ProtoAny, 0, 65535))
	}
	for i := range rule.Ports {
		p := &rule.Ports[i]
		switch {
		case rule.Mode == ModeObserve && p.L7 == nil:
		case p.Name == "":
			for _, proto := range portProtos(p) {
				static = append(static, s.addTerm(rule, p, proto, p.First, p.Last))
			}
		case rule.Direction == Ingress:
			for _, n := range s.subject.NamedPorts.resolve(p.Name, p.Proto) {
				static = append(static, s.addTerm(rule, p, n.Proto, n.Port, n.Port))
			}
		default:
			s.addNamedEgress(rule, p, peers)
		}
	}
	if rule.AnyPeer {
		s.everyone = append(s.everyone, static...)
	}
	if len(static) > 0 {
		s.rows = append(s.rows, row{peers, static})
	}
}

func (s *scope) addTerm(rule *Rule, p *PortRule, proto Proto, first, last uint16) int {
	t := term{first: first, last: last, proto: proto, deny: rule.Deny, shown: rule.Mode != ModeEnforce, audit: rule.Mode == ModeAudit, response: rule.DenyResponse, ref: rule.Ref}
	if p != nil {
		t.ref = p.Ref
	}
	switch {
	case p == nil:
	case p.Listener != nil && rule.Mode == ModeEnforce:
		t.l7 = &L7Rules{Protocol: ProtocolListener, Listener: p.Listener}
	case p.L7 != nil:
		t.l7 = p.L7
		if !rule.DefaultDeny && !rule.Deny { // such a policy shows requests and denies none
			t.l7 = t.l7.and(t.l7.everything(p.Ref))
		}
	}
	s.terms = append(s.terms, t)
	return len(s.terms) - 1
}

// protos lists the protocols that terms name.
func (s *scope) protos() []Proto {
	named := map[Proto]struct{}{}
	for i := range s.terms {
		if s.terms[i].proto != ProtoAny {
			named[s.terms[i].proto] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(named))
}

// portProtos spells out ProtoAny, which with a port means what has ports, and
// with L7 rules what a proxy can read.
func portProtos(p *PortRule) []Proto {
	switch {
	case p.Proto != ProtoAny:
		return []Proto{p.Proto}
	case p.L7 != nil:
		return []Proto{ProtoTCP, ProtoUDP}
	}
	return []Proto{ProtoTCP, ProtoUDP, ProtoSCTP}
}

// resolve returns what a name means, as far as the protocol agrees.
func (n NamedPorts) resolve(name string, proto Proto) []NamedPort {
	var found []NamedPort
	for _, p := range n[name] {
		if (proto == ProtoAny || proto == p.Proto) && p.Proto != ProtoAny {
			found = append(found, p)
		}
	}
	return found
}
