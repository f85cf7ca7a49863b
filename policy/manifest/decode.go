package manifest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/policy"
)

// Kind is a kind of document and how it is read.
type Kind struct {
	Name        string
	APIVersions []string // the one to write first
	Clusterwide bool
	Fields      []string // beside apiVersion, kind and metadata
	Read        func(d *Document, fields map[string]Value, p *policy.Policy)
}

// Decode reads every document of a file, YAML or JSON. All or nothing: if
// anything is wrong it returns no policy and Errors.
func Decode(file string, data []byte, kinds []Kind) ([]policy.Policy, error) {
	var policies []policy.Policy
	var errs Errors
	first := map[string]int{}
	for i, source := range split(data) {
		d := &Document{file: file, number: i + 1}
		p := d.policy(source, kinds)
		if other, twice := first[p.Key()]; twice && len(d.errs) == 0 {
			d.Fail("metadata.name", "is the name of document %d too; write another, or delete one of them", other)
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

// policy reads one document.
func (d *Document) policy(source []byte, kinds []Kind) policy.Policy {
	p := policy.Policy{Source: source, Origin: fmt.Sprintf("%s: document %d", d.file, d.number)}
	root, err := parse(source)
	if err != nil {
		d.Fail("", "%v", err)
		return p
	}
	v := d.at(root, "")
	kind, ok := d.kind(v, kinds, &p)
	if !ok {
		return p
	}
	fields := v.Object(append([]string{"apiVersion", "kind", "metadata"}, kind.Fields...), nil)
	meta, ok := fields["metadata"]
	if !ok {
		d.Fail("metadata", "is missing; write metadata with a name")
		return p
	}
	d.metadata(meta, kind, &p)
	kind.Read(d, fields, &p)
	for i := range p.Rules {
		p.Rules[i].Mode, p.Rules[i].DenyResponse = p.Mode, p.DenyResponse
	}
	return p
}

// kind finds out which kind of document it is. It reports whether it is one that
// is read.
func (d *Document) kind(v Value, kinds []Kind, p *policy.Policy) (Kind, bool) {
	said := map[string]string{}
	for _, e := range v.Mapping() {
		for _, field := range []string{"kind", "apiVersion"} {
			if strings.EqualFold(e.Key, field) {
				said[field], _ = e.Text()
			}
		}
	}
	p.Kind = said["kind"]
	d.object = p.Kind
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == p.Kind })
	if i < 0 {
		d.Fail("kind", "%q is not a kind that is understood; write %s", p.Kind, namesOf(kinds))
		return Kind{}, false
	}
	if !slices.Contains(kinds[i].APIVersions, said["apiVersion"]) {
		d.Fail("apiVersion", "%q is not a version of %s; write %s", said["apiVersion"], p.Kind, kinds[i].APIVersions[0])
		return Kind{}, false
	}
	return kinds[i], true
}

func namesOf(kinds []Kind) string {
	var list []string
	for _, k := range kinds {
		list = append(list, k.Name)
	}
	if n := len(list); n > 1 {
		list = append(list[:n-2], list[n-2]+" or "+list[n-1])
	}
	return strings.Join(list, ", ")
}
