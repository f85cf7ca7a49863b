package naive

import "slices"

// aboutKube judges by a NetworkPolicy: a pod that one selects in a direction is
// isolated in it, and rules only ever allow. A rule without peers is about
// everybody, one without ports about all.
func (d *Document) aboutKube(c *Connection) (selected, defaultDeny bool, says []say) {
	s := d.Kube
	if c.Subject.Namespace != d.Namespace || !s.PodSelector.picksPlain(c.Subject.Labels) {
		return false, false, nil
	}
	types := s.Types
	if types == nil {
		types = []string{"Ingress"}
		if len(s.Egress) > 0 {
			types = append(types, "Egress")
		}
	}
	rules, side := s.Ingress, "Ingress"
	if c.Egress {
		rules, side = s.Egress, "Egress"
	}
	if !slices.Contains(types, side) {
		return false, false, nil
	}
	for _, r := range rules {
		if len(r.Peers) > 0 && !slices.ContainsFunc(r.Peers, func(p KubePeer) bool { return p.is(d.Namespace, c.Peer) }) {
			continue
		}
		if len(r.Ports) == 0 {
			says = append(says, say{all: true})
		}
		for _, p := range r.Ports {
			if first, last, ok := p.covers(c, "TCP"); ok {
				says = append(says, say{first: first, last: last})
			}
		}
	}
	return true, true, says
}

func (k KubePeer) is(namespace string, p *Party) bool {
	if k.IPBlock != nil {
		return p.within(*k.IPBlock)
	}
	if p.Namespace == "" || k.NamespaceSelector == nil && p.Namespace != namespace {
		return false
	}
	if k.NamespaceSelector != nil && !k.NamespaceSelector.picksPlain(NamespaceLabels()[p.Namespace]) {
		return false
	}
	return k.PodSelector == nil || k.PodSelector.picksPlain(p.Labels)
}
