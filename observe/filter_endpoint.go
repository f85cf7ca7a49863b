package observe

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

type side func(*flowpb.Flow) *flowpb.Endpoint

// ipFilter takes addresses and CIDRs.
func ipFilter(list []string, get func(*flowpb.IP) string) (Filter, error) {
	var prefixes []netip.Prefix
	addresses := make(map[string]bool)
	for _, s := range list {
		if strings.Contains(s, "/") {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil, fmt.Errorf("parse CIDR %q: %w", s, err)
			}
			prefixes = append(prefixes, p)
			continue
		}
		a, err := netip.ParseAddr(s)
		if err != nil {
			return nil, fmt.Errorf("parse address %q: %w", s, err)
		}
		addresses[a.Unmap().String()] = true
	}
	return func(f *flowpb.Flow) bool {
		s := get(f.GetIP())
		if s == "" {
			return false
		}
		if addresses[s] {
			return true
		}
		if len(prefixes) == 0 {
			return false
		}
		a, err := netip.ParseAddr(s)
		return err == nil && inAny(prefixes, a)
	}, nil
}

func inAny(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// podFilter takes prefixes of names as Hubble does: "ns/pod", "ns/" (all of a
// namespace), "/pod" (in any), "pod" (in default).
func podFilter(list []string, get side) (Filter, error) {
	type name struct{ namespace, prefix string }
	names := make([]name, 0, len(list))
	for _, s := range list {
		ns, pod, ok := strings.Cut(s, "/")
		switch {
		case s == "":
			return nil, errors.New("name is empty")
		case !ok:
			ns, pod = "default", s
		}
		names = append(names, name{ns, pod})
	}
	return func(f *flowpb.Flow) bool {
		ep := get(f)
		if ep.GetNamespace() == "" && ep.GetPodName() == "" {
			return false
		}
		for _, n := range names {
			if (n.namespace == "" || n.namespace == ep.GetNamespace()) && strings.HasPrefix(ep.GetPodName(), n.prefix) {
				return true
			}
		}
		return false
	}, nil
}

func labelFilter(list []string, get side) (Filter, error) {
	selectors := make([]selector, 0, len(list))
	for _, s := range list {
		sel, err := parseSelector(s)
		if err != nil {
			return nil, fmt.Errorf("parse selector %q: %w", s, err)
		}
		selectors = append(selectors, sel)
	}
	return func(f *flowpb.Flow) bool {
		labels := get(f).GetLabels()
		for _, s := range selectors {
			if s.matches(labels) {
				return true
			}
		}
		return false
	}, nil
}

func identityFilter(list []uint32, get side) Filter {
	in := oneOf(list, func(f *flowpb.Flow) uint32 { return get(f).GetIdentity() })
	return func(f *flowpb.Flow) bool { return get(f) != nil && in(f) }
}

// nodeFilter takes patterns "node", "cluster/node", "cluster/", with * for any
// characters. A node without a cluster is in "default".
func nodeFilter(patterns []string) (Filter, error) {
	alternatives := make([]string, 0, len(patterns))
	for _, p := range patterns {
		re, err := nodePattern(p)
		if err != nil {
			return nil, fmt.Errorf("parse pattern %q: %w", p, err)
		}
		alternatives = append(alternatives, re)
	}
	re, err := regexp.Compile(`\A(?:` + strings.Join(alternatives, "|") + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("compile node names: %w", err)
	}
	return func(f *flowpb.Flow) bool {
		name := f.GetNodeName()
		if name == "" {
			return false
		}
		if !strings.Contains(name, "/") {
			name = "default/" + name
		}
		return re.MatchString(strings.ToLower(name))
	}, nil
}

func nodePattern(p string) (string, error) {
	cluster, node, ok := strings.Cut(p, "/")
	if !ok {
		cluster, node = "", p
	}
	if p == "" || strings.Contains(node, "/") {
		return "", errors.New("want NODE or CLUSTER/NODE")
	}
	c, err := glob(cluster)
	if err != nil {
		return "", err
	}
	n, err := glob(node)
	if err != nil {
		return "", err
	}
	return c + "/" + n, nil
}

// glob makes an expression of a pattern of DNS characters; an empty one is any name.
func glob(pattern string) (string, error) {
	pattern = strings.ToLower(strings.TrimSuffix(strings.TrimSpace(pattern), "."))
	if pattern == "" {
		return `[^/]+`, nil
	}
	for _, r := range pattern {
		if !strings.ContainsRune("-_.*0123456789abcdefghijklmnopqrstuvwxyz", r) {
			return "", fmt.Errorf("character %q cannot be in a name", r)
		}
	}
	return strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `[^/]*`), nil
}
