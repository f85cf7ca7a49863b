package policy

import (
	"cmp"
	"maps"
	"slices"
)

// row is terms and the peers that all of them concern, each once.
type row struct {
	ids   []Identity
	terms []int
}

// group is peers that the same terms concern.
type group struct {
	ids   []Identity
	terms []int // those that concern every peer included
}

// class is peers that are in the same rows so far: those of another class that
// are in one row more.
type class struct{ of, row int }

// groups puts peers together that are in the same rows, in order of their first.
// It looks at each peer once for each row that it is in, as there may be many.
func (s *scope) groups() []group {
	most := 0
	for _, r := range s.rows {
		most = max(most, len(r.ids))
	}
	in := make(map[Identity]int, most)
	classes := []class{{}} // the first is of those that are in no row
	for i, r := range s.rows {
		next := map[int]int{}
		for _, id := range r.ids {
			was := in[id]
			is, ok := next[was]
			if !ok {
				is = len(classes)
				next[was] = is
				classes = append(classes, class{was, i})
			}
			in[id] = is
		}
	}
	groups := make([]group, len(classes))
	for id, c := range in {
		groups[c].ids = append(groups[c].ids, id)
	}
	for c := range groups {
		slices.Sort(groups[c].ids)
		if len(groups[c].ids) > 0 {
			groups[c].terms = s.termsOf(classes, c)
		}
	}
	groups = slices.DeleteFunc(groups, func(g group) bool { return len(g.ids) == 0 })
	slices.SortFunc(groups, func(a, b group) int { return cmp.Compare(a.ids[0], b.ids[0]) })
	return groups
}

func (s *scope) termsOf(classes []class, c int) []int {
	terms := slices.Clone(s.everyone)
	for ; c > 0; c = classes[c].of {
		terms = append(terms, s.rows[classes[c].row].terms...)
	}
	slices.Sort(terms)
	return slices.Compact(terms)
}

// peersOf lists whom a rule names, each once and in order.
func (s *scope) peersOf(rule *Rule) []Identity {
	if rule.AnyPeer {
		return nil
	}
	var all []Identity
	for i, p := range rule.Peers {
		ids := s.ids.Select(narrowed(p, s.requires[rule.Deny]), s.cluster)
		if i == 0 {
			all = ids // not to be written to
			continue
		}
		all = slices.Concat(all, ids)
	}
	if len(rule.Peers) > 1 {
		slices.Sort(all)
		all = slices.Compact(all)
	}
	return all
}

// addNamedEgress adds a port that means for each peer what that peer calls so.
func (s *scope) addNamedEgress(rule *Rule, p *PortRule, peers []Identity) {
	terms := map[NamedPort]int{}
	rows := map[int]int{}
	for _, id := range slices.Sorted(maps.Keys(s.ids.names[p.Name])) {
		if _, ok := slices.BinarySearch(peers, id); !ok && !rule.AnyPeer {
			continue
		}
		for _, n := range s.ids.byID[id].NamedPorts.resolve(p.Name, p.Proto) {
			t, ok := terms[n]
			if !ok {
				t = s.addTerm(rule, p, n.Proto, n.Port, n.Port)
				terms[n] = t
				rows[t] = len(s.rows)
				s.rows = append(s.rows, row{terms: []int{t}})
			}
			r := &s.rows[rows[t]]
			if k := len(r.ids); k == 0 || r.ids[k-1] != id {
				r.ids = append(r.ids, id)
			}
		}
	}
}
