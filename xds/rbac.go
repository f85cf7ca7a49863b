package xds

import (
	"strings"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/headgate/headgate/policy"
)

// connectMethod opens a tunnel, of which nothing is judged: only rules that name it
// allow it, as in package policy.
const connectMethod = "CONNECT"

// denyAll is what a direction is without rules.
func denyAll() *rbacv3.RBAC { return &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW} }

func policyOf(p *rbacv3.Permission) *rbacv3.Policy {
	return &rbacv3.Policy{
		Permissions: []*rbacv3.Permission{p},
		Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
	}
}

// permissionOf translates one rule that allows: all that it asks for must match.
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
	return allOf(all)
}

func allOf(all []*rbacv3.Permission) *rbacv3.Permission {
	if len(all) == 0 {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_Any{Any: true}}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_AndRules{AndRules: &rbacv3.Permission_Set{Rules: all}}}
}

func anyOf(some ...*rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_OrRules{OrRules: &rbacv3.Permission_Set{Rules: some}}}
}

func not(p *rbacv3.Permission) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_NotRule{NotRule: p}}
}

// matches: Envoy's expressions are RE2 and match the whole value, as ours. What a request
// does not have is empty.
func matches(header, expr string) *rbacv3.Permission {
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: &routev3.HeaderMatcher{
		Name: header, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: expression(expr)},
		TreatMissingHeaderAsEmpty: true,
	}}}
}

func expression(expr string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: expr},
	}}
}

func exactly(value string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: value}}
}

// carries: Envoy joins the values of a header that was sent several times with
// commas, as policy.HeaderRule wants; its bootstrap says so.
func carries(h policy.HeaderRule) *rbacv3.Permission {
	m := &routev3.HeaderMatcher{
		Name: seenAs(h.Name), HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
	}
	if h.Value != "" {
		m.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: exactly(h.Value)}
	}
	return &rbacv3.Permission{Rule: &rbacv3.Permission_Header{Header: m}}
}

// seenAs is where the filters find a header that was sent by a name.
func seenAs(name string) string {
	switch name = strings.ToLower(name); name {
	case "host":
		return ":authority"
	case forwardedProto:
		return sentForwardedProto
	}
	return name
}

// grpcType is the content type of a call, with what may stand behind it.
const grpcType = `(?i:application/grpc)`

// callPermission is about a call whose path is as said: POST of one content type.
func callPermission(path *rbacv3.Permission, more string) *rbacv3.Permission {
	return allOf([]*rbacv3.Permission{matches(":method", "POST"), path, matches("content-type", grpcType+`(?:[+; ]`+more+`)?`)})
}

// callPath is the expression of the paths of calls that a rule is about.
func callPath(rule *policy.GRPCRule) string {
	return "/" + anyText(rule.Service, `[^/]`) + "/" + anyText(rule.Method, `[^/?#]`)
}

// anyText is the expression of a name in which "*" stands for any text.
func anyText(name, char string) string {
	if name == "" || name == "*" {
		return char + "+"
	}
	parts := strings.Split(name, "*")
	for i, p := range parts {
		parts[i] = quote(p)
	}
	return strings.Join(parts, char+"*")
}
