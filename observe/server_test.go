package observe

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	peerpb "github.com/cilium/cilium/api/v1/peer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// serve runs a server over the ring until the test ends.
func serve(t *testing.T, ring *Ring, options ...grpc.DialOption) (*Server, *grpc.ClientConn) {
	t.Helper()
	s := NewServer(ring, ServerInfo{Node: "n1", Version: "headgate 1.0", Address: "192.0.2.1:4245"})
	g := grpc.NewServer()
	s.Register(g)
	listener := bufconn.Listen(1 << 16)
	go func() { _ = g.Serve(listener) }()
	options = append(options, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }))
	conn, err := grpc.NewClient("passthrough:bufconn", options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		s.Close()
		g.Stop()
	})
	return s, conn
}

// getFlows reads a stream to its end.
func getFlows(t *testing.T, conn *grpc.ClientConn, req *observerpb.GetFlowsRequest) ([]int, error) {
	t.Helper()
	stream, err := observerpb.NewObserverClient(conn).GetFlows(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	got := []int{}
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return got, nil
		}
		if err != nil {
			return got, err
		}
		got = append(got, number(res.GetFlow()))
	}
}

func second(n int) *timestamppb.Timestamp {
	return timestamppb.New(testTime().Add(time.Duration(n) * time.Second))
}

