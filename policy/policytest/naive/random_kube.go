package naive

func (r *Random) kube() *KubeSpec {
	s := &KubeSpec{PodSelector: r.pods("app", "tier")}
	s.Types = pick(r, nil, nil, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"})
	rules := func() []KubeRule {
		return list(r, 0, 3, func() KubeRule {
			var rule KubeRule
			if !r.oneIn(4) {
				rule.Peers = list(r, 0, 2, r.peer)
			}
			if !r.oneIn(3) {
				rule.Ports = list(r, 0, 2, r.kubePort)
			}
			return rule
		})
	}
	if !r.oneIn(3) {
		s.Ingress = rules()
	}
	if !r.oneIn(3) {
		s.Egress = rules()
	}
	return s
}

func (r *Random) kubePort() Port {
	p := r.port()
	if p.Protocol == "ANY" {
		p.Protocol = ""
	}
	if p.Port == "0" {
		p.Port = ""
	}
	return p
}

func (r *Random) peer() KubePeer {
	if r.oneIn(4) {
		c := r.cidr()
		return KubePeer{IPBlock: &c}
	}
	pods, namespaces := r.pods("app", "tier"), r.pods("env", "kubernetes.io/metadata.name")
	switch r.IntN(3) {
	case 0:
		return KubePeer{PodSelector: &pods}
	case 1:
		return KubePeer{NamespaceSelector: &namespaces}
	}
	return KubePeer{PodSelector: &pods, NamespaceSelector: &namespaces}
}

// pods makes a selector by keys, of pods or of namespaces.
func (r *Random) pods(keys ...string) Selector {
	values := []string{"a", "b", "front", "prod", "x"}
	var s Selector
	if r.oneIn(2) {
		key := pick(r, keys...)
		s.MatchLabels = map[string]string{key: r.value(key, values)}
	}
	if r.oneIn(3) {
		s.MatchExpressions = list(r, 1, 2, func() Expression { return r.expression(pick(r, keys...), values) })
	}
	return s
}
