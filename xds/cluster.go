package xds

import (
	"math"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// clusterName is of the only cluster that requests go to: where the client dialled.
const clusterName = "original-destination"

// connectTimeout is for the server to accept; the client has long been accepted.
const connectTimeout = 10 * time.Second

// clusterOf makes the cluster. The client's address and the mark come with each
// connection from the listener's original_src filter.
func clusterOf() (*clusterv3.Cluster, error) {
	var b builder
	c := &clusterv3.Cluster{
		Name:                 clusterName,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_ORIGINAL_DST},
		LbPolicy:             clusterv3.Cluster_CLUSTER_PROVIDED,
		ConnectTimeout:       durationpb.New(connectTimeout),
		// Connections of one client do not share one to the server: what a server
		// remembers of a connection stays with its client.
		ConnectionPoolPerDownstreamConnection: true,
		CircuitBreakers:                       unlimited(),
		UpstreamConnectionOptions:             &clusterv3.UpstreamConnectionOptions{TcpKeepalive: keepalive()},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.pack(&upstreamhttpv3.HttpProtocolOptions{
				CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(0)},
				// Whatever the client speaks: what one of both understands is not said in the other.
				UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamProtocolConfig{
					UseDownstreamProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_UseDownstreamHttpConfig{
						HttpProtocolOptions: b.http1(), Http2ProtocolOptions: http2(),
					},
				},
			}),
		},
	}
	return c, b.check(c)
}

// unlimited: every server of the node is behind this one cluster, so that a limit
// would let one of them starve the others.
func unlimited() *clusterv3.CircuitBreakers {
	most := wrapperspb.UInt32(math.MaxUint32)
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: most, MaxPendingRequests: most, MaxRequests: most,
	}}}
}
