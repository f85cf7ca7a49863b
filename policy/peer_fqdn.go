package policy

import (
	"fmt"
	"net/netip"
	"slices"
)

// SourceFQDN is where the labels come from that say by which names an address
// was seen.
const SourceFQDN = "fqdn"

// NamedLabels returns the labels of the identity of an address that was seen
// under DNS names.
func NamedLabels(address netip.Prefix, names ...string) Labels {
	list := CIDRLabels(address).list
	for _, name := range names {
		list = append(list, Label{Source: SourceFQDN, Key: NormalName(name)})
	}
	slices.SortFunc(list, compareLabels)
	return Labels{slices.Compact(list)}
}

// FQDN picks addresses by the names under which they were seen in the DNS: by
// one name, or by a pattern. It never picks an address that was not seen, not
// even by "*". The zero FQDN picks nothing.
type FQDN struct {
	Name    string // in normal form
	Pattern string
	pattern DNSPattern
}

// NewFQDN makes a peer of a name, or else of a pattern.
func NewFQDN(name, pattern string) (FQDN, error) {
	switch {
	case (name == "") == (pattern == ""):
		return FQDN{}, fmt.Errorf("needs either a name or a pattern")
	case name != "":
		return FQDN{Name: NormalName(name)}, ValidateDNSName(name)
	}
	compiled, err := CompileDNSPattern(pattern)
	return FQDN{Pattern: NormalName(pattern), pattern: compiled}, err
}

func (f FQDN) String() string { return f.Name + f.Pattern }

// MatchesName reports whether it picks the addresses of a name.
func (f FQDN) MatchesName(name string) bool {
	switch {
	case f.Name != "":
		return NormalName(name) == f.Name
	case f.Pattern != "":
		return f.pattern.Match(name)
	}
	return false
}

func (f FQDN) selects(info *IdentityInfo, _ string) bool {
	if !info.Prefix.IsValid() {
		return false
	}
	if slices.ContainsFunc(info.Picked, func(p FQDN) bool { return compareFQDN(p, f) == 0 }) {
		return true
	}
	for _, l := range info.Labels.list {
		if l.Source == SourceFQDN && f.MatchesName(l.Key) {
			return true
		}
	}
	return false
}
