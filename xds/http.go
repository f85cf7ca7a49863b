package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of the two RBAC filters, under which the route configuration holds what
// they allow.
const (
	egressFilter  = "headgate.egress"
	ingressFilter = "headgate.ingress"
)

// deniedBody is what headgate's own proxy answers too.
const deniedBody = "Access denied\r\n"

// forwardedProto is a header that Envoy insists on adding where it is missing.
const forwardedProto = "x-forwarded-proto"

// connectionManager reads HTTP/1 and normalises paths as headgate's own parser
// does, and adds nothing to what passes.
func (b *builder) connectionManager(p pair) *hcmv3.HttpConnectionManager {
	never := durationpb.New(0)
	return &hcmv3.HttpConnectionManager{
		StatPrefix:                   p.name(),
		CodecType:                    hcmv3.HttpConnectionManager_HTTP1,
		HttpProtocolOptions:          b.http1(),
		CommonHttpProtocolOptions:    &corev3.HttpProtocolOptions{IdleTimeout: never},
		StreamIdleTimeout:            never,
		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		UseRemoteAddress:             wrapperspb.Bool(false),
		SkipXffAppend:                true,
		InternalAddressConfig:        &hcmv3.HttpConnectionManager_InternalAddressConfig{}, // nobody is trusted
		GenerateRequestId:            wrapperspb.Bool(false),
		PreserveExternalRequestId:    true,
		ForwardClientCertDetails:     hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY,
		ServerHeaderTransformation:   hcmv3.HttpConnectionManager_PASS_THROUGH,
		Proxy_100Continue:            true,
		LocalReplyConfig:             denials(),
		AccessLog:                    b.accessLogOf(p),
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: p.name(),
			ConfigSource: &corev3.ConfigSource{
				ResourceApiVersion:    corev3.ApiVersion_V3,
				ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			},
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			b.httpFilter(egressFilter, rulesOf(denyAll(), egressStatistic)),
			b.httpFilter(ingressFilter, rulesOf(denyAll(), ingressStatistic)),
			b.httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
		},
	}
}

// http1 is spoken on both sides, with trailers, and field names in the case they came in.
func (b *builder) http1() *corev3.Http1ProtocolOptions {
	return &corev3.Http1ProtocolOptions{
		AcceptHttp_10: true, EnableTrailers: true,
		HeaderKeyFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat{
			HeaderFormat: &corev3.Http1ProtocolOptions_HeaderKeyFormat_StatefulFormatter{
				StatefulFormatter: &corev3.TypedExtensionConfig{
					Name:        "envoy.http.stateful_header_formatters.preserve_case",
					TypedConfig: b.pack(&preservecasev3.PreserveCaseFormatterConfig{}),
				},
			},
		},
	}
}

// denials gives what the RBAC filters answer the body that people know.
func denials() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{{
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
			StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
				Op:    accesslogv3.ComparisonFilter_EQ,
				Value: &corev3.RuntimeUInt32{DefaultValue: 403, RuntimeKey: "headgate.denied"},
			}},
		}},
		BodyFormatOverride: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: deniedBody}},
		}},
	}}}
}

func (b *builder) httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.pack(m)}}
}

// routesOf makes the route configuration of a pair: all goes where the client
// dialled, if both sets allow. A nil set is a direction that has none.
func routesOf(p pair, egress, ingress *rbacv3.RBAC) (*routev3.RouteConfiguration, error) {
	var b builder
	c := &routev3.RouteConfiguration{
		Name: p.name(),
		VirtualHosts: []*routev3.VirtualHost{{
			Name:                   "all",
			Domains:                []string{"*"},
			RequestHeadersToRemove: []string{forwardedProto},
			Routes: []*routev3.Route{{
				Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{
					ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: clusterName},
					Timeout:          durationpb.New(0),
				}},
			}},
			// Without rules of its own a direction is let through by the filter.
			TypedPerFilterConfig: map[string]*anypb.Any{
				egressFilter:  b.pack(&httprbacv3.RBACPerRoute{Rbac: rulesOf(egress, egressStatistic)}),
				ingressFilter: b.pack(&httprbacv3.RBACPerRoute{Rbac: rulesOf(ingress, ingressStatistic)}),
			},
		}},
	}
	return c, b.check(c)
}

// rulesOf are what one filter enforces; the prefix tells the two filters apart in what
// they report.
func rulesOf(r *rbacv3.RBAC, prefix string) *httprbacv3.RBAC {
	if r == nil {
		return nil
	}
	return &httprbacv3.RBAC{Rules: r, RulesStatPrefix: prefix}
}
