package xds

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
	grpcxds "google.golang.org/grpc/xds"

	"github.com/headgate/headgate/redirect"
)

// healthServer answers on a port of its own.
type healthServer struct {
	healthv1.UnimplementedHealthServer
}

func (healthServer) Check(context.Context, *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

func serveHealth(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, healthServer{})
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	return l.Addr().(*net.TCPAddr).AddrPort()
}

// TestGRPCClientFindsServices has gRPC's own xDS client call a service by its name, and
// follow it when what is behind it changes.
func TestGRPCClientFindsServices(t *testing.T) {
	b := newTestBackend(t, Config{})
	first, second := serveHealth(t), serveHealth(t)
	guide := func(port uint16, backends ...netip.AddrPort) {
		t.Helper()
		if err := b.Guide([]redirect.LookedUp{{Namespace: "shop", Name: "echo", Port: port, Backends: backends}}); err != nil {
			t.Fatal(err)
		}
	}
	guide(80, first)
	resolver, err := grpcxds.NewXDSResolverWithConfigForTesting(fmt.Appendf(nil,
		`{"xds_servers": [{"server_uri": "unix:%s", "channel_creds": [{"type": "insecure"}]}], "node": {"id": "client"}}`, b.file(SocketName)))
	if err != nil {
		t.Fatal(err)
	}
	reaches := func(target string, want netip.AddrPort) {
		t.Helper()
		conn, err := grpc.NewClient("xds:///"+target, grpc.WithResolvers(resolver), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		waitFor(t, func() bool {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			var p peer.Peer
			_, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Peer(&p), grpc.WaitForReady(true))
			return err == nil && p.Addr.String() == want.String()
		})
	}
	reaches("echo.shop", first)
	reaches("echo.shop:80", first)
	guide(80, second)
	reaches("echo.shop", second)
	guide(81, first)
	reaches("echo.shop:81", first)

	d, err := b.Discovery("")
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]string{}
	for _, r := range d.Resources {
		names[lastPart(r.Type)+" "+r.Name] = r.State
	}
	if names["Cluster echo.shop:81"] != "offered" || names["Cluster echo.shop:80"] != "" {
		t.Errorf("the dump has %v", names)
	}
	if names["Cluster "+clusterName] == "" {
		t.Error("the dump has not what Envoy is told")
	}
	if n := b.services.caches["type.googleapis.com/envoy.config.listener.v3.Listener"].NumResources(); n != 2 {
		t.Errorf("%d listeners are offered, want echo.shop and echo.shop:81", n)
	}
	if s := b.Status(); s.State == "ready" {
		t.Error("a client that looks up services is taken for an Envoy that enforces")
	}
}
