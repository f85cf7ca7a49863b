package policy

import (
	"slices"
)

// heldPolicy is the rules of one policy, as they came and as they are kept.
type heldPolicy struct {
	rules []Rule // with references
	held  []*heldRule
}

// heldRule is a rule whose peers are audiences.
type heldRule struct {
	rule     Rule
	policy   string
	place    int // in its policy
	subjects *cohort
	peers    []*audience
}

// SetPolicy adds the rules of a policy under a name, or replaces them. With none
// the policy is forgotten. The rules must not change afterwards.
func (x *Index) SetPolicy(key string, rules []Rule) {
	before := x.policies[key]
	delete(x.policies, key)
	if len(rules) > 0 {
		p := &heldPolicy{rules: rules}
		for i, r := range x.objects.Expand(rules) {
			p.held = append(p.held, x.hold(r, key, i))
		}
		x.policies[key] = p
	}
	if before != nil { // after the new ones, which may have peers and subjects in common
		for _, r := range before.held {
			x.release(r)
		}
	}
}

// SetObjects changes what rules refer to by name or label.
func (x *Index) SetObjects(objects Objects) {
	x.objects = objects
	for key, p := range x.policies {
		if slices.ContainsFunc(p.rules, func(r Rule) bool { return slices.ContainsFunc(r.Peers, isReference) }) {
			x.SetPolicy(key, p.rules)
		}
	}
}

func (x *Index) hold(rule Rule, policy string, place int) *heldRule {
	r := &heldRule{rule: rule, policy: policy, place: place, subjects: x.cohort(rule.Subject, rule.Node)}
	r.subjects.rules[r] = struct{}{}
	r.rule.Peers = make([]Peer, len(rule.Peers))
	for i, p := range rule.Peers {
		a := x.audience(p)
		a.users[r] = struct{}{}
		r.peers = append(r.peers, a)
		r.rule.Peers[i] = a
	}
	for _, name := range r.portNames() {
		if x.portNames[name] == nil {
			x.portNames[name] = map[*heldRule]struct{}{}
		}
		x.portNames[name][r] = struct{}{}
	}
	if len(r.rule.Requires) > 0 {
		x.requiring++
	}
	x.touchSubjects(r.subjects)
	return r
}

// release forgets a rule, and what nothing else asks for.
func (x *Index) release(r *heldRule) {
	x.touchSubjects(r.subjects)
	if len(r.rule.Requires) > 0 {
		x.requiring--
	}
	for _, a := range r.peers {
		delete(a.users, r)
		if len(a.users) == 0 {
			delete(x.heard, a.text)
			x.audiences.remove(a, a.at)
		}
	}
	for _, name := range r.portNames() {
		delete(x.portNames[name], r)
		if len(x.portNames[name]) == 0 {
			delete(x.portNames, name)
		}
	}
	c := r.subjects
	delete(c.rules, r)
	if len(c.rules) > 0 {
		return
	}
	for s := range c.members {
		delete(s.chosen, c)
	}
	delete(x.chosen, c.text)
	x.cohorts.remove(c, c.at)
}

// portNames are the names whose meaning is the peers' to say.
func (r *heldRule) portNames() []string {
	var names []string
	for _, p := range r.rule.Ports {
		if p.Name != "" && r.rule.Direction == Egress {
			names = append(names, p.Name)
		}
	}
	return names
}

func (x *Index) cohort(selector Selector, node bool) *cohort {
	text := string(selector.appendText(nil))
	if node {
		text = "node " + text
	}
	c := x.chosen[text]
	if c != nil {
		return c
	}
	c = &cohort{selector: selector, node: node, text: text, members: map[*heldSubject]struct{}{}, rules: map[*heldRule]struct{}{}}
	c.at = selector.anchors(x.population.count)
	x.chosen[text] = c
	x.cohorts.add(c, c.at)
	for s := range x.population.find(c.at) {
		if c.picks(&s.subject) {
			c.members[s], s.chosen[c] = struct{}{}, struct{}{}
		}
	}
	return c
}

func (x *Index) audience(peer Peer) *audience {
	text := peerText(peer)
	if a := x.heard[text]; a != nil {
		return a
	}
	a := &audience{peer: peer, text: text, at: peerAnchors(peer, x.ids), members: idSet{}, users: map[*heldRule]struct{}{}}
	for _, id := range x.ids.Select(peer, "") {
		a.members[id] = struct{}{}
	}
	if text != "" { // else it is like no other
		x.heard[text] = a
	}
	x.audiences.add(a, a.at)
	return a
}
