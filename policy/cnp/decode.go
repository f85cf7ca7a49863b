// Package cnp reads CiliumNetworkPolicy and CiliumClusterwideNetworkPolicy
// documents into policy rules.
//
// It reads strictly: a field, a kind of rule or a value that it does not
// understand makes the whole file an error, which names the place and what to
// write instead. What is not understood is never an allow.
package cnp

import (
	"fmt"
	"strings"

	"github.com/headgate/headgate/policy"
)

// The kinds that Decode reads, and their version.
const (
	APIVersion             = "cilium.io/v2"
	KindNetworkPolicy      = "CiliumNetworkPolicy"
	KindClusterwidePolicy  = "CiliumClusterwideNetworkPolicy"
	annotationPrefix       = "headgate.dev/"
	annotationMode         = annotationPrefix + "mode"
	annotationModeEnforced = "enforce"
)

// Decode reads every policy of a file, YAML or JSON. All or nothing: if anything
// is wrong it returns no policy and Errors.
func Decode(file string, data []byte) ([]policy.Policy, error) {
	var policies []policy.Policy
	var errs Errors
	first := map[string]int{}
	for i, source := range split(data) {
		d := &document{file: file, number: i + 1}
		p := d.policy(source)
		if other, twice := first[p.Key()]; twice && len(d.errs) == 0 {
			d.fail("metadata.name", "is the name of document %d too; write another, or delete one of them", other)
		}
		first[p.Key()] = i + 1
		p.Warnings = d.warnings
		policies = append(policies, p)
		errs = append(errs, d.errs...)
	}
	if len(errs) > 0 {
		return nil, errs
	}
	return policies, nil
}

var topFields = []string{"apiVersion", "kind", "metadata", "spec", "specs", "status", "description"}

// policy reads one document.
func (d *document) policy(source []byte) policy.Policy {
	p := policy.Policy{Source: source, Origin: fmt.Sprintf("%s: document %d", d.file, d.number)}
	root, err := parse(source)
	if err != nil {
		d.fail("", "%v", err)
		return p
	}
	top := d.value(root, "").object(topFields, nil)
	if !d.header(top, &p) {
		return p
	}
	if description, ok := top["description"]; ok {
		description.warn("belongs under spec; a cluster drops it here")
	}
	spec, hasSpec := top["spec"]
	specs, hasSpecs := top["specs"]
	if !hasSpec && !hasSpecs {
		d.fail("spec", "is missing; write the policy under spec, or several under specs")
		return p
	}
	if hasSpec {
		p.Rules = append(p.Rules, d.spec(spec, &p)...)
	}
	if hasSpecs {
		items := specs.list()
		if len(items) == 0 && !hasSpec {
			specs.fail("is empty; write at least one policy")
		}
		for _, item := range items {
			p.Rules = append(p.Rules, d.spec(item, &p)...)
		}
	}
	return p
}

// header reads what identifies the policy. It reports whether the rest can be
// read.
func (d *document) header(top map[string]value, p *policy.Policy) bool {
	if kind, ok := top["kind"]; ok {
		p.Kind, _ = kind.text()
	}
	d.object = p.Kind
	if p.Kind != KindNetworkPolicy && p.Kind != KindClusterwidePolicy {
		d.fail("kind", "%q is not a kind that is understood; write %s or %s", p.Kind, KindNetworkPolicy, KindClusterwidePolicy)
		return false
	}
	version := ""
	if v, ok := top["apiVersion"]; ok {
		version, _ = v.text()
	}
	if version != APIVersion {
		d.fail("apiVersion", "%q is not a version of %s; write %s", version, p.Kind, APIVersion)
		return false
	}
	meta, ok := top["metadata"]
	if !ok {
		d.fail("metadata", "is missing; write metadata with a name")
		return false
	}
	d.metadata(meta, p)
	return true
}

var metadataFields = []string{
	"name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation", "creationTimestamp",
	"deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "ownerReferences", "managedFields", "selfLink",
}

func (d *document) metadata(meta value, p *policy.Policy) {
	before := len(d.errs)
	fields := dropNull(meta).object(metadataFields, map[string]string{"generateName": "write metadata.name"})
	if v, ok := fields["namespace"]; ok {
		p.Namespace, _ = v.text()
		if p.Kind == KindClusterwidePolicy {
			v.fail("does not go with %s; delete it, or write %s", p.Kind, KindNetworkPolicy)
		} else if err := policy.ValidateNamespace(p.Namespace); err != nil {
			v.fail("%v", err)
		}
	} else if p.Kind == KindNetworkPolicy {
		p.Namespace = policy.DefaultNamespace
	}
	if v, ok := fields["name"]; ok {
		p.Name, _ = v.text()
		if err := policy.ValidateName(p.Name); err != nil {
			v.fail("%v", err)
		}
	} else if len(d.errs) == before {
		d.fail("metadata.name", "is missing; write a name")
	}
	if p.Name != "" {
		d.object = p.Kind + " " + p.FullName()
	}
	for _, err := range d.errs {
		err.Object = d.object
	}
	if v, ok := fields["annotations"]; ok {
		d.annotations(v, p)
	}
}

// dropNull takes out metadata that has no value, as "creationTimestamp: null",
// which tools write.
func dropNull(meta value) value {
	node := *meta.node
	node.Content = nil
	for i := 0; i+1 < len(meta.node.Content); i += 2 {
		key := meta.node.Content[i].Value
		if meta.node.Content[i+1].Tag != "!!null" || key == "name" || key == "namespace" {
			node.Content = append(node.Content, meta.node.Content[i], meta.node.Content[i+1])
		}
	}
	meta.node = &node
	return meta
}

func (d *document) annotations(v value, p *policy.Policy) {
	for _, e := range v.mapping() {
		switch {
		case e.key == annotationMode:
			if mode, ok := e.text(); ok && mode != annotationModeEnforced {
				e.fail("%q is not supported yet; write enforce, or delete the annotation", mode)
			}
			p.Mode = policy.ModeEnforce
		case strings.HasPrefix(e.key, annotationPrefix):
			e.fail("is not an annotation that is understood; write %s, or delete it", annotationMode)
		}
	}
}
