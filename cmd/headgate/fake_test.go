package main

import (
	"bytes"
	"context"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	observerpb "github.com/cilium/cilium/api/v1/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// fakeAgent answers like an agent with two endpoints and one policy, and
// remembers what it was asked.
type fakeAgent struct {
	agentv1.UnimplementedAgentServer
	observerpb.UnimplementedObserverServer

	mu       sync.Mutex
	requests []proto.Message
	status   func() *agentv1.StatusResponse
	fail     error // what every request but Status is answered with
	unforced bool  // policies do not come into force

	policies  []*agentv1.Policy   // instead of the two that it has
	endpoints []*agentv1.Endpoint // likewise
}

// started is when the fake agent did.
func started() time.Time { return time.Now().Add(-90 * time.Second) }

func (f *fakeAgent) asked(req proto.Message) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requests = append(f.requests, req)
	return f.fail
}

// last is the newest request.
func (f *fakeAgent) last(t *testing.T) proto.Message {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 {
		t.Fatal("the agent was asked nothing")
	}
	return f.requests[len(f.requests)-1]
}

func deathstar() *agentv1.Endpoint {
	return &agentv1.Endpoint{
		Name: "deathstar", Namespace: "default", Id: 7, Identity: 300,
		Labels: map[string]string{"org": "empire", "class": "deathstar"},
		Ips:    []string{"10.210.0.7", "fd00:210::7"}, Interface: "hg7", PolicyRevision: 4, State: "ready",
		Ports: []string{"http=80/TCP"}, Netns: "/run/netns/deathstar", Mac: "02:00:00:00:00:07",
		IdentityLabels: []string{"k8s:class=deathstar", "k8s:org=empire"}, IngressEnforced: true,
	}
}

// xwing has a label that would recolour a terminal.
func xwing() *agentv1.Endpoint {
	return &agentv1.Endpoint{
		Name: "xwing", Namespace: "rebels", Id: 12, Identity: 301, State: "failed", Detail: "no such namespace",
		Labels: map[string]string{"org": "alliance\x1b[31m\u202e"},
	}
}

func (f *fakeAgent) Status(context.Context, *agentv1.StatusRequest) (*agentv1.StatusResponse, error) {
	return f.status(), nil
}

func (f *fakeAgent) AddEndpoint(_ context.Context, req *agentv1.AddEndpointRequest) (*agentv1.Endpoint, error) {
	return deathstar(), f.asked(req)
}

func (f *fakeAgent) GetEndpoint(_ context.Context, req *agentv1.EndpointName) (*agentv1.Endpoint, error) {
	if req.GetName() != "deathstar" {
		return nil, status.Errorf(codes.NotFound, "there is no endpoint %s/%s", req.GetNamespace(), req.GetName())
	}
	return deathstar(), f.asked(req)
}

func (f *fakeAgent) DeleteEndpoint(_ context.Context, req *agentv1.EndpointName) (*agentv1.DeleteEndpointResponse, error) {
	return &agentv1.DeleteEndpointResponse{}, f.asked(req)
}

func (f *fakeAgent) ListEndpoints(_ context.Context, req *agentv1.ListEndpointsRequest) (*agentv1.ListEndpointsResponse, error) {
	list := []*agentv1.Endpoint{xwing(), deathstar()}
	if f.endpoints != nil {
		list = f.endpoints
	}
	return &agentv1.ListEndpointsResponse{Endpoints: list}, f.asked(req)
}

func (f *fakeAgent) LabelEndpoint(_ context.Context, req *agentv1.LabelEndpointRequest) (*agentv1.Endpoint, error) {
	return deathstar(), f.asked(req)
}

func (f *fakeAgent) LabelNamespace(_ context.Context, req *agentv1.LabelNamespaceRequest) (*agentv1.LabelNamespaceResponse, error) {
	return &agentv1.LabelNamespaceResponse{Labels: map[string]string{"team": "siege", "env": "prod"}}, f.asked(req)
}

