package envoy

import (
	"errors"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bandwidthv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/bandwidth_limit/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	corsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/cors/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	grpcbridgev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_http1_bridge/v3"
	grpcstatsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_stats/v3"
	grpcwebv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/grpc_web/v3"
	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	tometadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_to_metadata/v3"
	httplimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_metadata/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	connlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/local_ratelimit/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	preservecasev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/header_formatters/preserve_case/v3"
	leastv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	randomv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/random/v3"
	ringv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	roundv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/round_robin/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

const (
	listenerType = typePrefix + "envoy.config.listener.v3.Listener"
	clusterType  = typePrefix + "envoy.config.cluster.v3.Cluster"
	routeType    = typePrefix + "envoy.config.route.v3.RouteConfiguration"
	endpointType = typePrefix + "envoy.config.endpoint.v3.ClusterLoadAssignment"
)

// allowed resolves the types that may be packed, and no others.
func allowed() *resolver {
	types := &protoregistry.Types{}
	var errs error
	for _, m := range []proto.Message{
		&listenerv3.Listener{}, &clusterv3.Cluster{}, &routev3.RouteConfiguration{}, &endpointv3.ClusterLoadAssignment{},
		&routev3.FilterConfig{},
		// Filters of requests.
		&routerv3.Router{}, &bandwidthv3.BandwidthLimit{}, &bufferv3.Buffer{}, &bufferv3.BufferPerRoute{}, &corsv3.Cors{}, &corsv3.CorsPolicy{},
		&faultv3.HTTPFault{}, &grpcbridgev3.Config{}, &grpcstatsv3.FilterConfig{},
		&grpcwebv3.GrpcWeb{}, &mutationv3.HeaderMutation{}, &mutationv3.HeaderMutationPerRoute{}, &tometadatav3.Config{},
		&httplimitv3.LocalRateLimit{}, &httprbacv3.RBAC{}, &httprbacv3.RBACPerRoute{}, &metadatav3.Config{},
		// Filters of connections.
		&hcmv3.HttpConnectionManager{}, &tcpproxyv3.TcpProxy{}, &netrbacv3.RBAC{}, &connlimitv3.ConnectionLimit{}, &netlimitv3.LocalRateLimit{},
		&httpinspectorv3.HttpInspector{}, &tlsinspectorv3.TlsInspector{},
		// How connections are made.
		&tlsv3.UpstreamTlsContext{}, &tlsv3.DownstreamTlsContext{}, &rawbufferv3.RawBuffer{}, &upstreamhttpv3.HttpProtocolOptions{},
		&preservecasev3.PreserveCaseFormatterConfig{}, &leastv3.LeastRequest{}, &maglevv3.Maglev{}, &randomv3.Random{}, &ringv3.RingHash{}, &roundv3.RoundRobin{},
	} {
		errs = errors.Join(errs, types.RegisterMessage(m.ProtoReflect().Type()))
	}
	return &resolver{types, errs}
}

// resolver finds messages; no extension may stand in them.
type resolver struct {
	types *protoregistry.Types
	err   error
}

func (r *resolver) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.types.FindMessageByName(name)
}

func (r *resolver) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if r.err != nil {
		return nil, r.err
	}
	return r.types.FindMessageByURL(url)
}

func (r *resolver) FindExtensionByName(protoreflect.FullName) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

func (r *resolver) FindExtensionByNumber(protoreflect.FullName, protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	return nil, protoregistry.NotFound
}