func TestGetFlows(t *testing.T) {
	ring := filledRing(16, 10)
	ring.WriteLost(flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, 3) // is no flow, and does not count as one
	_, conn := serve(t, ring)
	ports := func(p ...string) []*flowpb.FlowFilter { return []*flowpb.FlowFilter{{SourcePort: p}} }
	for name, c := range map[string]struct {
		req  *observerpb.GetFlowsRequest
		want []int
	}{
		"everything":     {&observerpb.GetFlowsRequest{}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"last 3":         {&observerpb.GetFlowsRequest{Number: 3}, []int{7, 8, 9}},
		"last of many":   {&observerpb.GetFlowsRequest{Number: 1 << 63}, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}},
		"first 2":        {&observerpb.GetFlowsRequest{Number: 2, First: true}, []int{0, 1}},
		"since":          {&observerpb.GetFlowsRequest{Since: second(7)}, []int{7, 8, 9}},
		"until":          {&observerpb.GetFlowsRequest{Until: second(1)}, []int{0, 1}},
		"between":        {&observerpb.GetFlowsRequest{Since: second(3), Until: second(5)}, []int{3, 4, 5}},
		"last between":   {&observerpb.GetFlowsRequest{Since: second(3), Until: second(5), Number: 2}, []int{4, 5}},
		"first since":    {&observerpb.GetFlowsRequest{Since: second(3), Number: 2, First: true}, []int{3, 4}},
		"filtered":       {&observerpb.GetFlowsRequest{Whitelist: ports("1", "5", "8")}, []int{1, 5, 8}},
		"last filtered":  {&observerpb.GetFlowsRequest{Whitelist: ports("1", "5", "8"), Number: 2}, []int{5, 8}},
		"left out":       {&observerpb.GetFlowsRequest{Blacklist: ports("1", "2", "8", "9"), Number: 3}, []int{5, 6, 7}},
		"of both lists":  {&observerpb.GetFlowsRequest{Whitelist: ports("1", "5"), Blacklist: ports("5")}, []int{1}},
		"nothing wanted": {&observerpb.GetFlowsRequest{Whitelist: ports("99")}, []int{}},
	} {
		got, err := getFlows(t, conn, c.req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		equal(t, name, got, c.want)
	}
}

func TestGetFlowsRefuses(t *testing.T) {
	_, conn := serve(t, filledRing(16, 10))
	for name, req := range map[string]*observerpb.GetFlowsRequest{
		"first and follow": {First: true, Follow: true},
		"bad filter":       {Whitelist: []*flowpb.FlowFilter{{SourceIp: []string{"x"}}}},
		"unknown filter":   {Blacklist: []*flowpb.FlowFilter{{SourceFqdn: []string{"x"}}}},
		"bad mask":         {FieldMask: &fieldmaskpb.FieldMask{Paths: []string{"sauce.id"}}},
		"bad time":         {Since: &timestamppb.Timestamp{Nanos: -1}},
	} {
		got, err := getFlows(t, conn, req)
		if status.Code(err) != codes.InvalidArgument || len(got) > 0 {
			t.Errorf("%s: got %v and %v", name, got, err)
		}
	}
}

func TestFieldMask(t *testing.T) {
	ring := NewRing(16)
	(&Sink{Builder: &Builder{Directory: fakeDirectory{}, Node: "n1"}, Ring: ring}).Record(deniedRequest())
	_, conn := serve(t, ring)
	stream, err := observerpb.NewObserverClient(conn).GetFlows(t.Context(), &observerpb.GetFlowsRequest{
		FieldMask: &fieldmaskpb.FieldMask{Paths: []string{
			"verdict", "source.pod_name", "source.namespace", "l7.http.method", "l7.dns.query", "IP", "source_service.name", "ethernet",
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	res, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	want := &flowpb.Flow{
		Verdict: flowpb.Verdict_DROPPED,
		Source:  &flowpb.Endpoint{Namespace: "default", PodName: "tiefighter"},
		L7:      &flowpb.Layer7{Record: &flowpb.Layer7_Http{Http: &flowpb.HTTP{Method: "PUT"}}},
		IP:      &flowpb.IP{Source: "10.0.0.1", Destination: "10.0.0.2", IpVersion: flowpb.IPVersion_IPv4},
	}
	if !proto.Equal(res.GetFlow(), want) || res.GetNodeName() != "n1" {
		t.Errorf("got %v, want %v", res, want)
	}
	found, _ := ring.Last(1, isFlow)
	if found[0].Flow().GetSource().GetIdentity() != 1234 {
		t.Error("the flow in the ring was changed")
	}
}

func TestServerOfItself(t *testing.T) {
	ring := filledRing(16, 20)
	ring.Write(&flowpb.Flow{Time: timestamppb.Now(), Source: &flowpb.Endpoint{Namespace: "default"}})
	_, conn := serve(t, ring)
	client, ctx := observerpb.NewObserverClient(conn), t.Context()
	st, err := client.ServerStatus(ctx, &observerpb.ServerStatusRequest{})
	if err != nil || st.GetNumFlows() != 16 || st.GetMaxFlows() != 16 || st.GetSeenFlows() != 21 ||
		st.GetVersion() != "headgate 1.0" || st.GetUptimeNs() == 0 || st.GetFlowsRate() <= 0 {
		t.Errorf("status is %v, %v", st, err)
	}
	nodes, err := client.GetNodes(ctx, &observerpb.GetNodesRequest{})
	if err != nil || len(nodes.GetNodes()) != 1 || nodes.GetNodes()[0].GetName() != "n1" {
		t.Errorf("nodes are %v, %v", nodes, err)
	}
	ns, err := client.GetNamespaces(ctx, &observerpb.GetNamespacesRequest{})
	if err != nil || len(ns.GetNamespaces()) != 1 || ns.GetNamespaces()[0].GetNamespace() != "default" {
		t.Errorf("namespaces are %v, %v", ns, err)
	}
	for _, service := range []string{"", HealthService} {
		h, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service})
		if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("health of %q is %v, %v", service, h, err)
		}
	}
	events, err := client.GetAgentEvents(ctx, &observerpb.GetAgentEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := events.Recv(); status.Code(err) != codes.Unimplemented {
		t.Errorf("agent events: %v", err)
	}
}

func TestPeers(t *testing.T) {
	_, conn := serve(t, NewRing(1))
	stream, err := peerpb.NewPeerClient(conn).Notify(t.Context(), &peerpb.NotifyRequest{})
	if err != nil {
		t.Fatal(err)
	}
	peer, err := stream.Recv()
	if err != nil || peer.GetName() != "n1" || peer.GetAddress() != "192.0.2.1:4245" ||
		peer.GetType() != peerpb.ChangeNotificationType_PEER_ADDED {
		t.Errorf("got %v, %v", peer, err)
	}
}

// The mask that the hubble CLI sends for its compact output.
func TestMaskOfHubble(t *testing.T) {
	m, err := newMask(&fieldmaskpb.FieldMask{Paths: []string{
		"time", "verdict", "ethernet", "IP", "l4", "source.identity", "source.namespace", "source.pod_name",
		"destination.identity", "destination.namespace", "destination.pod_name", "Type", "node_name", "l7", "event_type",
		"source_service", "destination_service", "is_reply", "Summary", "ip_trace_id", "traffic_direction",
		"policy_match_type", "ingress_allowed_by", "ingress_denied_by", "egress_allowed_by", "egress_denied_by",
	}})
	if err != nil {
		t.Fatal(err)
	}
	f := m.apply((&Builder{Directory: fakeDirectory{}, Node: "n1"}).Build(deniedRequest()))
	if f.GetSummary() == "" || f.GetSource().GetPodName() != "tiefighter" || f.GetSource().GetLabels() != nil || f.GetExtensions() != nil { //nolint:staticcheck // tested
		t.Errorf("got %v", f)
	}
}
