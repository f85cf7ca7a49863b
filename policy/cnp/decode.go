// Package cnp reads CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy and
// CiliumCIDRGroup documents into policy rules.
//
// It reads strictly: a field, a kind of rule or a value that it does not
// understand makes the whole file an error, which names the place and what to
// write instead. What is not understood is never an allow.
package cnp

import (
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// The kinds that are read, and their version.
const (
	APIVersion            = "cilium.io/v2"
	KindNetworkPolicy     = "CiliumNetworkPolicy"
	KindClusterwidePolicy = "CiliumClusterwideNetworkPolicy"
	KindCIDRGroup         = policy.KindCIDRGroup

	alphaVersion = "cilium.io/v2alpha1" // CiliumCIDRGroups began there
)

// Kinds says how the documents are read.
func Kinds() []manifest.Kind {
	fields := []string{"spec", "specs", "status", "description"}
	return []manifest.Kind{
		{Name: KindNetworkPolicy, APIVersions: []string{APIVersion}, Fields: fields, Read: read},
		{Name: KindClusterwidePolicy, APIVersions: []string{APIVersion}, Clusterwide: true, Fields: fields, Read: read},
		{Name: KindCIDRGroup, APIVersions: []string{APIVersion, alphaVersion}, Clusterwide: true, Fields: []string{"spec"}, Read: readGroup},
	}
}

// read reads a policy.
func read(d *manifest.Document, fields map[string]manifest.Value, p *policy.Policy) {
	if description, ok := fields["description"]; ok {
		description.Warn("belongs under spec; a cluster drops it here")
	}
	spec, hasSpec := fields["spec"]
	specs, hasSpecs := fields["specs"]
	if !hasSpec && !hasSpecs {
		d.Fail("spec", "is missing; write the policy under spec, or several under specs")
		return
	}
	if hasSpec {
		p.Rules = append(p.Rules, readSpec(spec, p)...)
	}
	if hasSpecs {
		items := specs.List()
		if len(items) == 0 && !hasSpec {
			specs.Fail("is empty; write at least one policy")
		}
		for _, item := range items {
			p.Rules = append(p.Rules, readSpec(item, p)...)
		}
	}
	checkProtocols(d, p.Rules)
}

// readGroup reads a CiliumCIDRGroup.
func readGroup(d *manifest.Document, fields map[string]manifest.Value, p *policy.Policy) {
	spec, ok := fields["spec"]
	if !ok {
		d.Fail("spec", "is missing; write spec: {externalCIDRs: [10.0.0.0/8]}")
		return
	}
	list, ok := spec.Object([]string{"externalCIDRs"}, nil)["externalCIDRs"]
	if !ok {
		spec.Fail("externalCIDRs is missing; write a list, [] for nobody")
		return
	}
	for _, item := range list.List() {
		if prefix, ok := item.Prefix(); ok {
			p.CIDRs = append(p.CIDRs, prefix)
		}
	}
	if list.Len() == 0 {
		list.Warn("is empty, so rules that refer to the group name nobody by it")
	}
}
