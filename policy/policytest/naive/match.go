package naive

import (
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

const (
	namespaceKey    = "io.kubernetes.pod.namespace"
	namespaceLabels = "io.cilium.k8s.namespace.labels."
)

// picks reports whether a Cilium selector picks a workload by its own labels, its
// namespace and the labels of that. All of them are of the source k8s, which keys
// may name, or "any".
func (s *Selector) picks(p *Party) bool {
	labels := map[string]string{namespaceKey: p.Namespace}
	for k, v := range NamespaceLabels()[p.Namespace] {
		labels[namespaceLabels+k] = v
	}
	for k, v := range p.Labels {
		labels[k] = v
	}
	bare := Selector{MatchLabels: map[string]string{}}
	for k, v := range s.MatchLabels {
		bare.MatchLabels[withoutSource(k)] = v
	}
	for _, e := range s.MatchExpressions {
		e.Key = withoutSource(e.Key)
		bare.MatchExpressions = append(bare.MatchExpressions, e)
	}
	return bare.picksPlain(labels)
}

func withoutSource(key string) string {
	return strings.TrimPrefix(strings.TrimPrefix(key, "k8s:"), "any:")
}

// namesNamespace reports whether the selector chooses namespaces itself.
func (s *Selector) namesNamespace() bool {
	names := func(key string) bool {
		key = withoutSource(key)
		return key == namespaceKey || strings.HasPrefix(key, namespaceLabels)
	}
	for key := range s.MatchLabels {
		if names(key) {
			return true
		}
	}
	return slices.ContainsFunc(s.MatchExpressions, func(e Expression) bool { return names(e.Key) })
}

// picksPlain is how Kubernetes selects.
func (s *Selector) picksPlain(labels map[string]string) bool {
	for k, want := range s.MatchLabels {
		if v, ok := labels[k]; !ok || v != want {
			return false
		}
	}
	for _, e := range s.MatchExpressions {
		v, ok := labels[e.Key]
		in := ok && slices.Contains(e.Values, v)
		holds := map[string]bool{"In": in, "NotIn": !in, "Exists": ok, "DoesNotExist": !ok}[e.Operator]
		if !holds {
			return false
		}
	}
	return true
}

// is reports whether the party is of the entity. Kube-apiserver runs on a node
// that is not this one.
func (p *Party) is(entity string) bool {
	switch entity {
	case "all":
		return true
	case "world":
		return p.Address != ""
	case "cluster":
		return p.Address == ""
	case "remote-node":
		return p.Reserved == "remote-node" || p.Reserved == "kube-apiserver"
	}
	return p.Reserved == entity
}

// within reports whether the party is outside and in the range.
func (p *Party) within(c CIDR) bool {
	if p.Address == "" {
		return false
	}
	address := netip.MustParseAddr(p.Address)
	if !netip.MustParsePrefix(c.CIDR).Contains(address) {
		return false
	}
	return !slices.ContainsFunc(c.Except, func(e string) bool { return netip.MustParsePrefix(e).Contains(address) })
}

func whole(expression, value string) bool {
	return expression == "" || regexp.MustCompile("^(?:"+expression+")$").MatchString(value)
}

// deniedHTTP: a deny holds for whatever a server takes for the same host.
func deniedHTTP(rules []HTTP, r *Request) bool {
	for _, host := range []string{r.Host, regexp.MustCompile(`:[0-9]*$`).ReplaceAllString(r.Host, "")} {
		as := *r
		as.Host = strings.ToLower(host)
		if anyHTTP(rules, &as) {
			return true
		}
	}
	return false
}

func anyHTTP(rules []HTTP, r *Request) bool {
	return slices.ContainsFunc(rules, func(h HTTP) bool {
		for _, header := range h.Headers {
			_, value, valued := strings.Cut(header, ": ")
			if r.Token == "" || valued && r.Token != value {
				return false
			}
		}
		return whole(h.Method, r.Method) && whole(h.Path, r.Path) && whole(h.Host, r.Host)
	})
}

// anyDNS: "*" alone is every name, within a pattern it stays in one label.
func anyDNS(rules []DNS, name string) bool {
	return slices.ContainsFunc(rules, func(d DNS) bool {
		if d.Name != "" {
			return strings.EqualFold(d.Name, name)
		}
		pattern := strings.ReplaceAll(regexp.QuoteMeta(d.Pattern), `\*`, `[-a-z0-9_]*`)
		return d.Pattern == "*" || regexp.MustCompile("^"+pattern+"$").MatchString(name)
	})
}
