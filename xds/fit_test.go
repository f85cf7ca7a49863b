package xds

import (
	"context"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

// TestUnfitEnvoyIsTurnedAway: one that could take rules for others is told none, and the
// status says why, until one comes that fits.
func TestUnfitEnvoyIsTurnedAway(t *testing.T) {
	b := newTestBackend(t, Config{})
	conn, err := grpc.NewClient("unix:"+b.file(SocketName), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	waitFor(t, func() bool {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		_, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
		return err == nil
	})
	for _, tt := range []struct {
		metadata *structpb.Struct
		minor    uint32
		says     string
	}{
		{nil, 40, "another bootstrap"},
		{bootstrapMark(), 39, "use Envoy 1.40"},
		{bootstrapMark(), 41, "use Envoy 1.40"},
	} {
		stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ListenerType, Node: &corev3.Node{
			Id: "other", Cluster: proxyCluster, Metadata: tt.metadata, UserAgentVersionType: &corev3.Node_UserAgentBuildVersion{
				UserAgentBuildVersion: &corev3.BuildVersion{Version: &typev3.SemanticVersion{MajorNumber: 1, MinorNumber: tt.minor}},
			},
		}}); err != nil {
			t.Fatal(err)
		}
		if r, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("told %v, %v; want it refused with %q", r, err, tt.says)
		}
		if s := b.Status(); s.State == "ready" || !strings.Contains(s.Detail, tt.says) {
			t.Errorf("the status is %+v", s)
		}
	}
	connectFake(t, b, nil, nil)
	if s := b.Status(); s.Detail != "" {
		t.Errorf("with an Envoy that fits: %+v", s)
	}
}
