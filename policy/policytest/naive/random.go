package naive

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// Random makes documents. Without Extensions they hold nothing that Cilium's own
// kinds do not have.
type Random struct {
	*rand.Rand
	Extensions bool
}

func pick[T any](r *Random, of ...T) T { return of[r.IntN(len(of))] }

// oneIn is true once in n times.
func (r *Random) oneIn(n int) bool { return r.IntN(n) == 0 }

func list[T any](r *Random, least, most int, one func() T) []T {
	out := []T{}
	for range least + r.IntN(most-least+1) {
		out = append(out, one())
	}
	return out
}

// Documents makes a few policies.
func (r *Random) Documents() []*Document {
	n := 0
	return list(r, 1, 5, func() *Document {
		n++
		d := &Document{Namespace: pick(r, "x", "x", "y"), Name: fmt.Sprint("p", n)}
		if r.oneIn(3) {
			d.Kube = r.kube()
			return d
		}
		if r.oneIn(4) {
			d.Namespace = ""
		}
		d.Cilium = r.cilium()
		return d
	})
}

func (r *Random) cilium() *CiliumSpec {
	s := &CiliumSpec{Selector: r.selector(false)}
	if r.oneIn(3) {
		s.Selector = Selector{}
	}
	rule := func(deny, egress bool) func() CiliumRule {
		return func() CiliumRule { return r.rule(deny, egress) }
	}
	for s.Ingress == nil && s.Egress == nil && s.IngressDeny == nil && s.EgressDeny == nil {
		if !r.oneIn(3) {
			s.Ingress = list(r, 1, 3, rule(false, false))
		}
		if !r.oneIn(3) {
			s.Egress = list(r, 1, 3, rule(false, true))
		}
		if r.oneIn(4) {
			s.IngressDeny = list(r, 1, 2, rule(true, false))
		}
		if r.oneIn(4) {
			s.EgressDeny = list(r, 1, 2, rule(true, true))
		}
	}
	for i := range s.DefaultDeny {
		if r.oneIn(4) {
			on := r.oneIn(3)
			s.DefaultDeny[i] = &on
		}
	}
	return s
}

func (r *Random) rule(deny, egress bool) CiliumRule {
	var rule CiliumRule
	switch r.IntN(8) {
	case 0, 1, 2:
		rule.Endpoints = list(r, 1, 2, func() Selector { return r.selector(true) })
		if r.oneIn(10) {
			rule.Endpoints = []Selector{}
		}
	case 3:
		rule.Entities = list(r, 1, 2, func() string {
			return pick(r, "all", "world", "host", "remote-node", "cluster", "kube-apiserver", "health", "init", "unmanaged", "ingress")
		})
	case 4:
		rule.CIDRs = list(r, 1, 2, func() string { return pick(r, ranges...) })
	case 5:
		rule.CIDRSet = list(r, 1, 2, func() CIDR { return r.cidr() })
	}
	switch {
	case r.oneIn(8):
		rule.ICMPs = list(r, 1, 2, func() ICMP { return ICMP{pick(r, "IPv4", "IPv6"), pick(r, 0, 3, 8, 128)} })
	case !r.oneIn(3):
		rule.Ports = list(r, 1, 3, func() CiliumPorts { return r.ports(deny, egress) })
	}
	return rule
}

func (r *Random) cidr() CIDR {
	c := CIDR{CIDR: pick(r, ranges...)}
	for _, inner := range ranges {
		if inner != c.CIDR && contains(c.CIDR, inner) && r.oneIn(2) {
			c.Except = append(c.Except, inner)
		}
	}
	return c
}

func (r *Random) port() Port {
	p := Port{Port: pick(r, "80", "80", "8080", "443", "53", "0"), Protocol: pick(r, "TCP", "TCP", "TCP", "UDP", "SCTP", "ANY", "")}
	switch {
	case r.oneIn(8):
		p.Port = pick(r, "web", "db", "nope")
	case p.Port != "0" && r.oneIn(3):
		n, _ := strconv.Atoi(p.Port)
		p.EndPort = n + pick(r, 0, 1, 5, 1000, 8000)
	}
	return p
}

func (r *Random) ports(deny, egress bool) CiliumPorts {
	p := CiliumPorts{Ports: list(r, 1, 2, r.port)}
	if deny && !(r.Extensions && r.oneIn(3)) {
		return p
	}
	switch {
	case egress && r.oneIn(6):
		p.Ports = []Port{{Port: "53", Protocol: pick(r, "UDP", "UDP", "ANY")}}
		p.DNS = list(r, 1, 2, func() DNS {
			if r.oneIn(2) {
				return DNS{Name: pick(r, "www.example.com", "Example.ORG")}
			}
			return DNS{Pattern: pick(r, "*", "*.example.com", "www.*.com", "*example.org")}
		})
	case r.oneIn(2):
		for i := range p.Ports {
			p.Ports[i] = Port{Port: pick(r, "80", "80", "8080", "443"), Protocol: "TCP"}
			if r.oneIn(4) {
				p.Ports[i].EndPort = 9000
			}
		}
		p.HTTP = list(r, 1, 2, func() HTTP {
			return HTTP{
				Method:  pick(r, "", "GET", "GET|POST", "P.*"),
				Path:    pick(r, "", "/a", "/a/.*", "/[ab]", "/b\\?.*"),
				Host:    pick(r, "", "", "", "web.example.com", ".*\\.example\\.com"),
				Headers: pick(r, nil, nil, nil, []string{"X-Token: 1"}, []string{"X-Token"}),
			}
		})
	}
	return p
}

// selector makes one of endpoints. That of a policy's own subject may not name a
// namespace.
func (r *Random) selector(peer bool) Selector {
	var s Selector
	if r.oneIn(6) {
		return s
	}
	keys := []string{"app", "k8s:app", "any:app", "tier", "k8s:io.cilium.k8s.namespace.labels.env"}
	if peer {
		keys = append(keys, "io.kubernetes.pod.namespace", "k8s:io.kubernetes.pod.namespace")
	}
	values := []string{"a", "b", "c", "x", "y", "prod", "dev", "front"}
	if r.oneIn(2) {
		key := pick(r, keys...)
		s.MatchLabels = map[string]string{key: r.value(key, values)}
	}
	if r.oneIn(2) {
		s.MatchExpressions = list(r, 1, 2, func() Expression { return r.expression(pick(r, keys...), values) })
	}
	return s
}

// value is most often one that the key has somewhere.
func (r *Random) value(key string, values []string) string {
	switch {
	case r.oneIn(8):
		return pick(r, values...)
	case slices.Contains([]string{"app", "k8s:app", "any:app"}, key):
		return pick(r, "a", "b", "c")
	case key == "tier":
		return pick(r, "front", "back")
	case strings.HasSuffix(key, "io.kubernetes.pod.namespace") || key == "kubernetes.io/metadata.name":
		return pick(r, "x", "y")
	}
	return pick(r, "prod", "dev")
}

func (r *Random) expression(key string, values []string) Expression {
	e := Expression{Key: key, Operator: pick(r, "In", "NotIn", "Exists", "DoesNotExist")}
	if e.Operator == "DoesNotExist" && strings.HasSuffix(key, "pod.namespace") { // it selects nothing and is refused
		e.Operator = "Exists"
	}
	if e.Operator == "In" || e.Operator == "NotIn" {
		e.Values = list(r, 1, 2, func() string { return r.value(key, values) })
		slices.Sort(e.Values)
		e.Values = slices.Compact(e.Values)
	}
	return e
}