func (f *fakeAgent) ApplyPolicies(_ context.Context, req *agentv1.ApplyPoliciesRequest) (*agentv1.ApplyPoliciesResponse, error) {
	return &agentv1.ApplyPoliciesResponse{
		Revision: 5, Enforced: req.GetWait() && !f.unforced,
		Changes: []*agentv1.PolicyChange{
			{Kind: "CiliumNetworkPolicy", Name: "default/rule1", Change: "configured"},
			{Kind: "CiliumNetworkPolicy", Name: "default/rule2", Change: "created"},
		},
		Warnings: []string{"rule2.yaml: document 1: spec.egress: selects nothing"},
	}, f.asked(req)
}

func (f *fakeAgent) DeletePolicies(_ context.Context, req *agentv1.DeletePoliciesRequest) (*agentv1.DeletePoliciesResponse, error) {
	return &agentv1.DeletePoliciesResponse{
		Revision: 6, Enforced: req.GetWait(),
		Changes: []*agentv1.PolicyChange{{Kind: "CiliumNetworkPolicy", Name: "default/rule1", Change: "deleted"}},
	}, f.asked(req)
}

func (f *fakeAgent) ListPolicies(_ context.Context, req *agentv1.ListPoliciesRequest) (*agentv1.ListPoliciesResponse, error) {
	list := []*agentv1.Policy{
		{
			Key: &agentv1.PolicyKey{Kind: "CiliumNetworkPolicy", Namespace: "default", Name: "rule1"}, Mode: "enforce",
			Revision: 4, Rules: 1, Origin: "api", Endpoints: []string{"default/deathstar"},
			Source: []byte("# landing rights\nkind: CiliumNetworkPolicy\nmetadata: {name: rule1}\n"),
		},
		{
			Key: &agentv1.PolicyKey{Kind: "CiliumClusterwideNetworkPolicy", Name: "no-world"}, Mode: "enforce",
			Revision: 2, Rules: 3, Origin: "/etc/headgate/no-world.yaml: document 1",
			Source: []byte("---\nkind: CiliumClusterwideNetworkPolicy\n"),
		},
	}
	if f.policies != nil {
		list = f.policies
	}
	return &agentv1.ListPoliciesResponse{Policies: list, Revision: 4, Enforced: 4}, f.asked(req)
}

func (f *fakeAgent) ListIdentities(_ context.Context, req *agentv1.ListIdentitiesRequest) (*agentv1.ListIdentitiesResponse, error) {
	return &agentv1.ListIdentitiesResponse{Identities: []*agentv1.Identity{
		{Id: 1 << 24, Labels: []string{"cidr:192.0.2.0/24"}, Prefix: "192.0.2.0/24"},
		{Id: 2, Labels: []string{"reserved:world"}},
		{Id: 300, Labels: []string{"k8s:class=deathstar", "k8s:org=empire"}, Endpoints: 1},
	}}, f.asked(req)
}

func (f *fakeAgent) ListMap(_ context.Context, req *agentv1.ListMapRequest) (*agentv1.ListMapResponse, error) {
	return &agentv1.ListMapResponse{
		Columns: []string{"Peer Identity", "direction", "PORT/PROTO"},
		Rows:    []*agentv1.Row{{Cells: []string{"300", "ingress", "80/TCP"}}, {Cells: []string{"0", "egress", ""}}},
		Entries: 2, Capacity: 100, Numbers: []uint32{0},
	}, f.asked(req)
}

