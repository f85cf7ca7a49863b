package cnp

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// peerKind is one way to name peers, and how it is read.
type peerKind struct {
	field string
	read  func(*reader, value, *policy.Rule)
}

func peerKinds(dir policy.Direction) []peerKind {
	prefix := "from"
	if dir == policy.Egress {
		prefix = "to"
	}
	return []peerKind{
		{prefix + "Endpoints", (*reader).endpoints},
		{prefix + "CIDR", (*reader).cidrs},
		{prefix + "CIDRSet", (*reader).cidrSets},
		{prefix + "Entities", (*reader).entities},
	}
}

// peers reads whom a rule names. It reports whether the rule has such a field: a
// field with an empty list names nobody, which is not the same as no field.
func (r *reader) peers(v value, fields map[string]value, kinds []peerKind, rule *policy.Rule) bool {
	var present, filled, empty []string
	for _, k := range kinds {
		field, ok := fields[k.field]
		if !ok {
			continue
		}
		present = append(present, k.field)
		if len(field.node.Content) > 0 {
			filled = append(filled, k.field)
		} else {
			empty = append(empty, k.field)
		}
		k.read(r, field, rule)
	}
	if len(filled) > 1 {
		v.fail("has %s; write a rule of its own for each", strings.Join(filled, " and "))
	}
	if len(empty) > 0 {
		v.warn("names nobody, as %s is empty; name somebody, or delete the rule", strings.Join(empty, " and "))
		rule.Peers, rule.AnyPeer = nil, false
	}
	return len(present) > 0
}

func (r *reader) endpoints(v value, rule *policy.Rule) {
	for _, item := range v.list() {
		rule.Peers = append(rule.Peers, r.peerSelector(item))
	}
}

func (r *reader) entities(v value, rule *policy.Rule) {
	for _, item := range v.list() {
		name, ok := item.text()
		if !ok {
			continue
		}
		switch e := policy.Entity(name); {
		case name == "all":
			rule.AnyPeer = true
		case slices.Contains(policy.Entities(), e):
			rule.Peers = append(rule.Peers, e)
		default:
			item.fail("%q is not an entity; write one of all, %s", name, entityNames())
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

func (r *reader) cidrs(v value, rule *policy.Rule) {
	for _, item := range v.list() {
		if prefix, ok := item.prefix(); ok {
			rule.Peers = append(rule.Peers, policy.CIDR{Prefix: prefix})
		}
	}
}

func (r *reader) cidrSets(v value, rule *policy.Rule) {
	for _, item := range v.list() {
		before := len(v.doc.errs)
		fields := item.object([]string{"cidr", "except"}, refusedInCIDRSet)
		cidr, ok := fields["cidr"]
		if !ok {
			if len(v.doc.errs) == before {
				item.fail("cidr is missing; write one, as 10.0.0.0/8")
			}
			continue
		}
		prefix, ok := cidr.prefix()
		if !ok {
			continue
		}
		c := policy.CIDR{Prefix: prefix}
		if except, ok := fields["except"]; ok {
			for _, e := range except.list() {
				if hole, ok := e.prefix(); ok {
					e.checkHole(hole, prefix)
					c.Except = append(c.Except, hole)
				}
			}
		}
		rule.Peers = append(rule.Peers, c)
	}
}

func (v value) checkHole(hole, prefix netip.Prefix) {
	switch {
	case hole == prefix:
		v.fail("%s leaves nothing of the cidr; delete both", hole)
	case hole.Bits() < prefix.Bits() || !prefix.Contains(hole.Addr()):
		v.fail("%s is not within %s; write a part of it", hole, prefix)
	}
}

// prefix reads a range of addresses, or one address.
func (v value) prefix() (netip.Prefix, bool) {
	text, ok := v.text()
	if !ok {
		return netip.Prefix{}, false
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			v.fail("%q is not a CIDR; write one as 10.0.0.0/8 or 2001:db8::/32", text)
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		v.fail("%q is an IPv4 address in IPv6 form; write the IPv4 one", text)
		return netip.Prefix{}, false
	}
	if masked := prefix.Masked(); masked != prefix {
		v.warn("%s has bits behind its mask; write %s", prefix, masked)
		prefix = masked
	}
	return prefix, true
}
