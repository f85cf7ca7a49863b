package policy

import (
	"maps"
	"slices"
)

// Index keeps policies, identities and subjects, and makes the tables of those
// subjects that a change concerns: what it costs depends on what the change is
// about, not on how much there is. Its tables are exactly those of Resolve over
// the rules of all policies in the order of their keys.
//
// Equal selectors are kept once, each with what it picks. A change finds the
// selectors that could pick what changed by its labels and prefix, these know
// the rules that they stand in, and rules know their subjects. It is not safe
// for concurrent use.
type Index struct {
	ids      *Identities
	objects  Objects
	policies map[string]*heldPolicy
	subjects map[string]*heldSubject

	chosen     map[string]*cohort // who is a subject of rules, by its text
	cohorts    anchored[*cohort]  // the same, by anchors
	population anchored[*heldSubject]
	heard      map[string]*audience // peers, by their text
	audiences  anchored[*audience]
	portNames  map[string]map[*heldRule]struct{} // egress rules with a named port
	requiring  int                               // rules with Requires

	stale map[*heldSubject]struct{}
}

// Resolved is what Resolve returns.
type Resolved struct {
	Table Table
	Sets  L7Table
}

// NewIndex returns an index of nothing but the reserved identities.
func NewIndex() *Index {
	return &Index{
		ids:        NewIdentities(),
		policies:   map[string]*heldPolicy{},
		subjects:   map[string]*heldSubject{},
		chosen:     map[string]*cohort{},
		cohorts:    anchored[*cohort]{},
		population: anchored[*heldSubject]{},
		heard:      map[string]*audience{},
		audiences:  anchored[*audience]{},
		portNames:  map[string]map[*heldRule]struct{}{},
		stale:      map[*heldSubject]struct{}{},
	}
}

// Identities are those of the index, to be read: they change by its methods.
func (x *Index) Identities() *Identities { return x.ids }

// SetIdentity makes an identity known, or replaces what was known of it.
func (x *Index) SetIdentity(info IdentityInfo) error {
	before := x.ids.byID[info.ID]
	if before != nil && before.equal(&info) {
		return nil
	}
	if err := x.ids.Add(info); err != nil {
		return err
	}
	x.identityChanged(info.ID, before, x.ids.byID[info.ID])
	return nil
}

// RemoveIdentity forgets an identity. Reserved ones stay.
func (x *Index) RemoveIdentity(id Identity) {
	before := x.ids.byID[id]
	x.ids.Remove(id)
	if after := x.ids.byID[id]; after != before {
		x.identityChanged(id, before, after)
	}
}

func (info *IdentityInfo) equal(o *IdentityInfo) bool {
	labels := o.Labels
	if labels.Len() == 0 && o.Prefix.IsValid() {
		labels = CIDRLabels(o.Prefix)
	}
	return info.Labels.Equal(labels) && info.Prefix == o.Prefix && maps.EqualFunc(info.NamedPorts, o.NamedPorts, slices.Equal)
}

// identityChanged tells the audiences and the rules that name ports. Before or
// after is nil for what was not, or is no more.
func (x *Index) identityChanged(id Identity, before, after *IdentityInfo) {
	var at []anchor
	ports := map[string]struct{}{}
	for _, info := range []*IdentityInfo{before, after} {
		if info == nil {
			continue
		}
		at = append(at, info.anchors()...)
		for name := range info.NamedPorts {
			ports[name] = struct{}{}
		}
	}
	relabelled := before != nil && after != nil && x.asksMembers(before.Labels, after.Labels)
	for a := range x.audiences.find(at) {
		if a.update(id, after, relabelled) {
			x.touch(a.users)
		}
	}
	for name := range ports {
		if before == nil || after == nil || !slices.Equal(before.NamedPorts[name], after.NamedPorts[name]) {
			x.touch(x.portNames[name])
		}
	}
}

// asksMembers reports whether the labels of one that was and stays a member of
// audiences matter all the same: because of Rule.Requires, or because it is now
// of another cluster.
func (x *Index) asksMembers(before, after Labels) bool {
	was, _ := before.Get(SourceK8s, KeyCluster)
	is, _ := after.Get(SourceK8s, KeyCluster)
	return was != is || x.requiring > 0 && !before.Equal(after)
}

// touch marks the subjects of rules.
func (x *Index) touch(rules map[*heldRule]struct{}) {
	for r := range rules {
		x.touchSubjects(r.subjects)
	}
}

func (x *Index) touchSubjects(c *cohort) {
	for s := range c.members {
		x.stale[s] = struct{}{}
	}
}

// Stale returns the keys of the subjects whose tables may differ from what they were
// when it was last asked, and forgets them. Whoever makes the tables himself needs it
// in place of Changes.
func (x *Index) Stale() []string {
	keys := make([]string, 0, len(x.stale))
	for s := range x.stale {
		keys = append(keys, s.key)
	}
	clear(x.stale)
	return keys
}

// Changes returns the new tables of the subjects whose tables differ from those
// last returned, by key. Subjects that are gone are not among them.
func (x *Index) Changes() map[string]Resolved {
	changed := map[string]Resolved{}
	for s := range x.stale {
		now := x.resolve(s)
		if !s.known || !now.equal(&s.now) {
			s.now, s.known = now, true
			changed[s.key] = now
		}
	}
	clear(x.stale)
	return changed
}

// equal compares the sets by their ids, which stand in the entries.
func (r *Resolved) equal(o *Resolved) bool {
	return slices.Equal(r.Table.Rules, o.Table.Rules) && maps.Equal(r.Table.Entries, o.Table.Entries)
}
