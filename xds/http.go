package xds

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	headertometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of the filters that the route configuration tells what to do: of each direction
// one that denies and one that allows, and those of the script.
const (
	egressDeny    = "headgate.egress.deny"
	egressFilter  = "headgate.egress"
	ingressDeny   = "headgate.ingress.deny"
	ingressFilter = "headgate.ingress"
	testsFilter   = "headgate.tests"

	egressWord, ingressWord = "egress", "ingress"
)

// deniedBody is what headgate's own proxy answers too.
const deniedBody = "Access denied\r\n"

// forwardedProto is a header that Envoy insists on adding where it is missing. What was
// sent waits under another name, which nobody else can send.
const (
	forwardedProto     = "x-forwarded-proto"
	sentForwardedProto = "x-headgate-forwarded-proto"
)

// Windows of HTTP/2 bound what Envoy keeps of a stream and of a connection whose other
// side reads slowly.
const (
	streamWindow     = 1 << 20
	connectionWindow = 4 << 20
)

// connectionManager reads HTTP of both versions, normalises paths as headgate's own
// parser does, and adds nothing to what passes.
func (b *builder) connectionManager(p pair) *hcmv3.HttpConnectionManager {
	never := durationpb.New(0)
	return &hcmv3.HttpConnectionManager{
		StatPrefix:                    p.name(),
		CodecType:                     hcmv3.HttpConnectionManager_AUTO,
		HttpProtocolOptions:           b.http1(),
		Http2ProtocolOptions:          http2(),
		CommonHttpProtocolOptions:     &corev3.HttpProtocolOptions{IdleTimeout: never},
		StreamIdleTimeout:             never,
		NormalizePath:                 wrapperspb.Bool(true),
		MergeSlashes:                  true,
		PathWithEscapedSlashesAction:  hcmv3.HttpConnectionManager_REJECT_REQUEST,
		UseRemoteAddress:              wrapperspb.Bool(false),
		SkipXffAppend:                 true,
		InternalAddressConfig:         &hcmv3.HttpConnectionManager_InternalAddressConfig{}, // nobody is trusted
		GenerateRequestId:             wrapperspb.Bool(false),
		PreserveExternalRequestId:     true,
		ForwardClientCertDetails:      hcmv3.HttpConnectionManager_ALWAYS_FORWARD_ONLY,
		ServerHeaderTransformation:    hcmv3.HttpConnectionManager_PASS_THROUGH,
		Proxy_100Continue:             true,
		EarlyHeaderMutationExtensions: []*corev3.TypedExtensionConfig{b.keepForwardedProto()},
		UpgradeConfigs:                upgrades(),
		LocalReplyConfig:              denials(),
		AccessLog:                     b.accessLogOf(p),
		AccessLogOptions: &hcmv3.HttpConnectionManager_HcmAccessLogOptions{
			FlushLogOnTunnelSuccessfullyEstablished: true,
			AccessLogFlushInterval:                  durationpb.New(tellInterval),
		},
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{
			RouteConfigName: p.name(),
			ConfigSource:    awaited(),
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			b.httpFilter(testsFilter, &headertometadatav3.Config{}),
			b.httpFilter(firstScript, scriptOf()),
			b.httpFilter(egressDeny, &httprbacv3.RBAC{}),
			b.httpFilter(egressFilter, rulesOf(denyAll(), nil, egressStatistic)),
			b.httpFilter(middleScript, scriptOf()),
			b.httpFilter(ingressDeny, &httprbacv3.RBAC{}),
			b.httpFilter(ingressFilter, rulesOf(denyAll(), nil, ingressStatistic)),
			b.httpFilter(lastScript, scriptOf()),
			b.httpFilter(grpcStats, &grpcstatsv3.FilterConfig{EmitFilterState: true}),
			b.httpFilter("envoy.filters.http.router", &routerv3.Router{SuppressEnvoyHeaders: true}),
		},
	}
}

// http1 is spoken on both sides, with trailers, and field names in the case they came in.
// A wish for another protocol is left out of the head, as headgate's own proxy does.
func (b *builder) http1() *corev3.Http1ProtocolOptions {
	o := &corev3.Http1ProtocolOptions{
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
	for _, prefix := range []string{"h2c", "TLS/", "HTTP/"} {
		o.IgnoreHttp_11Upgrade = append(o.IgnoreHttp_11Upgrade, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
		})
	}
	return o
}

// http2: what is wrong with one request ends its stream alone.
func http2() *corev3.Http2ProtocolOptions {
	return &corev3.Http2ProtocolOptions{
		InitialStreamWindowSize: wrapperspb.UInt32(streamWindow), InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		OverrideStreamErrorOnInvalidHttpMessage: wrapperspb.Bool(true),
	}
}

// upgrades are the tunnels that Envoy carries. They are judged like all requests.
func upgrades() []*hcmv3.HttpConnectionManager_UpgradeConfig {
	return []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}, {UpgradeType: connectMethod}}
}

// keepForwardedProto puts the header aside before Envoy writes its own.
func (b *builder) keepForwardedProto() *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name: "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: b.pack(&earlyv3.HeaderMutation{Mutations: []*mutationv3.HeaderMutation{
			{Action: &mutationv3.HeaderMutation_Remove{Remove: sentForwardedProto}},
			{Action: &mutationv3.HeaderMutation_Append{Append: copied(sentForwardedProto, forwardedProto)}},
		}}),
	}
}

// copied gives a header the value of another, if that is there.
func copied(to, from string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: to, Value: "%REQ(" + from + ")%"},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// denials gives what the RBAC filters answer the body that people know.
func denials() *hcmv3.LocalReplyConfig {
	forbidden := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op:    accesslogv3.ComparisonFilter_EQ,
			Value: &corev3.RuntimeUInt32{DefaultValue: 403, RuntimeKey: "headgate.denied"},
		}},
	}}
	call := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{
		HeaderFilter: &accesslogv3.HeaderFilter{Header: &routev3.HeaderMatcher{
			Name: "content-type", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: expression(grpcType + "(?:[+; ].*)?")},
		}},
	}}
	both := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{forbidden, call}},
	}}
	body := func(filter *accesslogv3.AccessLogFilter, text string) *hcmv3.ResponseMapper {
		return &hcmv3.ResponseMapper{Filter: filter, BodyFormatOverride: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_TextFormatSource{
				TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text}},
			},
		}}
	}
	// To a call the text is a header.
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{body(both, "Access denied"), body(forbidden, deniedBody)}}
}

func (b *builder) httpFilter(name string, m proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: b.pack(m)}}
}
