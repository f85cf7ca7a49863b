package policy

import (
	"maps"
	"net/netip"
	"slices"
)

// CIDRGroupPeer refers to CiliumCIDRGroups: by name, or else by their labels.
// Until Expand puts their addresses in its place it picks nobody.
type CIDRGroupPeer struct {
	Name     string
	Selector Selector // when there is no name
	Except   []netip.Prefix
}

func (CIDRGroupPeer) selects(*IdentityInfo, string) bool { return false }

// ServicePeer refers to services: by name, or else by their labels. An empty
// Namespace is every namespace. Until Expand puts what is behind them in its
// place it picks nobody.
type ServicePeer struct {
	Namespace string
	Name      string
	Selector  Selector // when there is no name
}

func (ServicePeer) selects(*IdentityInfo, string) bool { return false }

// CIDRGroup is a named list of addresses.
type CIDRGroup struct {
	Name   string
	Labels map[string]string
	CIDRs  []netip.Prefix
}

// Service is what is known of a service.
type Service struct {
	Namespace string
	Name      string
	Labels    map[string]string
	Selector  map[string]string // the workloads behind it; empty: the addresses are
	Addresses []netip.Addr      // its own, or what is behind it when there is no selector
}

// Objects is what policies refer to by name or label.
type Objects struct {
	CIDRGroups []CIDRGroup
	Services   []Service
}

// AddGroups adds the CiliumCIDRGroups among the policies.
func (o *Objects) AddGroups(policies ...Policy) {
	for _, p := range policies {
		if p.Kind == KindCIDRGroup {
			o.CIDRGroups = append(o.CIDRGroups, CIDRGroup{p.Name, p.Labels, p.CIDRs})
		}
	}
}

// KindCIDRGroup is the kind of the policies that Objects takes groups from.
const KindCIDRGroup = "CiliumCIDRGroup"

// Expand puts in place of every reference what it stands for now. Rules without
// references are returned as they are. A reference to what does not exist names
// nobody.
func (o *Objects) Expand(rules []Rule) []Rule {
	expanded := slices.Clone(rules)
	for i := range expanded {
		r := &expanded[i]
		if !slices.ContainsFunc(r.Peers, isReference) {
			continue
		}
		var peers []Peer
		for _, p := range r.Peers {
			switch p := p.(type) {
			case CIDRGroupPeer:
				peers = append(peers, o.groups(p)...)
			case ServicePeer:
				peers = append(peers, o.services(p)...)
			default:
				peers = append(peers, p)
			}
		}
		r.Peers = peers
	}
	return expanded
}

func isReference(p Peer) bool {
	switch p.(type) {
	case CIDRGroupPeer, ServicePeer:
		return true
	}
	return false
}

func (o *Objects) groups(ref CIDRGroupPeer) []Peer {
	var peers []Peer
	for _, g := range o.CIDRGroups {
		if ref.Name != "" && ref.Name != g.Name || ref.Name == "" && !ref.Selector.Matches(objectLabels(g.Labels)) {
			continue
		}
		for _, prefix := range g.CIDRs {
			var except []netip.Prefix
			for _, e := range ref.Except {
				if within(e, prefix) || within(prefix, e) {
					except = append(except, e)
				}
			}
			peers = append(peers, CIDR{Prefix: prefix, Except: except})
		}
	}
	return peers
}

func (o *Objects) services(ref ServicePeer) []Peer {
	var peers []Peer
	for _, s := range o.Services {
		if ref.Namespace != "" && ref.Namespace != s.Namespace {
			continue
		}
		if ref.Name != "" && ref.Name != s.Name || ref.Name == "" && !ref.Selector.Matches(objectLabels(s.Labels)) {
			continue
		}
		if len(s.Selector) > 0 {
			behind := Selector{[]Requirement{{SourceK8s, KeyNamespace, OpIn, []string{s.Namespace}}}}
			for _, key := range slices.Sorted(maps.Keys(s.Selector)) {
				behind.Requirements = append(behind.Requirements, Requirement{SourceK8s, key, OpIn, []string{s.Selector[key]}})
			}
			peers = append(peers, behind)
		}
		for _, a := range s.Addresses {
			peers = append(peers, CIDR{Prefix: netip.PrefixFrom(a, a.BitLen())})
		}
	}
	return peers
}

// objectLabels are those of an object that is not a workload; selectors of such
// objects ask for any source.
func objectLabels(labels map[string]string) Labels {
	var list []Label
	for key, value := range labels {
		list = append(list, Label{SourceK8s, key, value})
	}
	slices.SortFunc(list, compareLabels)
	return Labels{list}
}
