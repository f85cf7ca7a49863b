package policy

import "net/netip"

// anchor is something that a labelled thing has and a selector asks for. A
// selector lies at few anchors such that everything it picks has one of them:
// who knows the anchors of a thing finds the selectors that could pick it, and
// the other way round.
type anchor struct {
	kind       anchorKind
	key, value string
	prefix     netip.Prefix
}

type anchorKind uint8

const (
	anchorAll    anchorKind = iota // everything has it
	anchorKey                      // a label's key, whatever its source
	anchorValue                    // a label's key and value, whatever its source
	anchorPrefix                   // a prefix that holds the thing's own
	anchorNamed                    // being seen in the DNS under some name
)

// anchored finds things by their anchors.
type anchored[T comparable] map[anchor]map[T]struct{}

func (a anchored[T]) add(thing T, at []anchor) {
	for _, key := range at {
		set := a[key]
		if set == nil {
			set = map[T]struct{}{}
			a[key] = set
		}
		set[thing] = struct{}{}
	}
}

func (a anchored[T]) remove(thing T, at []anchor) {
	for _, key := range at {
		delete(a[key], thing)
		if len(a[key]) == 0 {
			delete(a, key)
		}
	}
}

// find returns what lies at any of the anchors, each thing once.
func (a anchored[T]) find(at []anchor) map[T]struct{} {
	found := map[T]struct{}{}
	for _, key := range at {
		for thing := range a[key] {
			found[thing] = struct{}{}
		}
	}
	return found
}

func (a anchored[T]) count(at []anchor) int {
	n := 0
	for _, key := range at {
		n += len(a[key])
	}
	return n
}

// labelAnchors are all that labels have.
func labelAnchors(labels Labels) []anchor {
	at := make([]anchor, 1, 1+2*len(labels.list))
	for _, l := range labels.list {
		at = append(at, anchor{kind: anchorKey, key: l.Key}, anchor{kind: anchorValue, key: l.Key, value: l.Value})
	}
	return at
}

// anchors are all that an identity has.
func (info *IdentityInfo) anchors() []anchor {
	at := labelAnchors(info.Labels)
	for _, l := range info.Labels.list {
		if l.Source == SourceFQDN {
			at = append(at, anchor{kind: anchorNamed})
			break
		}
	}
	if p := info.Prefix; p.IsValid() {
		for bits := range p.Bits() + 1 {
			at = append(at, anchor{kind: anchorPrefix, prefix: netip.PrefixFrom(p.Addr(), bits).Masked()})
		}
	}
	return at
}

// anchors are those of the requirement that fewest things satisfy, by a count of
// things at anchors. Without a requirement that asks for a label it is the anchor
// of everything.
func (s Selector) anchors(count func([]anchor) int) []anchor {
	best, fewest := []anchor{{}}, -1
	for _, r := range s.Requirements {
		if !r.positive() {
			continue
		}
		at := []anchor{{kind: anchorKey, key: r.Key}}
		if r.Op == OpIn {
			at = at[:0]
			for _, v := range r.Values {
				at = append(at, anchor{kind: anchorValue, key: r.Key, value: v})
			}
		}
		if n := count(at); fewest < 0 || n < fewest {
			best, fewest = at, n
		}
	}
	return best
}
