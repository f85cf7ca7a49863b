package xds

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
)

// DrainTime is how long a listener that is no longer served keeps its connections;
// they are denied everything meanwhile.
const DrainTime = time.Second

// maxProgram is the largest expression that Envoy takes, in RE2 instructions. Its
// default of 100 would refuse rules that policy takes; policy has its own limit.
const maxProgram = 1 << 20

// agentCluster is how Envoy calls the agent.
const agentCluster = "headgate-agent"

// BootstrapOptions are what an Envoy needs to know to find its agent.
type BootstrapOptions struct {
	NodeID string
	Socket string // Config.Socket of the Backend
	// Admin is the path of a unix socket for Envoy's admin interface, for its owner
	// alone; empty: there is none.
	Admin string
}

// Bootstrap renders Envoy's bootstrap, as JSON.
func Bootstrap(o BootstrapOptions) ([]byte, error) {
	if o.NodeID == "" || o.Socket == "" {
		return nil, errors.New("make Envoy's bootstrap: it needs a node id and a socket")
	}
	var b builder
	runtime, err := structpb.NewStruct(map[string]any{
		"re2.max_program_size.error_level": maxProgram,
		// A header that was sent several times is one list (policy.HeaderRule). Value by value,
		// which is Envoy's default, a second value would pass with the first.
		"envoy.reloadable_features.rbac_match_headers_individually": false,
	})
	if err != nil {
		return nil, fmt.Errorf("make Envoy's bootstrap: %w", err)
	}
	c := &bootstrapv3.Bootstrap{
		Node:             &corev3.Node{Id: o.NodeID, Cluster: proxyCluster, Metadata: bootstrapMark()},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{b.agent(o.Socket)}},
		DynamicResources: dynamicResources(),
		LayeredRuntime: &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
			Name: "headgate", LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: runtime},
		}}},
	}
	if o.Admin != "" {
		c.Admin = &bootstrapv3.Admin{Address: pipe(o.Admin)}
	}
	if err := b.check(c); err != nil {
		return nil, err
	}
	text, err := protojson.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("render Envoy's bootstrap: %w", err)
	}
	var out bytes.Buffer // protojson's white space differs from time to time
	if err := json.Indent(&out, text, "", "  "); err != nil {
		return nil, fmt.Errorf("render Envoy's bootstrap: %w", err)
	}
	return out.Bytes(), nil
}

// Args are the arguments that Envoy must be started with, with its bootstrap.
func Args(bootstrap string, workers int) []string {
	return []string{
		"--config-yaml", bootstrap, "--concurrency", strconv.Itoa(workers), "--use-dynamic-base-id",
		"--drain-time-s", strconv.Itoa(int(DrainTime / time.Second)), "--drain-strategy", "immediate", "--log-level", "warning",
	}
}

// dynamicResources: all by one stream, in order.
func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := awaited()
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads, CdsConfig: ads,
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
				EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: agentCluster, RetryPolicy: soon()},
			}}},
		},
	}
}

// awaited is what Envoy does not begin without: one that has no rules must not take over
// from one that has.
func awaited() *corev3.ConfigSource {
	source := byADS()
	source.InitialFetchTimeout = durationpb.New(0)
	return source
}

// soon after an agent is back Envoy asks again.
func soon() *corev3.RetryPolicy {
	return &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
		BaseInterval: durationpb.New(100 * time.Millisecond), MaxInterval: durationpb.New(time.Second),
	}}
}

func (b *builder) agent(socket string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 agentCluster,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:       durationpb.New(time.Second),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": b.pack(&upstreamhttpv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
						},
					},
				},
			}),
		},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: agentCluster,
			Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: pipe(socket)}},
			}}}},
		},
	}
}

func pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: 0o600}}}
}
