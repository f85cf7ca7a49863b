package main

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func landing() *agentv1.Service {
	return &agentv1.Service{
		Name: "deathstar", Namespace: "default", Labels: map[string]string{"tier": "front"},
		Addresses: []string{"10.96.0.10:80/TCP", "[fd00:96::10]:80/TCP"}, Selector: map[string]string{"class": "deathstar"},
		TargetPort: "http", NodePort: 30080, AffinityNs: int64(time.Minute),
		Fronts: []*agentv1.ServiceFront{
			{Address: "10.96.0.10:80/TCP", Backends: []string{"10.210.0.7:8080"}},
			{Address: "127.0.0.1:30080/TCP", Backends: []string{"10.210.0.7:8080"}, HostOnly: true},
			{Address: "[fd00:96::10]:80/TCP"},
		},
	}
}

func (f *fakeAgent) AddService(_ context.Context, req *agentv1.Service) (*agentv1.Service, error) {
	return landing(), f.asked(req)
}

// scattered is a service without an address.
func scattered() *agentv1.Service {
	return &agentv1.Service{
		Name: "rebels", Namespace: "default", Headless: true, Selector: map[string]string{"org": "alliance"},
		Ports: []string{"http=8080/TCP"}, Members: []string{"10.210.0.8", "10.210.0.9"},
	}
}

func (f *fakeAgent) GetService(_ context.Context, req *agentv1.ServiceName) (*agentv1.Service, error) {
	if req.GetName() == "rebels" {
		return scattered(), f.asked(req)
	}
	if req.GetName() != "deathstar" {
		return nil, status.Errorf(codes.NotFound, "service %s/%s does not exist", req.GetNamespace(), req.GetName())
	}
	return landing(), f.asked(req)
}

func (f *fakeAgent) ListServices(_ context.Context, req *agentv1.ListServicesRequest) (*agentv1.ListServicesResponse, error) {
	other := &agentv1.Service{Name: "db", Namespace: "shop", Addresses: []string{"10.96.0.11:5432/TCP"}, Backends: []string{"shop/db1"}}
	return &agentv1.ListServicesResponse{Services: []*agentv1.Service{other, scattered(), landing()}}, f.asked(req)
}

func (f *fakeAgent) DeleteService(_ context.Context, req *agentv1.ServiceName) (*agentv1.DeleteServiceResponse, error) {
	return &agentv1.DeleteServiceResponse{}, f.asked(req)
}

func (f *fakeAgent) AddBackends(_ context.Context, req *agentv1.BackendsRequest) (*agentv1.Service, error) {
	return landing(), f.asked(req)
}

func (f *fakeAgent) RemoveBackends(_ context.Context, req *agentv1.BackendsRequest) (*agentv1.RemoveBackendsResponse, error) {
	return &agentv1.RemoveBackendsResponse{Service: landing(), Cut: 3}, f.asked(req)
}
