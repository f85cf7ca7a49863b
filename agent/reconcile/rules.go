package reconcile

import (
	"maps"
	"net/netip"
	"reflect"

	"github.com/headgate/headgate/agent/service"
	"github.com/headgate/headgate/policy"
)

// What a change costs must depend on what it is about, not on how much there is. So
// the index is told of each policy once, and says which subjects a change concerns;
// the others keep the tables that they have.

// rulebook is what is known of all policies together, as the index was told of them.
type rulebook struct {
	index    *policy.Index
	policies map[string]*Policy
	objects  policy.Objects
	rules    []policy.Rule // of all, with what references stand for
	prefixes []netip.Prefix
	denied   map[netip.Prefix]bool
}

func newRulebook() rulebook {
	return rulebook{index: policy.NewIndex(), policies: map[string]*Policy{}}
}

// update tells the index what changed.
func (b *rulebook) update(policies map[string]*Policy, services []policy.Service) {
	changed := false
	for key, p := range policies {
		if b.policies[key] != p {
			b.index.SetPolicy(key, p.Rules)
			changed = true
		}
	}
	for key := range b.policies {
		if policies[key] == nil {
			b.index.SetPolicy(key, nil)
			changed = true
		}
	}
	objects := policy.Objects{Services: services}
	if changed {
		b.policies = maps.Clone(policies)
		for _, key := range sortedKeys(policies) {
			objects.AddGroups(policies[key].Policy)
		}
	} else {
		objects.CIDRGroups = b.objects.CIDRGroups
	}
	if !reflect.DeepEqual(objects, b.objects) {
		b.index.SetObjects(objects)
		b.objects, changed = objects, true
	}
	if changed {
		b.collect()
	}
}

func (b *rulebook) collect() {
	var all []policy.Rule
	for _, key := range sortedKeys(b.policies) {
		all = append(all, b.policies[key].Rules...)
	}
	b.rules = b.objects.Expand(all)
	b.prefixes, b.denied = policy.Prefixes(b.rules), denied(b.rules)
}

// updateRules tells the rulebook what is wanted now.
func (e *Engine) updateRules() {
	e.book.update(e.policies, service.ForPolicy(e.serviceList(), e.view(nil)))
}

// resolved is the table of a subject, without numbers.
type resolved struct {
	table policy.AuditedTable
	sets  policy.L7Table
	names *nameTable // of rules about names; nil: none
	audit bool       // it was made for a node on which policies only audit
}

// resolve makes the tables anew of those whom the change concerns, and says who they are.
func (e *Engine) resolve(audit bool) []*subject {
	index := e.book.index
	for key, s := range e.subjects {
		if s.users > 0 {
			index.SetSubject(key, s.of)
		} else {
			index.RemoveSubject(key)
			s.resolved, s.want, s.ports = nil, nil, nil
		}
	}
	for _, key := range index.Stale() {
		if s := e.subjects[key]; s != nil {
			s.resolved = nil
		}
	}
	var changed []*subject
	for key, s := range e.subjects {
		if s.users == 0 || s.resolved != nil && s.resolved.audit == audit {
			continue
		}
		rules := index.Rules(key)
		r := &resolved{audit: audit}
		r.table, r.sets = policy.ResolveAudited(s.of, rules, e.ids, audit)
		s.resolved, s.names = r, selecting(rules, &s.of)
		changed = append(changed, s)
	}
	return changed
}
