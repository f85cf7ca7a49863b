package cnp

import (
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// subjectSelector reads whom the policy is for. A namespaced policy is for its
// namespace only, whatever the selector says.
func (r *reader) subjectSelector(v manifest.Value) policy.Selector {
	reqs := v.Requirements(labelKey)
	if r.policy.Namespace == "" {
		return policy.Selector{Requirements: reqs}
	}
	own := inNamespace(r.policy.Namespace)
	for _, q := range reqs {
		switch {
		case namesNamespace(q) && contradicts(q, r.policy.Namespace):
			v.Fail("%s selects nothing in the namespace of the policy, %s; write another metadata.namespace, or a %s", q, r.policy.Namespace, KindClusterwidePolicy)
		case q.Source == policy.SourceReserved && (q.Op == policy.OpIn || q.Op == policy.OpExists):
			v.Fail("%s selects nothing in a namespace; write a %s", q, KindClusterwidePolicy)
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
func (r *reader) peerSelector(v manifest.Value) policy.Selector {
	reqs := v.Requirements(labelKey)
	var reserved, namespace, namespaceLabels bool
	for _, q := range reqs {
		needed := q.Op == policy.OpIn || q.Op == policy.OpExists
		switch {
		case q.Source == policy.SourceReserved && needed:
			reserved = true
		case namesNamespace(q):
			namespace = true
			if q.Op == policy.OpDoesNotExist {
				v.Fail("%s selects nothing, every workload has a namespace; write fromEntities or toEntities", q)
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

// labelKey splits "k8s:org" into source and key. Without a source any will do.
func labelKey(v manifest.Value, text string) (source, key string, ok bool) {
	source, key = policy.SourceAny, text
	if s, rest, found := strings.Cut(text, ":"); found {
		source, key = s, rest
	}
	switch source {
	case policy.SourceAny, policy.SourceK8s:
		if err := policy.ValidateLabelKey(strings.TrimPrefix(key, policy.PrefixOfNamespaceLabels)); err != nil {
			v.Fail("%v", err)
			return "", "", false
		}
		return source, key, true
	case policy.SourceReserved:
		if !slices.Contains(reservedKeys(), key) {
			v.Fail("%q is not a reserved label; write one of reserved:%s", text, strings.Join(reservedKeys(), ", reserved:"))
			return "", "", false
		}
		return source, key, true
	}
	v.Fail("%q has an unknown source; write k8s:%s, or %s for any source", text, key, key)
	return "", "", false
}

// nodeKey reads the key of a node's label, whatever source is written.
func nodeKey(v manifest.Value, text string) (source, key string, ok bool) {
	_, key, ok = objectKey(v, text)
	return policy.SourceNode, key, ok
}

// objectKey reads the key of a label of an object that is not a workload.
func objectKey(v manifest.Value, text string) (source, key string, ok bool) {
	key = text
	for _, prefix := range []string{policy.SourceAny, policy.SourceK8s, policy.SourceNode} {
		if rest, found := strings.CutPrefix(text, prefix+":"); found {
			key = rest
			break
		}
	}
	if err := policy.ValidateLabelKey(key); err != nil {
		v.Fail("%v", err)
		return "", "", false
	}
	return policy.SourceAny, key, true
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
