package fqdn

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// matcher finds the selectors that pick a name, whatever their number: by the name, and
// by the labels that patterns end in.
type matcher struct {
	byName   map[string][]int
	bySuffix map[string][]int // patterns, by the labels after their last star
	all      []policy.FQDN    // in order
}

func newMatcher(selectors []policy.FQDN) *matcher {
	m := &matcher{byName: map[string][]int{}, bySuffix: map[string][]int{}, all: selectors}
	for i, f := range selectors {
		if f.Name != "" {
			m.byName[f.Name] = append(m.byName[f.Name], i)
			continue
		}
		s := suffix(f.Pattern)
		m.bySuffix[s] = append(m.bySuffix[s], i)
	}
	return m
}

// suffix is what every name that a pattern matches ends in: labels without stars.
func suffix(pattern string) string {
	star := strings.LastIndexByte(pattern, '*')
	if star < 0 {
		return pattern
	}
	dot := strings.IndexByte(pattern[star:], '.')
	if dot < 0 {
		return ""
	}
	return pattern[star+dot+1:]
}

// match lists the selectors that pick a name, by their places and in order.
func (m *matcher) match(name string) []int {
	found := slices.Clone(m.byName[name])
	for rest := name; ; {
		for _, i := range m.bySuffix[rest] {
			if m.all[i].MatchesName(name) {
				found = append(found, i)
			}
		}
		if rest == "" {
			break
		}
		_, rest, _ = strings.Cut(rest, ".")
	}
	slices.Sort(found)
	return found
}
