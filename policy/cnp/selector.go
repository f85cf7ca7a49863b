package cnp

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// subjectSelector reads whom the policy is for. A namespaced policy is for its
// namespace only, whatever the selector says.
func (r *reader) subjectSelector(v value) policy.Selector {
	reqs := v.requirements()
	if r.policy.Namespace == "" {
		return policy.Selector{Requirements: reqs}
	}
	own := inNamespace(r.policy.Namespace)
	for _, q := range reqs {
		switch {
		case namesNamespace(q) && contradicts(q, r.policy.Namespace):
			v.fail("%s selects nothing in the namespace of the policy, %s; write another metadata.namespace, or a %s", q, r.policy.Namespace, KindClusterwidePolicy)
		case q.Source == policy.SourceReserved && (q.Op == policy.OpIn || q.Op == policy.OpExists):
			v.fail("%s selects nothing in a namespace; write a %s", q, KindClusterwidePolicy)
		}
	}
	return policy.Selector{Requirements: append(reqs, own)}
}

// contradicts reports whether the requirement fails for the namespace.
func contradicts(q policy.Requirement, namespace string) bool {
	labels, err := policy.NewLabels(policy.Label{Source: policy.SourceK8s, Key: policy.KeyNamespace, Value: namespace})
	return err != nil || !q.Matches(labels)
}

// peerSelector reads a selector of workloads. Unless it names a namespace it
// stays in that of the policy; it never leaves the managed workloads, whatever
// it says must not be there, except by naming a reserved label.
func (r *reader) peerSelector(v value) policy.Selector {
	reqs := v.requirements()
	var reserved, namespace, namespaceLabels bool
	for _, q := range reqs {
		needed := q.Op == policy.OpIn || q.Op == policy.OpExists
		switch {
		case q.Source == policy.SourceReserved && needed:
			reserved = true
		case namesNamespace(q):
			namespace = true
			if q.Op == policy.OpDoesNotExist {
				v.fail("%s selects nothing, every workload has a namespace; write fromEntities or toEntities", q)
			}
		case strings.HasPrefix(q.Key, policy.PrefixOfNamespaceLabels):
			namespaceLabels = true
		}
	}
	switch {
	case reserved:
	case r.policy.Namespace != "" && !namespace && !namespaceLabels:
		reqs = append(reqs, inNamespace(r.policy.Namespace))
	default:
		reqs = append(reqs, policy.Requirement{Source: policy.SourceK8s, Key: policy.KeyNamespace, Op: policy.OpExists})
	}
	return policy.Selector{Requirements: reqs}
}

func inNamespace(namespace string) policy.Requirement {
	return policy.Requirement{Source: policy.SourceK8s, Key: policy.KeyNamespace, Op: policy.OpIn, Values: []string{namespace}}
}

func namesNamespace(q policy.Requirement) bool {
	return q.Key == policy.KeyNamespace && (q.Source == policy.SourceK8s || q.Source == policy.SourceAny)
}

// requirements reads matchLabels and matchExpressions.
func (v value) requirements() []policy.Requirement {
	fields := v.object([]string{"matchLabels", "matchExpressions"}, nil)
	var reqs []policy.Requirement
	if labels, ok := fields["matchLabels"]; ok {
		for _, e := range labels.mapping() {
			source, key, ok := e.labelKey(e.key)
			text, isText := e.text()
			if !ok || !isText || !e.labelValue(source, text) {
				continue
			}
			reqs = append(reqs, policy.Requirement{Source: source, Key: key, Op: policy.OpIn, Values: []string{text}})
		}
	}
	if expressions, ok := fields["matchExpressions"]; ok {
		for _, item := range expressions.list() {
			if q, ok := item.expression(); ok {
				reqs = append(reqs, q)
			}
		}
	}
	v.checkContradiction(reqs)
	return reqs
}

// checkContradiction refuses requirements on one key that no label satisfies.
func (v value) checkContradiction(reqs []policy.Requirement) {
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
				v.fail("selects nothing, as %s and %s cannot both be; delete one", q, o)
				return
			}
		}
	}
}

// expression reads one item of matchExpressions.
func (v value) expression() (policy.Requirement, bool) {
	fields := v.object([]string{"key", "operator", "values"}, nil)
	keyField, hasKey := fields["key"]
	opField, hasOp := fields["operator"]
	if !hasKey || !hasOp {
		v.fail("needs key and operator; write both")
		return policy.Requirement{}, false
	}
	keyText, ok := keyField.text()
	if !ok {
		return policy.Requirement{}, false
	}
	source, key, ok := keyField.labelKey(keyText)
	op, isOp := opField.operator()
	if !ok || !isOp {
		return policy.Requirement{}, false
	}
	q := policy.Requirement{Source: source, Key: key, Op: op}
	if values, ok := fields["values"]; ok {
		for _, item := range values.list() {
			if text, ok := item.text(); ok && item.labelValue(source, text) {
				q.Values = append(q.Values, text)
			}
		}
		if len(values.node.Content) > 0 && (op == policy.OpExists || op == policy.OpDoesNotExist) {
			values.fail("do not go with %s; delete them, or write In or NotIn", op)
		}
	}
	if len(q.Values) == 0 && (op == policy.OpIn || op == policy.OpNotIn) {
		v.fail("%s needs values; write at least one", op)
		return q, false
	}
	return q, true
}

func (v value) operator() (policy.Operator, bool) {
	text, ok := v.text()
	if !ok {
		return 0, false
	}
	for _, op := range []policy.Operator{policy.OpIn, policy.OpNotIn, policy.OpExists, policy.OpDoesNotExist} {
		if text == op.String() {
			return op, true
		}
	}
	v.fail("%q is not an operator; write In, NotIn, Exists or DoesNotExist", text)
	return 0, false
}

// labelKey splits "k8s:org" into source and key. Without a source any will do.
func (v value) labelKey(text string) (source, key string, ok bool) {
	source, key = policy.SourceAny, text
	if s, rest, found := strings.Cut(text, ":"); found {
		source, key = s, rest
	}
	switch source {
	case policy.SourceAny, policy.SourceK8s:
		if err := policy.ValidateLabelKey(strings.TrimPrefix(key, policy.PrefixOfNamespaceLabels)); err != nil {
			v.fail("%v", err)
			return "", "", false
		}
		return source, key, true
	case policy.SourceReserved:
		if !slices.Contains(reservedKeys(), key) {
			v.fail("%q is not a reserved label; write one of reserved:%s", text, strings.Join(reservedKeys(), ", reserved:"))
			return "", "", false
		}
		return source, key, true
	}
	v.fail("%q has an unknown source; write k8s:%s, or %s for any source", text, key, key)
	return "", "", false
}

// reservedKeys lists the keys that reserved identities carry.
func reservedKeys() []string {
	var keys []string
	for id := policy.IdentityHost; ; id++ {
		labels, ok := policy.ReservedLabels(id)
		if !ok {
			slices.Sort(keys)
			return slices.Compact(keys)
		}
		for _, l := range labels.All() {
			keys = append(keys, l.Key)
		}
	}
}

func (v value) labelValue(source, text string) bool {
	if source == policy.SourceReserved && text != "" {
		v.fail("%q: reserved labels have no value; write \"\"", text)
		return false
	}
	if err := policy.ValidateLabelValue(text); err != nil {
		v.fail("%v", err)
		return false
	}
	return true
}
