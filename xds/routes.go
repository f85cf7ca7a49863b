package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// routesOf makes the route configuration of a pair: all goes where the client
// dialled, if both sets allow. A nil program is a direction that has no set. Requests for
// tunnels, and those whose content servers may not read, have routes of their own.
func routesOf(p pair, egress, ingress *program) (*routev3.RouteConfiguration, error) {
	var b builder
	tunnels, connect, content := b.scripts(chores(egress, ingress, "remember")), b.scripts(chores(egress, ingress, "remember")), b.scripts(chores(egress, ingress, "last"))
	connect[egressFilter] = b.rules(egress.connects(), egressStatistic)
	connect[ingressFilter] = b.rules(ingress.connects(), ingressStatistic)
	closing := map[string]*anypb.Any{firstScript: b.perScript(chores(egress, ingress, "close")[firstScript])}
	all := b.scripts(chores(egress, ingress, ""))
	if tests := testsOf(egress, ingress); len(tests.GetRequestRules()) > 0 {
		all[testsFilter] = b.pack(tests)
	}
	all[egressDeny], all[egressFilter] = b.rules(egress.denies(), egressDenyStatistic), b.rules(egress.allows(), egressStatistic)
	all[ingressDeny], all[ingressFilter] = b.rules(ingress.denies(), ingressDenyStatistic), b.rules(ingress.allows(), ingressStatistic)

	c := &routev3.RouteConfiguration{
		Name: p.name(),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    "all",
			Domains: []string{"*"},
			// After those of the routes.
			RequestHeadersToRemove: []string{sentForwardedProto},
			Routes: append(refusals(closing), []*routev3.Route{
				route(&routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: &routev3.RouteMatch_ConnectMatcher{}}}, connect),
				route(&routev3.RouteMatch{PathSpecifier: anyPath(), Headers: []*routev3.HeaderMatcher{sent("upgrade")}}, tunnels),
				route(&routev3.RouteMatch{PathSpecifier: anyPath(), Headers: withContent("content-length")}, content),
				route(&routev3.RouteMatch{PathSpecifier: anyPath(), Headers: withContent("transfer-encoding")}, content),
				route(&routev3.RouteMatch{PathSpecifier: anyPath()}, nil),
			}...),
			// Without rules of its own a direction is let through by the filter.
			TypedPerFilterConfig: all,
		}},
	}
	return c, b.check(c)
}

// withContent: servers that read no content of such requests would take it for the next
// request, which nobody judged. There is to be none on their connection.
func withContent(by string) []*routev3.HeaderMatcher {
	some := on(by, "0+")
	some.InvertMatch = true
	return []*routev3.HeaderMatcher{on(":method", "GET|HEAD|OPTIONS|DELETE|TRACE"), some, sent(by)}
}

func anyPath() *routev3.RouteMatch_Prefix { return &routev3.RouteMatch_Prefix{Prefix: "/"} }

func route(match *routev3.RouteMatch, filters map[string]*anypb.Any) *routev3.Route {
	return &routev3.Route{
		Match: match, TypedPerFilterConfig: filters,
		RequestHeadersToRemove: []string{forwardedProto},
		RequestHeadersToAdd:    []*corev3.HeaderValueOption{copied(forwardedProto, sentForwardedProto)},
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: clusterName},
			Timeout:          durationpb.New(0),
		}},
	}
}

func (b *builder) scripts(todo map[string]map[string]any) map[string]*anypb.Any {
	out := map[string]*anypb.Any{}
	for name, chores := range todo {
		out[name] = b.perScript(chores)
	}
	return out
}

// rules are what one filter does.
func (b *builder) rules(r ruled, statistic string) *anypb.Any {
	return b.pack(&httprbacv3.RBACPerRoute{Rbac: rulesOf(r.enforced, r.shadow, statistic)})
}

// ruled is what one filter enforces and what it would, if policies that audit enforced.
type ruled struct{ enforced, shadow *rbacv3.RBAC }

func (p *program) denies() ruled {
	if p == nil {
		return ruled{}
	}
	return ruled{p.deny, p.shadowDeny}
}

func (p *program) allows() ruled {
	if p == nil {
		return ruled{}
	}
	return ruled{p.allow, p.shadowAllow}
}

func (p *program) connects() ruled {
	if p == nil {
		return ruled{}
	}
	return ruled{p.connect, p.shadowConnect}
}

// rulesOf are what one filter does; the prefix tells the filters apart in what they
// report.
func rulesOf(enforced, shadow *rbacv3.RBAC, prefix string) *httprbacv3.RBAC {
	if enforced == nil && shadow == nil {
		return nil
	}
	return &httprbacv3.RBAC{Rules: enforced, RulesStatPrefix: prefix, ShadowRules: shadow, ShadowRulesStatPrefix: prefix}
}
