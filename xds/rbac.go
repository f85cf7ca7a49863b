package xds

import (
	"fmt"
	"slices"
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/headgate/headgate/policy"
)

// denyAll is what a direction is without rules.
func denyAll() *rbacv3.RBAC { return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW} }

// rbacOf translates a set: every rule is an RBAC policy that allows, named so that
// Envoy's access log tells which one did.
func rbacOf(set *policy.L7Set) (*rbacv3.RBAC, error) {
	if err := translatable(set); err != nil {
		return nil, err
	}
	if _, err := policy.CompileL7(set); err != nil {
		return nil, err
	}
	out := denyAll()
	out.Policies = make(map[string]*rbacv3.Policy, len(set.HTTP))
	for i := range set.HTTP {
		rule := &set.HTTP[i]
		if slices.ContainsFunc(rule.Headers, isForwardedProto) {
			return nil, fmt.Errorf("%s: Envoy cannot tell whether %s was sent; leave it out", rule.Ref, forwardedProto)
		}
		out.Policies[fmt.Sprintf("%05d %s", i, rule.Ref)] = &rbacv3.Policy{
			Permissions: []*rbacv3.Permission{permissionOf(rule)},
			Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}
	}
	if err := out.ValidateAll(); err != nil {
		return nil, fmt.Errorf("translate set %x for Envoy: %w", set.ID, err)
	}
	return out, nil
}

// translatable refuses what Envoy is not told to do yet: to leave it out would
// allow what the set denies, or deny what it allows.
func translatable(set *policy.L7Set) error {
	const advice = "start the agent with --backend go, or leave it out"
	switch {
	case set.Deny != nil:
		return fmt.Errorf("rules that deny requests are not given to Envoy yet: %s", advice)
	case set.DenyResponse != nil:
		return fmt.Errorf("a response of one's own to denied requests is not given to Envoy yet: %s", advice)
	case set.Audit != nil:
		return fmt.Errorf("policies that audit requests are not given to Envoy yet: %s", advice)
	case set.Observed:
		return fmt.Errorf("policies that only observe are not given to Envoy yet: %s", advice)
	case len(set.GRPC) > 0:
		return fmt.Errorf("%s: rules for gRPC are not given to Envoy yet: %s", set.GRPC[0].Ref, advice)
	}
	for i := range set.HTTP {
		if r := &set.HTTP[i]; len(r.Edits)+len(r.Secrets) > 0 {
			return fmt.Errorf("%s: header matches with mismatch or secret are not given to Envoy yet: %s", r.Ref, advice)
		}
	}
	return nil
}

// permissionOf translates one rule: all that it asks for must match.
func permissionOf(rule *policy.HTTPRule) *rbacv3.Permission {
	var all []*rbacv3.Permission
	for _, part := range []struct{ header, expr string }{
		{":method", rule.Method}, {":path", rule.Path}, {":authority", rule.Host},
	} {
		if part.expr != "" {
			all = append(all, matches(part.header, part.expr))
		}
	}
	for _, h := range rule.Headers {
		all = append(all, carries(h))
	}
	if len(all) == 0 {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

// matches: Envoy's expressions are RE2 and match the whole value, as ours.
func matches(header, expr string) *rbacv3.Permission {
	return onHeader(header, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expr},
	}})
}

// carries: Envoy joins the values of a header that was sent several times with
// commas, as policy.HeaderRule wants.
func carries(h policy.HeaderRule) *rbacv3.Permission {
	name := strings.ToLower(h.Name)
	if name == "host" {
		name = ":authority"
	}
	if h.Value != "" {
		return onHeader(name, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: h.Value}})
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}}}
}

func onHeader(name string, value *matcherv3.StringMatcher) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: value},
	}}}
}

func isForwardedProto(h policy.HeaderRule) bool { return strings.EqualFold(h.Name, forwardedProto) }
