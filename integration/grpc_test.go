package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
)

// allowCalls is a policy for the server by rules for gRPC, with others for HTTP
// beside them.
func allowCalls(name string, port int, grpcRules, httpRules string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules: {grpc: [%s]}
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      rules: {http: [%s]}
`, name, port, grpcRules, port, httpRules)
}

// TestGRPCInterop runs grpc-go's own client and server, unchanged.
func TestGRPCInterop(t *testing.T) {
	t.Parallel()
	eachBackend(t, grpcInterop)
}

func grpcInterop(t *testing.T, b backend) {
	clientProgram, serverProgram := needPart(t, "interop/client"), needPart(t, "interop/server")
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	p, err := server.start(exec.Command(serverProgram, "--port", "10000"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.end(syscall.SIGTERM, patience) })
	n.apply(t, allowCalls("interop", 10000, `{service: "grpc.testing.*"}, {service: "xds.service.orca.*"}`, `{path: /none}`))
	eventually(t, patience, "the server listens", func() error {
		c, err := server.dial(server.at(4, 10000), patience)
		if err == nil {
			c.Close()
		}
		return err
	})
	for _, name := range []string{
		"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
		"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
		"unimplemented_method", "unimplemented_service", "orca_per_rpc", "orca_oob", "rpc_soak", "channel_soak",
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"--server_host", server.addr(4).String(), "--server_port", "10000", "--test_case", name, "--soak_iterations", "50", "--soak_overall_timeout_seconds", "180", "--soak_per_iteration_max_acceptable_latency_ms", "60000"}
			if strings.HasPrefix(name, "orca") {
				args = append(args, "--service_config_json", `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`)
			}
			// Where the client's thread has to wait between its cancellation and its
			// reading, it takes an answer that came meanwhile, and calls that an error.
			for overtaken := 0; ; overtaken++ {
				_, err := client.attempt(t, clientProgram, args...)
				if err == nil {
					return
				}
				if name != "cancel_after_begin" || overtaken == 20 || !strings.Contains(err.Error(), "CloseAndRecv() got error code 0, want 1") {
					t.Fatal(err)
				}
			}
		})
	}
	for path, want := range map[string][3]string{
		"/grpc.testing.TestService/StreamingInputCall": {"0", "4", "1"},
		"/grpc.testing.TestService/UnimplementedCall":  {"12", "1", "0"},
	} {
		n.awaitFlow(t, path, []string{"--type", "l7", "--http-path", path}, func(f *flowpb.Flow) bool {
			h := headersOf(f)
			return f.GetIsReply().GetValue() && [3]string{h["grpc-status"], h["x-grpc-messages-sent"], h["x-grpc-messages-received"]} == want
		})
	}
}

func headersOf(f *flowpb.Flow) map[string]string {
	headers := map[string]string{}
	for _, h := range f.GetL7().GetHttp().GetHeaders() {
		headers[h.GetKey()] = h.GetValue()
	}
	return headers
}

// callServer has what grpc-go offers without generated code: health, whose Watch is
// a stream without end, and reflection. Calls of unknown methods block, to be
// cancelled.
type callServer struct {
	*health.Server
	blocked         // of any unknown method but
	expired blocked // those of expires
}

// expires is the method of calls that have a deadline, of which any number may come.
const expires = "/slow.Svc/Expires"

type blocked struct {
	begun chan struct{}
	ended chan error
}

func newBlocked() blocked { return blocked{make(chan struct{}, 10), make(chan error, 10)} }

func (n *namespace) serveCalls(t *testing.T, port int) *callServer {
	t.Helper()
	s := &callServer{health.NewServer(), newBlocked(), newBlocked()}
	g := grpc.NewServer(grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
		b := s.blocked
		if method, _ := grpc.MethodFromServerStream(stream); method == expires {
			b = s.expired
		}
		b.begun <- struct{}{}
		<-stream.Context().Done()
		b.ended <- stream.Context().Err()
		return stream.Context().Err()
	}))
	healthpb.RegisterHealthServer(g, s.Server)
	reflection.Register(g)
	l := n.listen(t, port)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return s
}

// dialCalls is a channel to a server.
func (n *namespace) dialCalls(t *testing.T, to netip.AddrPort) *grpc.ClientConn {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+to.String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return n.dial(to, patience) }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestGRPCRules: services and methods are judged, next to rules for HTTP and to
// HTTP requests, on the same connection.
func TestGRPCRules(t *testing.T) {
	t.Parallel()
	eachBackend(t, grpcRules)
}

func grpcRules(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	calls := server.serveCalls(t, 50051)
	n.apply(t, allowCalls("calls", 50051, "{service: grpc.health.v1.Health, method: Check}, {service: slow.Svc}", `{method: POST, path: "/grpc.reflection.v1.*"}`))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		c := client.dialCalls(t, server.at(v, 50051))
		ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
		defer cancel()
		h := healthpb.NewHealthClient(c)
		if r, err := h.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil || r.Status != healthpb.HealthCheckResponse_SERVING {
			t.Error(r, err)
		}
		_, err := h.List(ctx, &healthpb.HealthListRequest{})
		if s := status.Convert(err); s.Code() != codes.PermissionDenied || s.Message() != "Access denied" {
			t.Errorf("a method that no rule names: %v", err)
		}
		watch, err := h.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = watch.Recv()
		}
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("a stream that no rule names: %v", err)
		}
		listsServices(ctx, t, c)
		// A deadline, and a cancellation that must reach the server.
		for within, reached := 100*time.Millisecond, false; !reached; within *= 2 { // a busy machine may let a short one pass on the way
			brief, stop := context.WithTimeout(ctx, within)
			if err := c.Invoke(brief, expires, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{}); ctx.Err() != nil || status.Code(err) != codes.DeadlineExceeded && !(b.bound && status.Code(err) == codes.Unavailable) {
				// The server ends the call too; Envoy makes an answer of that.
				t.Fatalf("a deadline: %v", err)
			}
			stop()
			select {
			case <-calls.expired.begun:
				<-calls.expired.ended
				reached = true
			case <-time.After(within):
			}
		}
		cancelled, stop := context.WithCancel(ctx)
		stream, err := c.NewStream(cancelled, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/slow.Svc/Wait")
		if err == nil {
			err = stream.SendMsg(&healthpb.HealthCheckRequest{})
		}
		if err != nil {
			t.Fatal(err)
		}
		<-calls.begun
		stop()
		if err := stream.RecvMsg(&healthpb.HealthCheckResponse{}); status.Code(err) != codes.Canceled {
			t.Errorf("a cancellation: %v", err)
		}
		if err := <-calls.ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the server saw %v", err)
		}
	})
	n.awaitFlow(t, "a denied call", []string{"--type", "l7", "--verdict", "DROPPED", "--http-path", "/grpc.health.v1.Health/Watch"}, func(f *flowpb.Flow) bool {
		return f.GetL7().GetHttp().GetProtocol() == "HTTP/2"
	})
	n.awaitFlow(t, "its answer", []string{"--type", "l7", "--http-path", "/grpc.health.v1.Health/Watch"}, func(f *flowpb.Flow) bool {
		return f.GetIsReply().GetValue() && headersOf(f)["grpc-status"] == "7"
	})
	n.awaitFlow(t, "an allowed call", []string{"--type", "l7", "--http-path", "/grpc.health.v1.Health/Check"}, func(f *flowpb.Flow) bool {
		h := headersOf(f)
		return h["grpc-status"] == "0" && h["x-grpc-messages-sent"] == "1" && h["x-grpc-messages-received"] == "1"
	})
}

// listsServices asks a server for its services.
func listsServices(ctx context.Context, t *testing.T, c *grpc.ClientConn) {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(c).ServerReflectionInfo(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	if err := stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}}); err != nil {
		t.Error(err)
	}
	_ = stream.CloseSend()
	r, err := stream.Recv()
	if err != nil || !strings.Contains(r.String(), "grpc.health.v1.Health") {
		t.Error(r, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

// TestGRPCPolicyChanges: a stream that lasts ends when policy forbids it, and no
// other on its connection.
func TestGRPCPolicyChanges(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	calls := server.serveCalls(t, 50051)
	n.apply(t, allowCalls("calls", 50051, "{service: grpc.health.v1.Health}, {service: slow.Svc}", "{path: /none}"))
	c := client.dialCalls(t, server.at(4, 50051))
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	watch, err := healthpb.NewHealthClient(c).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := watch.Recv(); err != nil {
		t.Fatal(err)
	}
	slow, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/slow.Svc/Wait")
	if err == nil {
		err = slow.SendMsg(&healthpb.HealthCheckRequest{})
	}
	if err != nil {
		t.Fatal(err)
	}
	<-calls.begun
	n.apply(t, allowCalls("calls", 50051, "{service: grpc.health.v1.Health}", "{path: /none}"))
	// The gate judges a connection again at its next packet.
	if _, err := healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
	if err := slow.RecvMsg(&healthpb.HealthCheckResponse{}); status.Code(err) != codes.Canceled {
		t.Errorf("the stream that is forbidden now: %v", err)
	}
	if err := <-calls.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the server saw %v", err)
	}
	calls.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("the stream that is allowed still: %v %v", r, err)
	}
}
