package cnp

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// peerKind is one way to name peers, and how it is read.
type peerKind struct {
	field string
	read  func(*reader, manifest.Value, *policy.Rule)
}

func prefixOf(dir policy.Direction) string {
	if dir == policy.Egress {
		return "to"
	}
	return "from"
}

func peerKinds(s section) []peerKind {
	prefix := prefixOf(s.direction)
	kinds := []peerKind{
		{prefix + "Endpoints", (*reader).endpoints},
		{prefix + "CIDR", (*reader).cidrs},
		{prefix + "CIDRSet", (*reader).cidrSets},
		{prefix + "Entities", (*reader).entities},
		{prefix + "Nodes", (*reader).nodes},
		{prefix + "Requires", (*reader).requires},
	}
	if s.direction == policy.Egress {
		kinds = append(kinds, peerKind{"toServices", (*reader).services})
		if !s.deny {
			kinds = append(kinds, peerKind{"toFQDNs", (*reader).fqdns})
		}
	}
	return kinds
}

// peers reads whom a rule names. It reports whether the rule has such a field: a
// field with an empty list names nobody, which is not the same as no field.
func (r *reader) peers(v manifest.Value, fields map[string]manifest.Value, kinds []peerKind, rule *policy.Rule) bool {
	var present, filled, empty []string
	for _, k := range kinds {
		field, ok := fields[k.field]
		if !ok {
			continue
		}
		present = append(present, k.field)
		requires := strings.HasSuffix(k.field, "Requires")
		switch {
		case requires:
		case field.Len() > 0:
			filled = append(filled, k.field)
		default:
			empty = append(empty, k.field)
		}
		k.read(r, field, rule)
	}
	if len(filled) > 1 {
		v.Fail("has %s; write a rule of its own for each", strings.Join(filled, " and "))
	}
	if len(empty) > 0 {
		v.Warn("names nobody, as %s is empty; name somebody, or delete the rule", strings.Join(empty, " and "))
		rule.Peers, rule.AnyPeer = nil, false
	}
	return len(present) > 0
}

func (r *reader) endpoints(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		rule.Peers = append(rule.Peers, r.peerSelector(item))
	}
}

// requires reads what the peers of every rule for the subject must have as well.
func (r *reader) requires(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		rule.Requires = append(rule.Requires, r.peerSelector(item).Requirements...)
	}
	v.Warn("was removed from Cilium 1.19; it allows nobody, and every %sEndpoints of the endpoints that the policy selects must have these labels too; write them there", prefixOf(rule.Direction))
}

func (r *reader) nodes(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		rule.Peers = append(rule.Peers, policy.NodeSelector{Selector: policy.Selector{Requirements: item.Requirements(nodeKey)}})
	}
}

func (r *reader) entities(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		name, ok := item.Text()
		if !ok {
			continue
		}
		switch e := policy.Entity(name); {
		case name == "all":
			rule.AnyPeer = true
		case slices.Contains(policy.Entities(), e):
			rule.Peers = append(rule.Peers, e)
		default:
			item.Fail("%q is not an entity; write one of all, %s", name, entityNames())
		}
	}
}

func entityNames() string {
	var names []string
	for _, e := range policy.Entities() {
		names = append(names, string(e))
	}
	return strings.Join(names, ", ")
}

func (r *reader) cidrs(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		if prefix, ok := item.Prefix(); ok {
			rule.Peers = append(rule.Peers, policy.CIDR{Prefix: prefix})
		}
	}
}

func (r *reader) cidrSets(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		if peer, ok := cidrSet(item); ok {
			rule.Peers = append(rule.Peers, peer)
		}
	}
}

func cidrSet(item manifest.Value) (policy.Peer, bool) {
	before := item.Failed()
	fields := item.Object([]string{"cidr", "cidrGroupRef", "cidrGroupSelector", "except"}, nil)
	cidr, hasCIDR := fields["cidr"]
	ref, hasRef := fields["cidrGroupRef"]
	selector, hasSelector := fields["cidrGroupSelector"]
	given := 0
	for _, has := range []bool{hasCIDR, hasRef, hasSelector} {
		if has {
			given++
		}
	}
	switch {
	case given == 0 && item.Failed() == before:
		item.Fail("cidr is missing; write one, as 10.0.0.0/8, or cidrGroupRef or cidrGroupSelector")
	case given > 1:
		item.Fail("has more than one of cidr, cidrGroupRef and cidrGroupSelector; write an item of its own for each")
	}
	if given != 1 {
		return nil, false
	}
	var prefix netip.Prefix
	group := policy.CIDRGroupPeer{}
	ok := true
	switch {
	case hasCIDR:
		prefix, ok = cidr.Prefix()
	case hasRef:
		if group.Name, ok = ref.Text(); ok {
			if err := policy.ValidateName(group.Name); err != nil {
				ref.Fail("%v", err)
			}
		}
	default:
		group.Selector.Requirements = selector.Requirements(objectKey)
	}
	if !ok {
		return nil, false
	}
	var except []netip.Prefix
	if holes, has := fields["except"]; has {
		except = holes.Except(prefix)
	}
	if hasCIDR {
		return policy.CIDR{Prefix: prefix, Except: except}, true
	}
	group.Except = except
	return group, true
}

