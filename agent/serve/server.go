// Package serve is the agent's local API: it turns calls on the unix socket into
// changes of what is wanted, and answers when they are in force.
package serve

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/agent/service"
	agentv1 "github.com/headgate/headgate/api/agent/v1"
	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/redirect"
)

// Server implements agentv1.AgentServer.
type Server struct {
	agentv1.UnimplementedAgentServer

	Engine    *reconcile.Engine
	Connector *endpoint.Connector
	Maps      Maps
	// Watch calls f with each event of the gate, until f fails or done is closed.
	Watch func(done <-chan struct{}, f func(e *bpf.Event, missed uint64) error) error
	// Learnt says what is known of names; nil: nothing is learnt here.
	Learnt func(ctx context.Context, limit uint32) (*proxyv1.ListNamesResponse, error)
	// Report makes the answer to Status.
	Report func() *agentv1.StatusResponse
	// Discovery is what is handed out by xDS; nil: nothing is.
	Discovery func(typeURL string) (redirect.Discovery, error)
}

// defaultTimeout is how long a change may take when the caller does not say.
const defaultTimeout = 30 * time.Second

// Status implements agentv1.AgentServer.
func (s *Server) Status(context.Context, *agentv1.StatusRequest) (*agentv1.StatusResponse, error) {
	return s.Report(), nil
}

// AddEndpoint implements agentv1.AgentServer.
func (s *Server) AddEndpoint(ctx context.Context, r *agentv1.AddEndpointRequest) (*agentv1.Endpoint, error) {
	e, err := s.Connector.Add(ctx, endpoint.Spec{
		Name: r.Name, Namespace: r.Namespace, Netns: r.Netns, ServiceAccount: r.ServiceAccount, Interface: r.Interface,
		Labels: r.Labels, IPs: r.Ips, Ports: r.Ports, ResolvConf: r.ResolvConf,
	})
	if err != nil {
		return nil, grpcError(err)
	}
	return s.describe(e), nil
}

// DeleteEndpoint implements agentv1.AgentServer.
func (s *Server) DeleteEndpoint(ctx context.Context, r *agentv1.EndpointName) (*agentv1.DeleteEndpointResponse, error) {
	if err := s.Connector.Delete(ctx, key(r.Namespace, r.Name)); err != nil {
		return nil, grpcError(err)
	}
	return &agentv1.DeleteEndpointResponse{}, nil
}

// GetEndpoint implements agentv1.AgentServer.
func (s *Server) GetEndpoint(_ context.Context, r *agentv1.EndpointName) (*agentv1.Endpoint, error) {
	e, err := s.Engine.GetEndpoint(key(r.Namespace, r.Name))
	if err != nil {
		return nil, grpcError(err)
	}
	return s.describe(e), nil
}

// ListEndpoints implements agentv1.AgentServer.
func (s *Server) ListEndpoints(context.Context, *agentv1.ListEndpointsRequest) (*agentv1.ListEndpointsResponse, error) {
	out := &agentv1.ListEndpointsResponse{}
	for _, e := range s.Engine.Endpoints() {
		out.Endpoints = append(out.Endpoints, s.describe(e))
	}
	return out, nil
}

// LabelEndpoint implements agentv1.AgentServer.
func (s *Server) LabelEndpoint(ctx context.Context, r *agentv1.LabelEndpointRequest) (*agentv1.Endpoint, error) {
	e, err := s.Engine.LabelEndpoint(ctx, key(r.Namespace, r.Name), r.Set, r.Remove)
	if err != nil {
		return nil, grpcError(err)
	}
	return s.describe(e), nil
}

// LabelNamespace implements agentv1.AgentServer.
func (s *Server) LabelNamespace(ctx context.Context, r *agentv1.LabelNamespaceRequest) (*agentv1.LabelNamespaceResponse, error) {
	if err := policy.ValidateNamespace(r.Name); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	labels, err := s.Engine.LabelNamespace(ctx, r.Name, r.Set, r.Remove)
	if err != nil {
		return nil, grpcError(err)
	}
	return &agentv1.LabelNamespaceResponse{Labels: labels}, nil
}

