package manifest

import (
	"net/netip"
	"slices"

	"github.com/headgate/headgate/policy"
)

// KeyReader reads the key of a label, as the kind spells it.
type KeyReader func(v Value, text string) (source, key string, ok bool)

// Requirements reads matchLabels and matchExpressions.
func (v Value) Requirements(key KeyReader) []policy.Requirement {
	fields := v.Object([]string{"matchLabels", "matchExpressions"}, nil)
	var reqs []policy.Requirement
	if labels, ok := fields["matchLabels"]; ok {
		for _, e := range labels.Mapping() {
			source, name, ok := key(e.Value, e.Key)
			text, isText := e.Text()
			if !ok || !isText || !e.labelValue(source, text) {
				continue
			}
			reqs = append(reqs, policy.Requirement{Source: source, Key: name, Op: policy.OpIn, Values: []string{text}})
		}
	}
	if expressions, ok := fields["matchExpressions"]; ok {
		for _, item := range expressions.List() {
			if q, ok := item.expression(key); ok {
				reqs = append(reqs, q)
			}
		}
	}
	v.checkContradiction(reqs)
	return reqs
}

// checkContradiction refuses requirements on one key that no label satisfies.
func (v Value) checkContradiction(reqs []policy.Requirement) {
	for i, q := range reqs {
		if q.Op != policy.OpIn && q.Op != policy.OpExists {
			continue
		}
		left := slices.Clone(q.Values) // what the others leave of them
		for j, o := range reqs {
			if i == j || q.Key != o.Key || (q.Source == policy.SourceReserved) != (o.Source == policy.SourceReserved) {
				continue
			}
			left = slices.DeleteFunc(left, func(s string) bool {
				return o.Op == policy.OpIn && !slices.Contains(o.Values, s) || o.Op == policy.OpNotIn && slices.Contains(o.Values, s)
			})
			if o.Op == policy.OpDoesNotExist || q.Op == policy.OpIn && len(left) == 0 {
				v.Fail("selects nothing, as %s and %s cannot both be; delete one", q, o)
				return
			}
		}
	}
}

// expression reads one item of matchExpressions.
func (v Value) expression(key KeyReader) (policy.Requirement, bool) {
	fields := v.Object([]string{"key", "operator", "values"}, nil)
	keyField, hasKey := fields["key"]
	opField, hasOp := fields["operator"]
	if !hasKey || !hasOp {
		v.Fail("needs key and operator; write both")
		return policy.Requirement{}, false
	}
	keyText, ok := keyField.Text()
	if !ok {
		return policy.Requirement{}, false
	}
	source, name, ok := key(keyField, keyText)
	op, isOp := opField.operator()
	if !ok || !isOp {
		return policy.Requirement{}, false
	}
	q := policy.Requirement{Source: source, Key: name, Op: op}
	if values, ok := fields["values"]; ok {
		for _, item := range values.List() {
			if text, ok := item.Text(); ok && item.labelValue(source, text) {
				q.Values = append(q.Values, text)
			}
		}
		if values.Len() > 0 && (op == policy.OpExists || op == policy.OpDoesNotExist) {
			values.Fail("do not go with %s; delete them, or write In or NotIn", op)
		}
	}
	if len(q.Values) == 0 && (op == policy.OpIn || op == policy.OpNotIn) {
		v.Fail("%s needs values; write at least one", op)
		return q, false
	}
	return q, true
}

func (v Value) operator() (policy.Operator, bool) {
	text, ok := v.Text()
	if !ok {
		return 0, false
	}
	for _, op := range []policy.Operator{policy.OpIn, policy.OpNotIn, policy.OpExists, policy.OpDoesNotExist} {
		if text == op.String() {
			return op, true
		}
	}
	v.Fail("%q is not an operator; write In, NotIn, Exists or DoesNotExist", text)
	return 0, false
}

func (v Value) labelValue(source, text string) bool {
	if source == policy.SourceReserved && text != "" {
		v.Fail("%q: reserved labels have no value; write \"\"", text)
		return false
	}
	if err := policy.ValidateLabelValue(text); err != nil {
		v.Fail("%v", err)
		return false
	}
	return true
}

// Except reads what is left out of a range of addresses.
func (v Value) Except(prefix netip.Prefix) []netip.Prefix {
	var holes []netip.Prefix
	for _, e := range v.List() {
		hole, ok := e.Prefix()
		if !ok {
			continue
		}
		switch {
		case !prefix.IsValid(): // it is not known yet
		case hole == prefix:
			e.Fail("%s leaves nothing of the cidr; delete both", hole)
		case hole.Bits() < prefix.Bits() || !prefix.Contains(hole.Addr()):
			e.Fail("%s is not within %s; write a part of it", hole, prefix)
		}
		holes = append(holes, hole)
	}
	return holes
}

// Prefix reads a range of addresses, or one address.
func (v Value) Prefix() (netip.Prefix, bool) {
	text, ok := v.Text()
	if !ok {
		return netip.Prefix{}, false
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			v.Fail("%q is not a CIDR; write one as 10.0.0.0/8 or 2001:db8::/32", text)
			return netip.Prefix{}, false
		}
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if prefix.Addr().Is4In6() {
		v.Fail("%q is an IPv4 address in IPv6 form; write the IPv4 one", text)
		return netip.Prefix{}, false
	}
	if masked := prefix.Masked(); masked != prefix {
		v.Warn("%s has bits behind its mask; write %s", prefix, masked)
		prefix = masked
	}
	return prefix, true
}
