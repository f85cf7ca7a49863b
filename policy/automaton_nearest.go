package policy

import "github.com/headgate/headgate/policy/automaton"

// nearestWork limits the search for the rule that came nearest, in rules and
// headers looked at: a request that is denied must not cost much more than one
// that is allowed.
const nearestWork = 500

// nearIndex finds the rule that came nearest to a request: the one with most
// parts that match, of those the one with fewest that do not, of those the first.
//
// For rules without headers that is a few look-ups: under each choice of some of
// a rule's expressions stands the rule that would be nearest if these matched.
// Rules with headers are looked at one by one, all of them if they are few.
type nearIndex struct {
	best   map[[httpFields]uint32]uint32
	headed []uint32
	parts  int // of the headed
}

func (x *httpIndex) addNear(id uint32) {
	rule := &x.rules[id]
	if len(rule.headers) > 0 {
		x.near.headed = append(x.near.headed, id)
		x.near.parts += 1 + len(rule.headers)
		return
	}
	for choice := range 1 << httpFields {
		key := rule.want
		skip := false
		for f := range key {
			if choice>>f&1 == 0 {
				key[f] = 0
			} else if key[f] == 0 {
				skip = true // the same as the choice without
			}
		}
		if skip {
			continue
		}
		if have, ok := x.near.best[key]; !ok || rule.asked() < x.rules[have].asked() {
			x.near.best[key] = id
		}
	}
}

// asked is how many expressions a rule has.
func (r *httpRule) asked() (n int) {
	for _, id := range r.want {
		if id != 0 {
			n++
		}
	}
	return n
}

// search is the rule that came nearest so far.
type search struct {
	index            *httpIndex
	request          *HTTPRequest
	found            *[httpFields]automaton.Matches
	best             int
	bestMet, bestNot int
	left             int
}

// nearest is the rule that came nearest to a request that none matches, or -1.
// It is exact unless rules with headers, or expressions that match, are many.
func (x *httpIndex) nearest(r *HTTPRequest, found *[httpFields]automaton.Matches) int {
	s := search{index: x, request: r, found: found, best: -1, left: nearestWork}
	s.choices()
	s.left = nearestWork
	if x.near.parts > nearestWork {
		for _, f := range [...]httpField{fieldPath, fieldHost, fieldMethod} {
			for _, ids := range [...][]uint32{found[f].Texts, found[f].Others} {
				for i := 0; i < len(ids) && s.left > 0; i++ {
					s.look(x.fields[f].rules[ids[i]])
				}
			}
		}
	}
	s.look(x.near.headed)
	return s.best
}

// choices looks at the rules without headers.
func (s *search) choices() {
	m, p, h := &s.found[fieldMethod], &s.found[fieldPath], &s.found[fieldHost]
	for i := range choices(m) {
		for j := range choices(p) {
			for k := range choices(h) {
				if s.left--; s.left < 0 {
					return
				}
				key := [httpFields]uint32{choice(m, i), choice(p, j), choice(h, k)}
				if id, ok := s.index.near.best[key]; ok {
					met := min(i, 1) + min(j, 1) + min(k, 1)
					s.offer(int(id), met, s.index.rules[id].asked()-met)
				}
			}
		}
	}
}

// look looks at rules with headers.
func (s *search) look(rules []uint32) {
	for _, i := range rules {
		if s.left <= 0 {
			return
		}
		rule := &s.index.rules[i]
		s.left -= 1 + len(rule.headers)
		if len(rule.headers) > 0 {
			met, not := s.count(rule)
			s.offer(int(i), met, not)
		}
	}
}

// count says how many of the parts that a rule asks for match, and how many do
// not.
func (s *search) count(rule *httpRule) (met, not int) {
	for f, id := range rule.want {
		switch {
		case id == 0:
		case has(&s.found[f], id):
			met++
		default:
			not++
		}
	}
	for h := range rule.headers {
		if rule.headers[h].match(s.request) {
			met++
		} else {
			not++
		}
	}
	return met, not
}

func (s *search) offer(i, met, not int) {
	nearer := met > s.bestMet || met == s.bestMet && (not < s.bestNot || not == s.bestNot && i < s.best)
	if s.best < 0 || nearer {
		s.best, s.bestMet, s.bestNot = i, met, not
	}
}
