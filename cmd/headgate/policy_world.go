package main

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

// worldSource says where policies and endpoints come from: from files, or else
// from the running agent.
type worldSource struct {
	policies []string
	world    string
}

func (s *worldSource) addTo(c *cobra.Command) {
	addPolicyFiles(c, &s.policies)
	s.addWorld(c, "cases")
	c.Flags().StringVar(&s.world, "world", "", "the same as --cases")
	mustRegister(c.MarkFlagFilename("world", "yaml", "yml", "json"))
}

func (s *worldSource) addWorld(c *cobra.Command, name string) {
	c.Flags().StringVar(&s.world, name, "", "file that describes endpoints, nodes, services and names, as for 'headgate policy verdict'")
	mustRegister(c.MarkFlagFilename(name, "yaml", "yml", "json"))
}

// read reads the world and the policies. Endpoints come from the file if one is
// named, else from the agent if the policies do.
func (s *worldSource) read(c *cobra.Command) (*verdict.World, []policy.Policy, error) {
	var world verdict.World
	if s.world != "" {
		file, err := readCases(c, s.world)
		if err != nil {
			return nil, nil, err
		}
		world = file.World
	}
	if len(s.policies) > 0 {
		policies, err := decodeFiles(c, s.policies)
		return &world, policies, err
	}
	list, err := listPolicies(c, true)
	if err != nil {
		return nil, nil, err
	}
	policies, err := decodeListed(c, list)
	if err == nil && s.world == "" {
		err = askWorld(c, &world)
	}
	return &world, policies, err
}

// decodeListed reads the policies of an agent again from what they were written
// in.
func decodeListed(c *cobra.Command, list []*agentv1.Policy) ([]policy.Policy, error) {
	var files []*agentv1.PolicyFile
	for _, p := range list {
		files = append(files, &agentv1.PolicyFile{Name: p.GetOrigin(), Data: p.GetSource()})
	}
	policies, err := decodePolicies(c, files)
	if err != nil {
		return nil, fmt.Errorf("read the agent's policies: %w; compare versions with 'headgate version'", err)
	}
	if len(policies) != len(list) {
		return nil, fmt.Errorf("the agent's %d policies are read as %d; compare versions with 'headgate version'", len(list), len(policies))
	}
	for i, p := range list {
		policies[i].Origin = p.GetOrigin()
	}
	return policies, nil
}

// askWorld asks the agent for its endpoints and services, and for the names of
// addresses.
func askWorld(c *cobra.Command, world *verdict.World) error {
	return call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
		endpoints, err := agent.ListEndpoints(ctx, &agentv1.ListEndpointsRequest{})
		if err != nil {
			return err
		}
		for _, e := range endpoints.GetEndpoints() {
			world.Endpoints = append(world.Endpoints, endpointOf(e))
		}
		services, err := agent.ListServices(ctx, &agentv1.ListServicesRequest{})
		if err != nil {
			return err
		}
		for _, s := range services.GetServices() {
			world.Services = append(world.Services, serviceOf(s))
		}
		names, err := agent.ListNames(ctx, &agentv1.ListNamesRequest{})
		for _, n := range names.GetNames() {
			world.Names = append(world.Names, verdict.Name{Name: n.GetName(), IPs: []string{n.GetAddress()}})
		}
		switch status.Code(err) {
		case codes.Unavailable, codes.Unimplemented: // as if no name had been asked for
			return nil
		}
		return err
	})
}

// endpointOf describes an endpoint of the agent. What belongs to its namespace
// and cluster is among the labels of its identity.
func endpointOf(e *agentv1.Endpoint) verdict.Endpoint {
	w := verdict.Endpoint{
		Name: e.GetName(), Namespace: e.GetNamespace(), Labels: e.GetLabels(), IPs: e.GetIps(), ServiceAccount: e.GetServiceAccount(),
		NamespaceLabels: map[string]string{}, NamedPorts: map[string]string{},
	}
	for _, text := range e.GetIdentityLabels() {
		key, value, _ := strings.Cut(strings.TrimPrefix(text, policy.SourceK8s+":"), "=")
		if key == policy.KeyCluster {
			w.Cluster = value
		}
		if key, ok := strings.CutPrefix(key, policy.PrefixOfNamespaceLabels); ok {
			w.NamespaceLabels[key] = value
		}
	}
	for _, text := range e.GetPorts() {
		name, port, _ := strings.Cut(text, "=")
		w.NamedPorts[name] = port
	}
	return w
}

// serviceOf describes a service of the agent: without a selector by the addresses
// that are behind it.
func serviceOf(s *agentv1.Service) verdict.Service {
	out := verdict.Service{Name: s.GetName(), Namespace: s.GetNamespace(), Labels: s.GetLabels(), Selector: s.GetSelector()}
	for _, f := range s.GetFronts() {
		for _, b := range f.GetBackends() {
			at, err := netip.ParseAddrPort(b)
			if ip := at.Addr().String(); err == nil && len(out.Selector) == 0 && !slices.Contains(out.IPs, ip) {
				out.IPs = append(out.IPs, ip)
			}
		}
	}
	return out
}

// place puts a label of an endpoint that is described by labels alone where it
// belongs.
func place(e *verdict.Endpoint, key, value string) {
	switch key {
	case policy.KeyNamespace:
		e.Namespace = value
	case policy.KeyServiceAccount:
		e.ServiceAccount = value
	case policy.KeyCluster:
		e.Cluster = value
	default:
		if namespaced, ok := strings.CutPrefix(key, policy.PrefixOfNamespaceLabels); ok {
			e.NamespaceLabels[namespaced] = value
			return
		}
		e.Labels[key] = value
	}
}
