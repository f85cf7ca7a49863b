package oracle

import (
	"slices"

	"github.com/headgate/headgate/policy/policytest/naive"
)

// shrink leaves out policies and rules as long as the engines still differ.
func shrink(documents []*naive.Document, differ func([]*naive.Document) bool) []*naive.Document {
	for again := true; again; {
		again = false
		for _, smaller := range smallerOnes(documents) {
			if differ(smaller) {
				documents, again = smaller, true
				break
			}
		}
	}
	return documents
}

// smallerOnes are the documents without one policy, or without one of its rules.
func smallerOnes(documents []*naive.Document) [][]*naive.Document {
	var all [][]*naive.Document
	for i, d := range documents {
		all = append(all, slices.Delete(slices.Clone(documents), i, i+1))
		for _, smaller := range withoutOneRule(d) {
			changed := slices.Clone(documents)
			changed[i] = smaller
			all = append(all, changed)
		}
	}
	return all
}

func withoutOneRule(d *naive.Document) []*naive.Document {
	var all []*naive.Document
	if d.Kube != nil {
		for i := range d.Kube.Ingress {
			k := *d.Kube
			k.Ingress = slices.Delete(slices.Clone(k.Ingress), i, i+1)
			all = append(all, &naive.Document{Namespace: d.Namespace, Name: d.Name, Kube: &k})
		}
		for i := range d.Kube.Egress {
			k := *d.Kube
			k.Egress = slices.Delete(slices.Clone(k.Egress), i, i+1)
			all = append(all, &naive.Document{Namespace: d.Namespace, Name: d.Name, Kube: &k})
		}
		return all
	}
	for list := range 4 {
		count := len(*ruleList(d.Cilium, list))
		for i := range count {
			c := *d.Cilium
			rules := ruleList(&c, list)
			if *rules = slices.Delete(slices.Clone(*rules), i, i+1); count == 1 {
				*rules = nil
			}
			all = append(all, &naive.Document{Namespace: d.Namespace, Name: d.Name, Cilium: &c})
		}
	}
	return all
}

func ruleList(c *naive.CiliumSpec, n int) *[]naive.CiliumRule {
	return [...]*[]naive.CiliumRule{&c.Ingress, &c.IngressDeny, &c.Egress, &c.EgressDeny}[n]
}