func (r *reader) fqdns(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		name, pattern, ok := dnsName(item)
		if !ok {
			continue
		}
		peer, err := policy.NewFQDN(name, pattern)
		if err != nil {
			item.Fail("%v", err)
			continue
		}
		rule.Peers = append(rule.Peers, peer)
	}
}

// dnsName reads matchName or matchPattern, whichever is there.
func dnsName(v manifest.Value) (name, pattern string, ok bool) {
	name, pattern, _, ok = dnsNameWith(v)
	return name, pattern, ok
}

// dnsNameWith reads the same of an item that may have other fields too.
func dnsNameWith(v manifest.Value, more ...string) (name, pattern string, fields map[string]manifest.Value, ok bool) {
	before := v.Failed()
	fields = v.Object(append([]string{"matchName", "matchPattern"}, more...), nil)
	nameField, hasName := fields["matchName"]
	patternField, hasPattern := fields["matchPattern"]
	switch {
	case v.Failed() > before:
		return "", "", nil, false
	case hasName && hasPattern:
		v.Fail("has both matchName and matchPattern; write an item of its own for each")
		return "", "", nil, false
	case hasName:
		if name, ok = nameField.Text(); ok {
			if err := policy.ValidateDNSName(name); err != nil {
				nameField.Fail("%v", err)
			}
		}
	case hasPattern:
		if pattern, ok = patternField.Text(); ok {
			if err := policy.ValidateDNSPattern(pattern); err != nil {
				patternField.Fail("%v", err)
			}
		}
	default:
		v.Fail("needs matchName or matchPattern; write one, matchPattern: \"*\" for every name")
	}
	return name, pattern, fields, ok && v.Failed() == before
}

func (r *reader) services(v manifest.Value, rule *policy.Rule) {
	for _, item := range v.List() {
		fields := item.Object([]string{"k8sService", "k8sServiceSelector"}, nil)
		byName, hasName := fields["k8sService"]
		bySelector, hasSelector := fields["k8sServiceSelector"]
		switch {
		case hasName == hasSelector:
			item.Fail("needs one of k8sService and k8sServiceSelector; write one")
		case hasName:
			r.service(byName, rule)
		default:
			r.serviceSelector(bySelector, rule)
		}
	}
}

func (r *reader) service(v manifest.Value, rule *policy.Rule) {
	fields := v.Object([]string{"serviceName", "namespace"}, nil)
	name, ok := fields["serviceName"]
	if !ok {
		v.Fail("serviceName is missing; write it")
		return
	}
	peer := policy.ServicePeer{Namespace: namespaceOf(fields["namespace"])}
	if peer.Name, ok = name.Text(); !ok {
		return
	}
	if err := policy.ValidateName(peer.Name); err != nil {
		name.Fail("%v", err)
	}
	rule.Peers = append(rule.Peers, peer)
}

func (r *reader) serviceSelector(v manifest.Value, rule *policy.Rule) {
	fields := v.Object([]string{"selector", "namespace"}, nil)
	selector, ok := fields["selector"]
	if !ok {
		v.Fail("selector is missing; write one, {} for every service")
		return
	}
	rule.Peers = append(rule.Peers, policy.ServicePeer{
		Namespace: namespaceOf(fields["namespace"]),
		Selector:  policy.Selector{Requirements: selector.Requirements(objectKey)},
	})
}

// namespaceOf reads the namespace of a service; none is every namespace.
func namespaceOf(v manifest.Value) string {
	if !v.IsSet() {
		return ""
	}
	name, ok := v.Text()
	if ok {
		if err := policy.ValidateNamespace(name); err != nil {
			v.Fail("%v", err)
		}
	}
	return name
}
