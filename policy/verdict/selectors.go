package verdict

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// Selection is a selector that rules have, and what it picks in the world.
type Selection struct {
	Kind       string       // endpoints, nodes, entity, cidr, fqdn, cidrGroup, service
	Text       string       // as people read it
	Subjects   []policy.Ref // rules that are for what it picks
	Peers      []policy.Ref // rules that name what it picks as the other side
	Endpoints  []string     // by name; of nodes their names
	Identities []string     // labels of others: reserved ones, and addresses
}

// Empty reports whether the selector picks nothing.
func (s *Selection) Empty() bool { return len(s.Endpoints)+len(s.Identities) == 0 }

// Selectors lists every selector that rules have, each once, by kind and text.
func (j *Judge) Selectors() []Selection {
	found := map[[2]string]*Selection{}
	at := func(kind, text string, pick func() map[policy.Identity]bool, subject *policy.Rule) *Selection {
		key := [2]string{kind, text}
		if found[key] == nil {
			s := &Selection{Kind: kind, Text: text}
			j.fill(s, pick())
			found[key] = s
		}
		if subject != nil {
			found[key].Subjects = appendNew(found[key].Subjects, subject.Ref)
		}
		return found[key]
	}
	for i := range j.written {
		r := &j.written[i]
		kind := "endpoints"
		if r.Node {
			kind = "nodes"
		}
		at(kind, r.Subject.String(), func() map[policy.Identity]bool { return j.pickSubjects(r) }, r)
		for _, p := range r.Peers {
			kind, text := PeerText(p)
			s := at(kind, text, func() map[policy.Identity]bool { return j.pickPeers(p) }, nil)
			s.Peers = appendNew(s.Peers, r.Ref)
		}
	}
	var list []Selection
	for _, s := range found {
		list = append(list, *s)
	}
	slices.SortFunc(list, func(a, b Selection) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Text, b.Text)) })
	return list
}

func appendNew(list []policy.Ref, ref policy.Ref) []policy.Ref {
	if slices.Contains(list, ref) {
		return list
	}
	return append(list, ref)
}

// pickSubjects picks whom a rule is for: nodes by host policies, else endpoints.
func (j *Judge) pickSubjects(r *policy.Rule) map[policy.Identity]bool {
	picked := map[policy.Identity]bool{}
	j.ids.Each(func(info policy.IdentityInfo) bool {
		node := info.Labels.Has(policy.SourceReserved, string(policy.EntityHost)) || info.Labels.Has(policy.SourceReserved, string(policy.EntityRemoteNode))
		managed := node || info.Labels.Has(policy.SourceK8s, policy.KeyNamespace) || hasPolicy(info.ID)
		if managed && node == r.Node && r.Subject.Matches(info.Labels) {
			picked[info.ID] = true
		}
		return true
	})
	return picked
}

// hasPolicy reports whether a reserved identity is that of an endpoint.
func hasPolicy(id policy.Identity) bool {
	return id == policy.IdentityHealth || id == policy.IdentityInit || id == policy.IdentityIngress
}

func (j *Judge) pickPeers(p policy.Peer) map[policy.Identity]bool {
	picked := map[policy.Identity]bool{}
	for _, p := range j.objects.Expand([]policy.Rule{{Peers: []policy.Peer{p}}})[0].Peers {
		for _, id := range j.ids.Select(p, "") {
			picked[id] = true
		}
	}
	return picked
}

func (j *Judge) fill(s *Selection, picked map[policy.Identity]bool) {
	for _, known := range []map[string]*party{j.workloads, j.nodes} {
		for _, name := range slices.Sorted(maps.Keys(known)) {
			if picked[known[name].id] {
				s.Endpoints = append(s.Endpoints, name)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(picked)) {
		info, _ := j.ids.Get(id)
		switch {
		case info.Prefix.IsValid():
			s.Identities = append(s.Identities, "cidr:"+info.Prefix.String())
		case id.Reserved():
			s.Identities = append(s.Identities, strings.Join(info.Labels.Strings(), "+"))
		case id == j.host.id && s.Kind != "nodes": // among nodes it is there by name
			s.Identities = append(s.Identities, policy.SourceReserved+":"+string(policy.EntityHost))
		}
	}
}

// PeerText is the kind of a peer, and the peer as people read it.
func PeerText(p policy.Peer) (kind, text string) {
	switch p := p.(type) {
	case policy.Selector:
		return "endpoints", p.String()
	case policy.NodeSelector:
		return "nodes", p.String()
	case policy.Entity:
		return "entity", string(p)
	case policy.CIDR:
		text = p.Prefix.String()
		if len(p.Except) > 0 {
			text += " except " + joined(p.Except)
		}
		return "cidr", text
	case policy.FQDN:
		return "fqdn", p.String()
	case policy.CIDRGroupPeer:
		text = p.Name
		if text == "" {
			text = p.Selector.String()
		}
		if len(p.Except) > 0 {
			text += " except " + joined(p.Except)
		}
		return "cidrGroup", text
	case policy.ServicePeer:
		if text = p.Name; text == "" {
			text = p.Selector.String()
		}
		if p.Namespace != "" {
			text = p.Namespace + "/" + text
		}
		return "service", text
	}
	return "other", fmt.Sprint(p)
}

func joined[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.String()
	}
	return strings.Join(words, ",")
}