// forbiddenMessages are those that may stand nowhere, and what to write instead.
func forbiddenMessages() map[protoreflect.FullName]string {
	const agent = "all of the configuration comes from the agent"
	const files = "files are not Envoy's to read here; write the text itself (inlineString)"
	// Envoy would make such connections as the node, past the gate.
	const host = "Envoy would connect by itself, as the node and not as the client; delete it"
	return map[protoreflect.FullName]string{
		"envoy.config.core.v3.HealthCheck":                                         host,
		"envoy.config.route.v3.RouteAction.RequestMirrorPolicy":                    host,
		"envoy.config.core.v3.Pipe":                                                "unix sockets are the node's; write an IP address",
		"envoy.config.core.v3.EnvoyInternalAddress":                                "write an IP address",
		"envoy.config.core.v3.ApiConfigSource":                                     agent,
		"envoy.config.core.v3.PathConfigSource":                                    files,
		"envoy.config.core.v3.WatchedDirectory":                                    files,
		"envoy.config.core.v3.GrpcService.GoogleGrpc":                              "write envoyGrpc with a cluster of this object",
		"envoy.config.core.v3.SocketOption":                                        "sockets are marked and bound by the agent; delete it",
		"envoy.config.core.v3.SocketOptionsOverride":                               "sockets are marked and bound by the agent; delete it",
		"envoy.config.core.v3.BindConfig":                                          "connections are made from the client's address; delete it",
		"envoy.config.core.v3.RemoteDataSource":                                    files,
		"envoy.config.accesslog.v3.AccessLog":                                      "the agent adds its own, from which flows are made; delete it",
		"envoy.config.trace.v3.Tracing":                                            "delete it",
		"envoy.config.route.v3.Vhds":                                               agent,
		"envoy.config.route.v3.ClusterSpecifierPlugin":                             "write the name of a cluster",
		"envoy.config.listener.v3.ApiListener":                                     "write filterChains",
		"envoy.config.listener.v3.Listener.InternalListenerConfig":                 "write filterChains",
		"envoy.config.listener.v3.UdpListenerConfig":                               "policies hand over TCP connections; delete it",
		"envoy.config.listener.v3.AdditionalAddress":                               "the node says where a listener listens; delete it",
		"envoy.config.cluster.v3.Cluster.CustomClusterType":                        "write type STATIC, EDS or ORIGINAL_DST",
		"envoy.extensions.transport_sockets.tls.v3.SdsSecretConfig":                "write the certificate itself (inlineString)",
		"envoy.extensions.transport_sockets.tls.v3.PrivateKeyProvider":             "write the key itself (inlineString)",
		"envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes": "write rds or routeConfig",
	}
}

// forbiddenFields are those that may stand nowhere, and what to write instead.
func forbiddenFields() map[protoreflect.FullName]string {
	const chosen = "clients would choose where to go; write the name of a cluster"
	return map[protoreflect.FullName]string{
		"envoy.config.core.v3.DataSource.filename":                                "write the text itself (inlineString)",
		"envoy.config.core.v3.DataSource.environment_variable":                    "write the text itself (inlineString)",
		"envoy.config.route.v3.RouteAction.cluster_header":                        chosen,
		"envoy.config.route.v3.RouteAction.cluster_specifier_plugin":              chosen,
		"envoy.config.route.v3.WeightedCluster.ClusterWeight.cluster_header":      chosen,
		"envoy.config.listener.v3.Listener.bind_to_port":                          "the node says where a listener listens; delete it",
		"envoy.config.listener.v3.Listener.use_original_dst":                      "the listener gets the connections that policies hand to it; delete it",
		"envoy.config.listener.v3.Listener.filter_chain_matcher":                  "write filterChainMatch",
		"envoy.extensions.transport_sockets.tls.v3.TlsKeyLog.path":                "delete it",
		"envoy.extensions.transport_sockets.tls.v3.CommonTlsContext.key_log":      "delete it",
		"envoy.config.cluster.v3.Cluster.transport_socket_matcher":                "write transportSocket",
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.tunneling_config": "delete it",
	}
}

// references are the fields that name a resource, and of which type.
func references() map[protoreflect.FullName]string {
	return map[protoreflect.FullName]string{
		"envoy.config.route.v3.RouteAction.cluster":                                                 clusterType,
		"envoy.config.route.v3.WeightedCluster.ClusterWeight.name":                                  clusterType,
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.cluster":                            clusterType,
		"envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy.WeightedCluster.ClusterWeight.name": clusterType,
		"envoy.config.core.v3.GrpcService.EnvoyGrpc.cluster_name":                                   clusterType,
		"envoy.config.core.v3.HttpUri.cluster":                                                      clusterType,
		"envoy.extensions.filters.network.http_connection_manager.v3.Rds.route_config_name":         routeType,
		"envoy.config.cluster.v3.Cluster.EdsClusterConfig.service_name":                             endpointType,
	}
}