// ApplyPolicies implements agentv1.AgentServer.
func (s *Server) ApplyPolicies(ctx context.Context, r *agentv1.ApplyPoliciesRequest) (*agentv1.ApplyPoliciesResponse, error) {
	policies, warnings, err := decodeFiles(r.Files)
	if err == nil {
		err = enforceable(policies)
	}
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(r.TimeoutNs))
	defer cancel()
	revision, changes, err := s.Engine.ApplyPolicies(ctx, policies)
	out := &agentv1.ApplyPoliciesResponse{Revision: revision, Changes: protoChanges(changes), Warnings: append(warnings, s.unlearnt(policies)...)}
	out.Enforced, err = s.settle(ctx, revision, r.Wait, err)
	if err != nil {
		return nil, grpcError(err)
	}
	return out, nil
}

// DeletePolicies implements agentv1.AgentServer.
func (s *Server) DeletePolicies(ctx context.Context, r *agentv1.DeletePoliciesRequest) (*agentv1.DeletePoliciesResponse, error) {
	policies, _, err := decodeFiles(r.Files)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	var keys []string
	for i := range policies {
		keys = append(keys, policies[i].Key())
	}
	for _, k := range r.Keys {
		p := policy.Policy{Kind: k.Kind, Namespace: k.Namespace, Name: k.Name}
		keys = append(keys, p.Key())
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(r.TimeoutNs))
	defer cancel()
	if err := s.Engine.DeletableByHand(keys); err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	revision, changes, err := s.Engine.DeletePolicies(ctx, keys)
	out := &agentv1.DeletePoliciesResponse{Revision: revision, Changes: protoChanges(changes)}
	out.Enforced, err = s.settle(ctx, revision, r.Wait, err)
	if err != nil {
		return nil, grpcError(err)
	}
	return out, nil
}

