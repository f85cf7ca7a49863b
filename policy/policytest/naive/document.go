// Package naive makes random policies and judges connections by them, straight
// from the documents as people write them: it goes through every rule of every
// policy each time and knows neither tables nor sets. It shares no code with
// package policy. Tests hold that package, and other engines, against it.
package naive

import "encoding/json"

// Document is a policy as it is written. Exactly one of the specs is set.
type Document struct {
	Namespace string // empty: clusterwide
	Name      string
	Cilium    *CiliumSpec
	Kube      *KubeSpec
}

// Selector is a selector of labels, as Kubernetes has it.
type Selector struct {
	MatchLabels      map[string]string `json:"matchLabels,omitempty"`
	MatchExpressions []Expression      `json:"matchExpressions,omitempty"`
}

// Expression is one condition of a Selector.
type Expression struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"`
	Values   []string `json:"values,omitempty"`
}

// CiliumSpec is the spec of a CiliumNetworkPolicy, or of its clusterwide sister.
type CiliumSpec struct {
	Selector    Selector
	Ingress     []CiliumRule
	IngressDeny []CiliumRule
	Egress      []CiliumRule
	EgressDeny  []CiliumRule
	DefaultDeny [2]*bool // ingress, egress
}

// CiliumRule is an entry of ingress, egress or their denies: from and to are
// alike. A list that is nil is not written, one that is empty is.
type CiliumRule struct {
	Endpoints []Selector
	Entities  []string
	CIDRs     []string
	CIDRSet   []CIDR
	Ports     []CiliumPorts
	ICMPs     []ICMP
}

// CIDR is an address range but for some of it.
type CIDR struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

// ICMP is a family and a type.
type ICMP struct {
	Family string `json:"family"`
	Type   int    `json:"type"`
}

// CiliumPorts is an entry of toPorts.
type CiliumPorts struct {
	Ports []Port
	HTTP  []HTTP // of the rules; nil: none
	DNS   []DNS
}

// Port is a port, a range or a name. In a NetworkPolicy it may be absent.
type Port struct {
	Port     string
	EndPort  int
	Protocol string
}

// HTTP is an HTTP rule.
type HTTP struct {
	Method  string   `json:"method,omitempty"`
	Path    string   `json:"path,omitempty"`
	Host    string   `json:"host,omitempty"`
	Headers []string `json:"headers,omitempty"`
}

// DNS is a DNS rule.
type DNS struct {
	Name    string `json:"matchName,omitempty"`
	Pattern string `json:"matchPattern,omitempty"`
}

// KubeSpec is the spec of a NetworkPolicy.
type KubeSpec struct {
	PodSelector Selector
	Types       []string // nil: not written
	Ingress     []KubeRule
	Egress      []KubeRule
}

// KubeRule is an entry of ingress or egress.
type KubeRule struct {
	Peers []KubePeer
	Ports []Port
}

// KubePeer is an entry of from or to.
type KubePeer struct {
	PodSelector       *Selector `json:"podSelector,omitempty"`
	NamespaceSelector *Selector `json:"namespaceSelector,omitempty"`
	IPBlock           *CIDR     `json:"ipBlock,omitempty"`
}

type object = map[string]any

// JSON writes the document.
func (d *Document) JSON() []byte {
	meta := object{"name": d.Name}
	if d.Namespace != "" {
		meta["namespace"] = d.Namespace
	}
	var doc object
	switch {
	case d.Kube != nil:
		doc = object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "spec": d.Kube.object()}
	case d.Namespace == "":
		doc = object{"apiVersion": "cilium.io/v2", "kind": "CiliumClusterwideNetworkPolicy", "spec": d.Cilium.object()}
	default:
		doc = object{"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "spec": d.Cilium.object()}
	}
	doc["metadata"] = meta
	text, err := json.Marshal(doc)
	if err != nil {
		panic(err) // there is nothing in it that could not be written
	}
	return text
}

func (s *CiliumSpec) object() object {
	out := object{"endpointSelector": s.Selector}
	put := func(name, side string, rules []CiliumRule) {
		if rules == nil {
			return
		}
		list := []object{}
		for _, r := range rules {
			list = append(list, r.object(side))
		}
		out[name] = list
	}
	put("ingress", "from", s.Ingress)
	put("ingressDeny", "from", s.IngressDeny)
	put("egress", "to", s.Egress)
	put("egressDeny", "to", s.EgressDeny)
	deny := object{}
	for i, name := range []string{"ingress", "egress"} {
		if s.DefaultDeny[i] != nil {
			deny[name] = *s.DefaultDeny[i]
		}
	}
	if len(deny) > 0 {
		out["enableDefaultDeny"] = deny
	}
	return out
}

func (r *CiliumRule) object(side string) object {
	out := object{}
	if r.Endpoints != nil {
		out[side+"Endpoints"] = r.Endpoints
	}
	if r.Entities != nil {
		out[side+"Entities"] = r.Entities
	}
	if r.CIDRs != nil {
		out[side+"CIDR"] = r.CIDRs
	}
	if r.CIDRSet != nil {
		out[side+"CIDRSet"] = r.CIDRSet
	}
	if r.ICMPs != nil {
		out["icmps"] = []object{{"fields": r.ICMPs}}
	}
	var list []object
	for _, p := range r.Ports {
		entry := object{"ports": ports(p.Ports, true)}
		switch {
		case p.HTTP != nil:
			entry["rules"] = object{"http": p.HTTP}
		case p.DNS != nil:
			entry["rules"] = object{"dns": p.DNS}
		}
		list = append(list, entry)
	}
	if list != nil {
		out["toPorts"] = list
	}
	return out
}

// ports writes numbers as text for Cilium, as numbers for Kubernetes.
func ports(ports []Port, text bool) []object {
	list := []object{}
	for _, p := range ports {
		out := object{}
		if p.Protocol != "" {
			out["protocol"] = p.Protocol
		}
		if p.Port != "" {
			out["port"] = p.Port
			if n, ok := number(p.Port); ok && !text {
				out["port"] = n
			}
		}
		if p.EndPort > 0 {
			out["endPort"] = p.EndPort
		}
		list = append(list, out)
	}
	return list
}

func (s *KubeSpec) object() object {
	out := object{"podSelector": s.PodSelector}
	if s.Types != nil {
		out["policyTypes"] = s.Types
	}
	put := func(name, side string, rules []KubeRule) {
		if rules == nil {
			return
		}
		list := []object{}
		for _, r := range rules {
			rule := object{}
			if r.Peers != nil {
				rule[side] = r.Peers
			}
			if r.Ports != nil {
				rule["ports"] = ports(r.Ports, false)
			}
			list = append(list, rule)
		}
		out[name] = list
	}
	put("ingress", "from", s.Ingress)
	put("egress", "to", s.Egress)
	return out
}
