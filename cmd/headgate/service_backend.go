package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newServiceBackend() *cobra.Command {
	c := &cobra.Command{
		Use:     "backend",
		Aliases: []string{"backends"},
		Short:   "Add backends to a service, and remove them",
	}
	c.AddCommand(newBackendAdd(), newBackendRemove())
	return c
}

func newBackendAdd() *cobra.Command {
	c := &cobra.Command{
		Use:               "add SERVICE BACKEND...",
		Short:             "Let new connections go to more backends",
		Example:           `  headgate service backend add shop/db db3 192.0.2.20:5432`,
		Args:              wantArgs("SERVICE", "BACKEND..."),
		ValidArgsFunction: completeThen(serviceNames, endpointNames),
		RunE: func(c *cobra.Command, args []string) error {
			req, err := backendsRequest(args)
			if err != nil {
				return err
			}
			return askService(c, waitTimeout, func(ctx context.Context, agent *agentConn) (*agentv1.Service, error) {
				return agent.AddBackends(ctx, req)
			})
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newBackendRemove() *cobra.Command {
	var now bool
	c := &cobra.Command{
		Use:     "remove SERVICE BACKEND...",
		Aliases: []string{"rm"},
		Short:   "Keep new connections away from backends",
		Long: `Remove backends from a service. New connections avoid them from then on; those
that are open go on until they end, or with --now are cut.

--now resets the TCP sockets of this node that have the backend by this service, and
drops what comes from others. Connections that asked for the backend itself stay.`,
		Example: `  headgate service backend remove shop/db db1
  headgate service backend remove shop/db db1 --now`,
		Args:              wantArgs("SERVICE", "BACKEND..."),
		ValidArgsFunction: completeThen(serviceNames, endpointNames),
		RunE: func(c *cobra.Command, args []string) error {
			req, err := backendsRequest(args)
			if err != nil {
				return err
			}
			req.Now = now
			cut := uint32(0)
			err = askService(c, waitTimeout, func(ctx context.Context, agent *agentConn) (*agentv1.Service, error) {
				resp, err := agent.RemoveBackends(ctx, req)
				cut = resp.GetCut()
				return resp.GetService(), err
			})
			if err == nil && now {
				fmt.Fprintf(c.ErrOrStderr(), "cut %d connections\n", cut)
			}
			return err
		},
	}
	c.Flags().BoolVar(&now, "now", false, "cut the connections that they have")
	addSocket(c)
	addOutput(c)
	return c
}

func backendsRequest(args []string) (*agentv1.BackendsRequest, error) {
	namespace, name, err := splitName(args[0])
	if err != nil {
		return nil, err
	}
	return &agentv1.BackendsRequest{Namespace: namespace, Name: name, Backends: args[1:]}, nil
}
