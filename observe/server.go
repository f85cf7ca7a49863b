package observe

import (
	"context"
	"errors"
	"sync"
	"time"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	relaypb "github.com/cilium/cilium/api/v1/relay"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// HealthService is the name under which hubble asks for the server's health.
const HealthService = "hubble.server.Observer"

// Server is Hubble's Observer API over a Ring, with its Peer API (of this node
// alone) and gRPC's health API. Methods that it does not have answer Unimplemented.
type Server struct {
	observerpb.UnimplementedObserverServer

	ring   *Ring
	info   ServerInfo
	start  time.Time
	health *health.Server

	stopped context.Context
	stop    context.CancelCauseFunc
	once    sync.Once
}

// ServerInfo is what the server says of itself.
type ServerInfo struct {
	Node    string // node name
	Version string
	Address string // where others reach this API; "" if they cannot, then there is no Peer API
}

// NewServer returns a server over the ring.
func NewServer(ring *Ring, info ServerInfo) *Server {
	s := &Server{ring: ring, info: info, start: time.Now(), health: health.NewServer()}
	s.stopped, s.stop = context.WithCancelCause(context.Background())
	return s
}

// Register adds the services to a gRPC server that is not serving yet.
func (s *Server) Register(to grpc.ServiceRegistrar) {
	observerpb.RegisterObserverServer(to, s)
	if s.info.Address != "" {
		peerpb.RegisterPeerServer(to, &peers{server: s})
	}
	s.health.SetServingStatus(HealthService, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(to, s.health)
}

// Close ends the streams that follow, which would hold up a graceful stop.
func (s *Server) Close() {
	s.once.Do(func() {
		s.health.Shutdown()
		s.stop(status.Error(codes.Unavailable, "the observer is shutting down"))
	})
}

// follow returns a context for one stream, which ends with the stream or the
// server; its cause is the error to give the client.
func (s *Server) follow(stream context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(stream)
	stop := context.AfterFunc(s.stopped, func() { cancel(context.Cause(s.stopped)) })
	return ctx, func() { stop(); cancel(nil) }
}

// streamError is what a stream ends with: clients that went away get no error.
func streamError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return err
}

// ServerStatus implements the Observer API.
func (s *Server) ServerStatus(context.Context, *observerpb.ServerStatusRequest) (*observerpb.ServerStatusResponse, error) {
	return &observerpb.ServerStatusResponse{
		NumFlows:  uint64(s.ring.Len()),
		MaxFlows:  uint64(s.ring.Cap()),
		SeenFlows: s.ring.Seen(),
		UptimeNs:  uint64(time.Since(s.start)),
		FlowsRate: s.ring.Rate(time.Minute),
		Version:   s.info.Version,
	}, nil
}

// GetNodes implements the Observer API: the one node there is.
func (s *Server) GetNodes(context.Context, *observerpb.GetNodesRequest) (*observerpb.GetNodesResponse, error) {
	return &observerpb.GetNodesResponse{Nodes: []*observerpb.Node{{
		Name:      s.info.Node,
		Version:   s.info.Version,
		Address:   s.info.Address,
		State:     relaypb.NodeState_NODE_CONNECTED,
		Tls:       &observerpb.TLS{},
		UptimeNs:  uint64(time.Since(s.start)),
		NumFlows:  uint64(s.ring.Len()),
		MaxFlows:  uint64(s.ring.Cap()),
		SeenFlows: s.ring.Seen(),
	}}}, nil
}

// GetNamespaces implements the Observer API.
func (s *Server) GetNamespaces(context.Context, *observerpb.GetNamespacesRequest) (*observerpb.GetNamespacesResponse, error) {
	return &observerpb.GetNamespacesResponse{Namespaces: s.ring.Namespaces()}, nil
}

// peers is the Peer API of a node that knows no other.
type peers struct {
	peerpb.UnimplementedPeerServer
	server *Server
}

// Notify says that this node is there, and then nothing more.
func (p *peers) Notify(_ *peerpb.NotifyRequest, stream grpc.ServerStreamingServer[peerpb.ChangeNotification]) error {
	ctx, cancel := p.server.follow(stream.Context())
	defer cancel()
	err := stream.Send(&peerpb.ChangeNotification{
		Name:    p.server.info.Node,
		Address: p.server.info.Address,
		Type:    peerpb.ChangeNotificationType_PEER_ADDED,
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return streamError(context.Cause(ctx))
}