func (f *fakeAgent) GetFlows(req *observerpb.GetFlowsRequest, stream observerpb.Observer_GetFlowsServer) error {
	if err := f.asked(req); err != nil {
		return err
	}
	flow := &flowpb.Flow{
		Time: timestamppb.New(time.Unix(1730000000, 0)), Verdict: flowpb.Verdict_DROPPED, Type: flowpb.FlowType_L3_L4,
		IP:          &flowpb.IP{Source: "10.210.0.12", Destination: "10.210.0.7", IpVersion: flowpb.IPVersion_IPv4},
		Source:      &flowpb.Endpoint{Identity: 301, Namespace: "rebels", PodName: "xwing", Labels: []string{"k8s:org=alliance"}},
		Destination: &flowpb.Endpoint{Identity: 300, Namespace: "default", PodName: "deathstar"},
		IsReply:     wrapperspb.Bool(false),
	}
	return stream.Send(&observerpb.GetFlowsResponse{ResponseTypes: &observerpb.GetFlowsResponse_Flow{Flow: flow}})
}

func wellStatus() *agentv1.StatusResponse {
	return &agentv1.StatusResponse{
		Ok: true, Version: "v0.1.0", NodeName: "endor", StartedNs: started().UnixNano(),
		Parts: []*agentv1.Part{
			{Name: "datapath", Ok: true, Detail: "attached, policy revision 4"}, {Name: "proxy", Ok: true, Detail: "go ready"},
			{Name: "policy", Ok: true, Detail: "in force"}, {Name: "controllers", Ok: true},
		},
		PolicyRevision: 4, PolicyEnforced: 4, Policies: 2, Endpoints: map[string]uint32{"ready": 3}, Identities: 14, FlowsPerSecond: 2.25,
		Redirects:   []*agentv1.Redirect{{Protocol: "http", Port: 80, ProxyPort: 14001, Endpoint: "default/deathstar", Direction: "ingress"}},
		Controllers: []*agentv1.Controller{{Name: "endpoints", Ok: true, Runs: 9}, {Name: "routes", Ok: true, Runs: 4}},
		Drops: []*agentv1.Drop{
			{Reason: "Stale or unroutable IP", Direction: "egress", Packets: 1, Bytes: 60},
			{Reason: "Policy denied", Direction: "ingress", Packets: 12, Bytes: 720},
		},
		Maps:    []*agentv1.MapUsage{{Map: "policy", Entries: 8, Limit: 100}, {Map: "ct-any", Entries: 50, Limit: 100, Evicts: true}},
		Backend: &agentv1.Backend{Name: "go", State: "ready", Version: "v0.1.0", Pid: 4711, Revision: 4, Connections: 2},
	}
}

func sickStatus() *agentv1.StatusResponse {
	s := wellStatus()
	s.Ok, s.PolicyEnforced = false, 3
	s.Endpoints = map[string]uint32{"ready": 2, "regenerating": 1}
	s.Parts[1].Ok, s.Parts[2].Ok, s.Parts[2].Detail = false, false, "one is not in force"
	s.Backend.State, s.Backend.Detail = "down", "exit status 2"
	s.Controllers[1] = &agentv1.Controller{Name: "routes", Error: "add rule: permission denied", Runs: 4, Failures: 3}
	s.EventsLost = 8
	return s
}

// serve runs the fake agent and says where.
func (f *fakeAgent) serve(t *testing.T) string {
	t.Helper()
	if f.status == nil {
		f.status = wellStatus
	}
	socket := filepath.Join(t.TempDir(), "a.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	agentv1.RegisterAgentServer(server, f)
	observerpb.RegisterObserverServer(server, f)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return socket
}

// result is what a command did.
type result struct {
	out, err string
	code     int
}

// command runs headgate against an agent; with an empty socket none is named.
func command(t *testing.T, socket string, args ...string) result {
	t.Helper()
	return commandIn(t, "", socket, args...)
}

func commandIn(t *testing.T, stdin, socket string, args ...string) result {
	t.Helper()
	t.Setenv(socketEnv, socket)
	var out, diag bytes.Buffer
	code := run(t.Context(), slices.Clone(args), stdio{strings.NewReader(stdin), &out, &diag})
	return result{out.String(), diag.String(), code}
}
