package manifest

import (
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
)

// The annotations that are ours.
const (
	annotationPrefix       = "headgate.dev/"
	annotationMode         = annotationPrefix + "mode"
	annotationDenyResponse = annotationPrefix + "deny-response"
)

var metadataFields = []string{
	"name", "namespace", "labels", "annotations", "uid", "resourceVersion", "generation", "creationTimestamp",
	"deletionTimestamp", "deletionGracePeriodSeconds", "finalizers", "ownerReferences", "managedFields", "selfLink",
}

func (d *Document) metadata(meta Value, kind Kind, p *policy.Policy) {
	before := len(d.errs)
	fields := dropNull(meta).Object(metadataFields, map[string]string{"generateName": "write metadata.name"})
	if v, ok := fields["namespace"]; ok {
		p.Namespace, _ = v.Text()
		if kind.Clusterwide {
			v.Fail("does not go with %s, which has no namespace; delete it", p.Kind)
		} else if err := policy.ValidateNamespace(p.Namespace); err != nil {
			v.Fail("%v", err)
		}
	} else if !kind.Clusterwide {
		p.Namespace = policy.DefaultNamespace
	}
	if v, ok := fields["name"]; ok {
		p.Name, _ = v.Text()
		if err := policy.ValidateName(p.Name); err != nil {
			v.Fail("%v", err)
		}
	} else if len(d.errs) == before {
		d.Fail("metadata.name", "is missing; write a name")
	}
	if p.Name != "" {
		d.object = p.Kind + " " + p.FullName()
	}
	for _, err := range d.errs {
		err.Object = d.object
	}
	if v, ok := fields["labels"]; ok {
		p.Labels = v.Labels()
	}
	if v, ok := fields["annotations"]; ok {
		d.annotations(v, p)
	}
}

// Labels reads labels as objects have them: names and values.
func (v Value) Labels() map[string]string {
	labels := map[string]string{}
	for _, e := range v.Mapping() {
		text, ok := e.Text()
		if !ok {
			continue
		}
		if err := policy.ValidateLabelKey(e.Key); err != nil {
			e.Fail("%v", err)
		} else if err := policy.ValidateLabelValue(text); err != nil {
			e.Fail("%v", err)
		}
		labels[e.Key] = text
	}
	return labels
}

// dropNull takes out metadata that has no value, as "creationTimestamp: null",
// which tools write.
func dropNull(meta Value) Value {
	return meta.DropNull(func(key string) bool { return key != "name" && key != "namespace" })
}

// DropNull takes out the keys without a value that may be left out as well.
func (v Value) DropNull(may func(key string) bool) Value {
	node := *v.node
	node.Content = nil
	for i := 0; i+1 < len(v.node.Content); i += 2 {
		if v.node.Content[i+1].Tag != "!!null" || !may(v.node.Content[i].Value) {
			node.Content = append(node.Content, v.node.Content[i], v.node.Content[i+1])
		}
	}
	v.node = &node
	return v
}

func (d *Document) annotations(v Value, p *policy.Policy) {
	for _, e := range v.Mapping() {
		switch {
		case e.Key == annotationMode:
			if text, ok := e.Text(); ok {
				if p.Mode, ok = policy.ParseMode(text); !ok {
					e.Fail("%q is not a mode; write enforce, audit or observe", text)
				}
			}
		case e.Key == annotationDenyResponse:
			p.DenyResponse = e.denyResponse()
		case strings.HasPrefix(e.Key, annotationPrefix):
			e.Fail("is not an annotation that is understood; write %s or %s, or delete it", annotationMode, annotationDenyResponse)
		}
	}
}

// maxDenyBody is the most bytes that a denied client is sent.
const maxDenyBody = 4096

// denyResponse reads "451 Not here", a status and what to say.
func (v Value) denyResponse() *policy.DenyResponse {
	text, ok := v.Text()
	if !ok {
		return nil
	}
	number, body, _ := strings.Cut(strings.TrimSpace(text), " ")
	status, err := strconv.Atoi(number)
	switch {
	case err != nil || status < 400 || status > 599:
		v.Fail("%q does not begin with a status of a denial; write one from 400 to 599, then a space and the body, as \"403 Ask the platform team\"", text)
	case len(body) > maxDenyBody:
		v.Fail("has a body of %d bytes where %d are the most; write a shorter one", len(body), maxDenyBody)
	default:
		return &policy.DenyResponse{Status: status, Body: strings.TrimSpace(body)}
	}
	return nil
}
