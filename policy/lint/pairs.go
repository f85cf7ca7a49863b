package lint

import (
	"net/netip"
	"slices"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

// pairs compares rules with each other.
func (l *linter) pairs(rules []place) {
	for i, narrow := range rules {
		for j, broad := range rules {
			n, b := narrow.rule, broad.rule
			if i == j || n.Direction != b.Direction || n.Node != b.Node || len(b.Requires)+len(n.Requires) > 0 || !covers(b.Subject, n.Subject) {
				continue
			}
			if narrow.policy != broad.policy && l.policies[narrow.policy].Key() == l.policies[broad.policy].Key() {
				continue // one takes the place of the other
			}
			l.policy = narrow.policy
			if !b.Deny && !n.Deny {
				l.swallowed(n, b)
			}
			l.shadowed(n, b, j < i)
		}
	}
}

// swallowed finds L7 rules that limit nothing, as another rule allows the
// same connections whatever is in them. Of a range of ports they may still add to
// what rules for fewer ports allow.
func (l *linter) swallowed(n, b *policy.Rule) {
	who, all := sharedPeers(n, b)
	if !all && who == "" {
		return
	}
	for i := range n.Ports {
		p := &n.Ports[i]
		if p.L7 == nil || !n.DefaultDeny {
			continue
		}
		what, where := "", ""
		if len(b.Ports) == 0 {
			what = "every port"
		}
		for j := range b.Ports {
			if q := &b.Ports[j]; q.L7 == nil && q.Listener == nil && voids(q, p) {
				if what = verdict.PortText(q); q.First != p.First || q.Last != p.Last {
					where = " on " + what
				}
			}
		}
		switch {
		case what == "" || !l.once("swallowed by "+who, p.Ref.Path):
		case all:
			l.warn(p.Ref.Path+".rules", "limit nothing%s, as %s allows %s to the same peers whatever is in it; write the rules there too, or delete that port", where, b.Ref, what)
		default:
			l.warn(p.Ref.Path+".rules", "limit nothing%s for %s, as %s allows it %s whatever is in it; write the rules there too, or delete that port", where, who, b.Ref, what)
		}
	}
}

// voids reports whether a port without L7 rules puts those of another out of
// force: it does if it has the same ports or fewer.
func voids(q, p *policy.PortRule) bool {
	if q.Proto != p.Proto && q.Proto != policy.ProtoAny {
		return false
	}
	if q.Name != "" || p.Name != "" {
		return q.Name == p.Name
	}
	return q.First >= p.First && q.Last <= p.Last
}

// shadowed finds rules that make no difference beside a broader one: allows that
// are allowed or denied anyway, and denies that are.
func (l *linter) shadowed(n, b *policy.Rule, before bool) {
	if n.Deny && !b.Deny || !n.AnyPeer && len(n.Peers) == 0 || !portsCover(b, n) {
		return
	}
	if _, all := sharedPeers(n, b); !all {
		return
	}
	switch {
	case n.DefaultDeny && !b.DefaultDeny: // it does more than to allow or deny
	case b.Deny && !n.Deny:
		l.warn(n.Ref.Path, "allows nothing, as %s denies all of it; delete one of them", b.Ref)
	case !before && mutual(n, b): // said of the later one
	case !l.once("shadowed", n.Ref.Path):
	default:
		l.warn(n.Ref.Path, "adds nothing, as %s has all of it; delete one of them", b.Ref)
	}
}

// mutual reports whether the narrow rule covers the broad one too.
func mutual(n, b *policy.Rule) bool {
	_, all := sharedPeers(b, n)
	return all && covers(n.Subject, b.Subject) && portsCover(n, b)
}

// portsCover reports whether every port of the narrow rule is one of the broad
// rule, without L7 rules in either.
func portsCover(b, n *policy.Rule) bool {
	plain := func(p policy.PortRule) bool { return p.L7 != nil || p.Listener != nil || p.TLS != nil }
	if slices.ContainsFunc(b.Ports, plain) || !b.Deny && slices.ContainsFunc(n.Ports, plain) {
		return false
	}
	if len(b.Ports) == 0 {
		return true
	}
	if len(n.Ports) == 0 {
		return false
	}
	for i := range n.Ports {
		if !slices.ContainsFunc(b.Ports, func(q policy.PortRule) bool { return portCovers(&q, &n.Ports[i], b.Deny) }) {
			return false
		}
	}
	return true
}

// portCovers reports whether one port of a rule holds another. Of allows it must
// be the same: one that names fewer ports puts L7 rules out of force that one
// with more does not.
func portCovers(q, p *policy.PortRule, deny bool) bool {
	transport := p.Proto == policy.ProtoTCP || p.Proto == policy.ProtoUDP || p.Proto == policy.ProtoSCTP
	switch {
	case q.Proto != p.Proto && (q.Proto != policy.ProtoAny || !transport):
		return false
	case q.Name != "" || p.Name != "":
		return q.Name == p.Name
	case !deny:
		return q.First == p.First && q.Last == p.Last
	}
	return q.First <= p.First && p.Last <= q.Last
}

// sharedPeers says whether the broad rule names all peers of the narrow one, or
// else which of them it surely names.
func sharedPeers(n, b *policy.Rule) (who string, all bool) {
	if b.AnyPeer {
		return "", true
	}
	if n.AnyPeer {
		return "", false // to let some in without a look is mostly meant
	}
	all = len(n.Peers) > 0
	for _, p := range n.Peers {
		if slices.ContainsFunc(b.Peers, func(q policy.Peer) bool { return peerCovers(q, p) }) {
			_, who = verdict.PeerText(p)
		} else {
			all = false
		}
	}
	return who, all
}

// peerCovers reports whether one peer surely names all that another does.
func peerCovers(q, p policy.Peer) bool {
	switch q := q.(type) {
	case policy.Selector:
		s, ok := p.(policy.Selector)
		return ok && covers(q, s)
	case policy.NodeSelector:
		s, ok := p.(policy.NodeSelector)
		return ok && covers(q.Selector, s.Selector)
	case policy.CIDR:
		c, ok := p.(policy.CIDR)
		return ok && within(c.Prefix, q.Prefix) && !slices.ContainsFunc(q.Except, func(e netip.Prefix) bool {
			return e.Overlaps(c.Prefix) && !slices.ContainsFunc(c.Except, func(own netip.Prefix) bool { return within(e, own) })
		})
	case policy.Entity:
		if _, cidr := p.(policy.CIDR); cidr && q == policy.EntityWorld {
			return true
		}
	}
	kind, text := verdict.PeerText(q)
	otherKind, otherText := verdict.PeerText(p)
	return kind == otherKind && text == otherText
}

func within(inner, outer netip.Prefix) bool {
	return inner.Bits() >= outer.Bits() && outer.Contains(inner.Addr())
}

// covers reports whether one selector surely picks all that another does: it
// asks for nothing that the other does not ask for.
func covers(broad, narrow policy.Selector) bool {
	for _, want := range broad.Requirements {
		if !slices.ContainsFunc(narrow.Requirements, func(r policy.Requirement) bool { return implies(r, want) }) {
			return false
		}
	}
	return true
}

// implies reports whether what satisfies one requirement satisfies the other.
func implies(r, want policy.Requirement) bool {
	if r.Key != want.Key || r.Source != want.Source && want.Source != policy.SourceAny {
		return false
	}
	if r.Source != want.Source && want.Op != policy.OpIn && want.Op != policy.OpExists {
		return false
	}
	switch {
	case want.Op == policy.OpExists:
		return r.Op == policy.OpExists || r.Op == policy.OpIn
	case want.Op == policy.OpNotIn && r.Op == policy.OpDoesNotExist:
		return true
	case want.Op != r.Op:
		return false
	case want.Op == policy.OpNotIn:
		return subset(want.Values, r.Values)
	}
	return subset(r.Values, want.Values)
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(v string) bool { return !slices.Contains(b, v) })
}
