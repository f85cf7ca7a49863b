package policy

import (
	"fmt"
	"strings"
)

// Operator says how a Requirement compares.
type Operator uint8

const (
	OpIn           Operator = 1
	OpNotIn        Operator = 2 // holds also when the key is absent
	OpExists       Operator = 3
	OpDoesNotExist Operator = 4
)

func (o Operator) String() string {
	switch o {
	case OpIn:
		return "In"
	case OpNotIn:
		return "NotIn"
	case OpExists:
		return "Exists"
	case OpDoesNotExist:
		return "DoesNotExist"
	}
	return "nothing"
}

// Requirement is one condition on a set of labels. The zero Requirement never
// holds.
type Requirement struct {
	Source string // SourceAny for any
	Key    string
	Op     Operator
	Values []string
}

// Matches reports whether the labels satisfy the requirement.
func (r Requirement) Matches(labels Labels) bool {
	switch r.Op {
	case OpIn:
		return labels.hasValue(r.Source, r.Key, r.Values)
	case OpNotIn:
		return !labels.hasValue(r.Source, r.Key, r.Values)
	case OpExists:
		return labels.Has(r.Source, r.Key)
	case OpDoesNotExist:
		return !labels.Has(r.Source, r.Key)
	}
	return false
}

// positive requirements need a label to be there.
func (r Requirement) positive() bool { return r.Op == OpIn || r.Op == OpExists }

func (r Requirement) String() string {
	key := r.Source + ":" + r.Key
	switch r.Op {
	case OpIn:
		if r.Source == SourceReserved { // they have no values
			return key
		}
		if len(r.Values) == 1 {
			return key + "=" + r.Values[0]
		}
		return fmt.Sprintf("%s in (%s)", key, strings.Join(r.Values, ","))
	case OpNotIn:
		return fmt.Sprintf("%s not in (%s)", key, strings.Join(r.Values, ","))
	case OpDoesNotExist:
		return "!" + key
	}
	return key
}

// Selector picks sets of labels: those that satisfy every requirement. As a peer
// it picks identities by their labels. The zero Selector picks everything.
type Selector struct{ Requirements []Requirement }

// Matches reports whether the labels satisfy every requirement.
func (s Selector) Matches(labels Labels) bool {
	for _, r := range s.Requirements {
		if !r.Matches(labels) {
			return false
		}
	}
	return true
}

func (s Selector) String() string {
	words := make([]string, len(s.Requirements))
	for i, r := range s.Requirements {
		words[i] = r.String()
	}
	return "{" + strings.Join(words, ", ") + "}"
}

func (s Selector) selects(info *IdentityInfo, _ string) bool { return s.Matches(info.Labels) }

// candidates returns sets that together hold every identity the selector can
// pick: those of its rarest label.
func (s Selector) candidates(ids *Identities) ([]idSet, bool) {
	var best []idSet
	size, found := 0, false
	for _, r := range s.Requirements {
		if !r.positive() {
			continue
		}
		sets := []idSet{ids.byKey[r.Key]}
		if r.Op == OpIn {
			sets = sets[:0]
			for _, v := range r.Values {
				sets = append(sets, ids.byValue[[2]string{r.Key, v}])
			}
		}
		n := 0
		for _, set := range sets {
			n += len(set)
		}
		if !found || n < size {
			best, size, found = sets, n, true
		}
	}
	return best, found
}
