package xds

import (
	"context"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// proxyCluster is the node cluster that an Envoy of ours has. Whoever else asks is told
// of services, and of nothing that is enforced.
const proxyCluster = "headgate"

// server answers the aggregated service: our Envoy by the delta variant, of which the
// ledger keeps account, others by either.
type server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	clients *clients
	guard   *guard
	// turnAway is told of each Envoy that would enforce, and why it may not.
	turnAway func(ctx context.Context, err error)
	drains   func(unix.Ucred) bool // an Envoy that has been replaced
	proxy    delta.Server
	delta    delta.Server // of those who look up services
	sotw     sotw.Server
}

func newServer(ctx context.Context, b *Backend) *server {
	services := b.services.watcher()
	b.clients.mask = func(text string) string { return maskText(text, b.secretValues()) }
	return &server{
		clients: &b.clients, guard: b.guard, turnAway: b.turnAway, drains: b.drains, proxy: delta.NewServer(ctx, b.store.watcher(), b.store.ledger),
		delta: delta.NewServer(ctx, services, nil),
		// A client that asks for no name wants none; it is no Envoy.
		sotw: sotw.NewServer(ctx, services, nil, sotw.DeactivateLegacyWildcard()),
	}
}

// DeltaAggregatedResources implements Envoy's aggregated service.
func (s *server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	role, handler := roleClient, s.delta
	if ours(first.GetNode()) {
		if s.drains(whoCalls(stream.Context())) {
			return status.Error(codes.Unavailable, "another Envoy has taken over")
		}
		err := fit(first.GetNode())
		s.turnAway(stream.Context(), err)
		if err != nil {
			return status.Error(codes.FailedPrecondition, err.Error())
		}
		role, handler = roleProxy, s.proxy
	}
	c, leave := s.clients.join(stream.Context(), "delta", role, first.GetNode())
	defer leave()
	if role == roleProxy {
		s.guard.connected(c.says.PID)
		c.heard = s.guard.hears
	}
	w := &watched[discoveryv3.DeltaDiscoveryRequest, discoveryv3.DeltaDiscoveryResponse]{stream, first, c}
	return handler.DeltaStreamHandler(w, resource.AnyType)
}

// StreamAggregatedResources implements Envoy's aggregated service, as grpc's own client
// asks it.
func (s *server) StreamAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	if ours(first.GetNode()) {
		return status.Error(codes.InvalidArgument, "an Envoy that enforces asks by api_type DELTA_GRPC: start it with what 'headgate xds bootstrap' prints")
	}
	c, leave := s.clients.join(stream.Context(), "sotw", roleClient, first.GetNode())
	defer leave()
	w := &watched[discoveryv3.DiscoveryRequest, discoveryv3.DiscoveryResponse]{stream, first, c}
	return s.sotw.StreamHandler(w, resource.AnyType)
}

func ours(n *corev3.Node) bool { return n.GetCluster() == proxyCluster }