// settle waits until a revision is in force. A proxy that is down is no failure of
// the change: its ports are closed, and it is in force once it is back.
func (s *Server) settle(ctx context.Context, revision uint64, wait bool, err error) (bool, error) {
	if err != nil && !errors.Is(err, redirect.ErrNotReady) && !errors.Is(err, context.DeadlineExceeded) {
		return false, err
	}
	for {
		if _, enforced := s.Engine.Revisions(); enforced >= revision {
			return true, nil
		}
		if !wait {
			return false, nil
		}
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("revision %d is not in force in time; redirected ports are closed until it is; see 'headgate status'", revision)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// ListPolicies implements agentv1.AgentServer.
func (s *Server) ListPolicies(_ context.Context, r *agentv1.ListPoliciesRequest) (*agentv1.ListPoliciesResponse, error) {
	policies, selected := s.Engine.Policies()
	out := &agentv1.ListPoliciesResponse{}
	out.Revision, out.Enforced = s.Engine.Revisions()
	for _, p := range policies {
		v := &agentv1.Policy{
			Key:  &agentv1.PolicyKey{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name},
			Mode: p.Mode.String(), Revision: p.Revision, Rules: uint32(len(p.Rules)), Origin: p.Origin, Endpoints: selected[p.Key()],
		}
		if r.Source {
			v.Source = p.Source
		}
		out.Policies = append(out.Policies, v)
	}
	return out, nil
}

// ListIdentities implements agentv1.AgentServer.
func (s *Server) ListIdentities(context.Context, *agentv1.ListIdentitiesRequest) (*agentv1.ListIdentitiesResponse, error) {
	out := &agentv1.ListIdentitiesResponse{}
	for _, info := range s.Engine.IdentityList() {
		v := &agentv1.Identity{Id: uint32(info.ID), Labels: info.Labels.Strings(), Endpoints: uint32(info.Endpoints)}
		if info.Prefix.IsValid() {
			v.Prefix = info.Prefix.String()
		}
		out.Identities = append(out.Identities, v)
	}
	return out, nil
}

// describe says all that is known of an endpoint.
func (s *Server) describe(e *endpoint.Endpoint) *agentv1.Endpoint {
	out := &agentv1.Endpoint{
		Name: e.Name, Namespace: e.Namespace, Id: uint32(e.ID), Identity: uint32(e.Identity), Labels: maps.Clone(e.Labels),
		Interface: e.Interface, PolicyRevision: e.Revision, State: string(e.State), Detail: e.Detail,
		Ports: endpoint.FormatPorts(e.Ports), Netns: e.Netns, Mac: e.MAC, ServiceAccount: e.ServiceAccount,
		IdentityLabels: s.Engine.Identity(e.Identity),
	}
	for _, ip := range e.IPs {
		out.Ips = append(out.Ips, ip.String())
	}
	out.IngressEnforced, out.EgressEnforced = s.Engine.Enforced(e)
	return out
}

// decodeFiles reads every document of every file, or none.
func decodeFiles(files []*agentv1.PolicyFile) ([]policy.Policy, []string, error) {
	var out []policy.Policy
	var warnings []string
	var errs error
	for _, f := range files {
		ps, err := decode.Decode(f.Name, f.Data)
		errs = errors.Join(errs, err)
		for _, p := range ps {
			warnings = append(warnings, p.Warnings...)
		}
		out = append(out, ps...)
	}
	return out, warnings, errs
}

// unlearnt warns of what was applied and picks by names that nobody learns.
func (s *Server) unlearnt(applied []policy.Policy) []string {
	all, _ := s.Engine.Policies()
	plain := make([]*policy.Policy, len(all))
	for i, p := range all {
		plain[i] = &p.Policy
	}
	var out []string
	for _, warning := range policy.Unlearnt(plain) {
		if slices.ContainsFunc(applied, func(p policy.Policy) bool { return strings.HasPrefix(warning, p.Kind+" "+p.FullName()+": ") }) {
			out = append(out, warning)
		}
	}
	return out
}

// enforceable refuses policies that this node could not carry out as they stand.
func enforceable(policies []policy.Policy) error {
	var errs []error
	for i := range policies {
		for _, err := range policy.Unenforceable(&policies[i]) {
			errs = append(errs, fmt.Errorf("%s: %w", policies[i].Origin, err))
		}
	}
	return errors.Join(errs...)
}

func protoChanges(changes []reconcile.Change) []*agentv1.PolicyChange {
	var out []*agentv1.PolicyChange
	for _, c := range changes {
		out = append(out, &agentv1.PolicyChange{Kind: c.Kind, Name: c.Name, Change: c.What})
	}
	return out
}

func timeout(ns int64) time.Duration {
	if ns <= 0 {
		return defaultTimeout
	}
	return time.Duration(ns)
}

func key(namespace, name string) string {
	if namespace == "" {
		namespace = policy.DefaultNamespace
	}
	return namespace + "/" + name
}

// grpcError gives an error the code by which clients tell what to do.
func grpcError(err error) error {
	code := codes.Internal
	switch {
	case errors.Is(err, reconcile.ErrNotFound):
		code = codes.NotFound
	case errors.Is(err, reconcile.ErrExists):
		code = codes.AlreadyExists
	case errors.Is(err, endpoint.ErrInvalid), errors.Is(err, service.ErrInvalid), errors.Is(err, reconcile.ErrSetting):
		code = codes.InvalidArgument
	case errors.Is(err, reconcile.ErrRefused):
		code = codes.FailedPrecondition
	case errors.Is(err, endpoint.ErrNoAddress):
		code = codes.ResourceExhausted
	case errors.Is(err, redirect.ErrNotReady):
		code = codes.Unavailable
	case errors.Is(err, context.DeadlineExceeded):
		code = codes.DeadlineExceeded
	}
	return status.Error(code, err.Error())
}
