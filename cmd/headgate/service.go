package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

const hintServices = "'headgate service list' and 'headgate endpoint list' show what there is"

func newServiceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "service",
		Aliases: []string{"services", "svc"},
		Short:   "Give workloads one address for many: add, list and delete services",
		Long: `A service is an address of its own in front of backends. Who connects to it gets
one of them, and keeps it for that connection. Policy judges the backend, as if it
had been asked for by itself. Names are NAMESPACE/NAME, or NAME for one in the
namespace "default".`,
	}
	c.AddCommand(newServiceAdd(), newServiceList(), newServiceGet(), newServiceDelete(), newServiceBackend())
	return c
}

func newServiceAdd() *cobra.Command {
	var req agentv1.Service
	var labels, selector []string
	var nodePort uint16
	var affinity uint32
	c := &cobra.Command{
		Use:   "add NAME --vip IP:PORT/PROTOCOL | --headless",
		Short: "Put an address, or a name alone, in front of backends",
		Long: `Make an address that clients reach backends by: workloads, this machine's own
processes, and other machines that route it here. Backends are addresses, endpoints by
name, or with --selector the endpoints that have these labels; those of the address's
IP version are behind it. The command returns when new connections meet the service.

A node port is open on every address of this machine besides. A client's affinity
is to the backend it had last, for so many seconds.

A headless service has no address: with --dns on its name stands for all that is behind
it, and each of those has a name of its own below, ENDPOINT.NAME.NAMESPACE.svc. With
--port, SRV records (_PORT._tcp.NAME.NAMESPACE.svc) tell where a port is found, of a
service with an address too.

A service with a selector stands in toServices rules for its endpoints, and one without
for its backends' addresses as CIDRs, which name no endpoint.`,
		Example: `  headgate service add deathstar --vip 10.96.0.10:80/TCP --vip [fd00:96::10]:80/TCP --selector class=deathstar
  headgate service add shop/db --vip 10.96.0.11:5432/TCP --backend db1 --backend db2:sql --affinity 600
  headgate service add brokers --headless --selector app=kafka --port kafka=9092/TCP
  headgate service add api --vip 10.96.0.12:443/TCP --backend 192.0.2.10:8443 --node-port 30443`,
		Args:              wantArgs("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			if err := fillService(c, &req, args[0], labels, selector); err != nil {
				return err
			}
			req.NodePort, req.AffinityNs = uint32(nodePort), (time.Duration(affinity) * time.Second).Nanoseconds()
			return askService(c, waitTimeout, func(ctx context.Context, agent *agentConn) (*agentv1.Service, error) {
				return agent.AddService(ctx, &req)
			})
		},
	}
	f := c.Flags()
	f.StringVarP(&req.Namespace, "namespace", "n", defaultNamespace, "namespace of the service")
	f.StringArrayVar(&req.Addresses, "vip", nil, "address, IP:PORT/TCP or IP:PORT/UDP (repeatable, required unless --headless)")
	f.BoolVar(&req.Headless, "headless", false, "no address: the name stands for what is behind it")
	f.StringArrayVar(&req.Ports, "port", nil, "name of a port, NAME=PORT/PROTOCOL (repeatable)")
	f.StringArrayVar(&req.Backends, "backend", nil, "IP:PORT, or ENDPOINT with :PORT or :NAME of a port (repeatable)")
	f.StringArrayVar(&selector, "selector", nil, "label KEY=VALUE of the endpoints behind it (repeatable)")
	f.StringVar(&req.TargetPort, "target-port", "", "port of backends that name none, number or name (default: that of the address)")
	f.Uint16Var(&nodePort, "node-port", 0, "port of this machine's addresses that leads there too")
	f.Uint32Var(&affinity, "affinity", 0, "seconds for which a client stays with its backend")
	f.StringArrayVarP(&labels, "label", "l", nil, "label KEY=VALUE of the service itself (repeatable)")
	mustRegister(c.RegisterFlagCompletionFunc("backend", completeFlag(endpointNames)))
	addSocket(c)
	addOutput(c)
	return c
}

func fillService(c *cobra.Command, req *agentv1.Service, name string, labels, selector []string) error {
	var err error
	if req.Namespace, req.Name, err = namespaced(c, name, req.Namespace); err != nil {
		return err
	}
	if len(req.Addresses) == 0 && !req.Headless {
		return usagef("--vip is missing: give the service an address, such as --vip 10.96.0.10:80/TCP, or make it --headless")
	}
	if len(req.Addresses) > 0 && req.Headless {
		return usagef("--vip and --headless exclude each other: a headless service has no address of its own")
	}
	for _, a := range req.Addresses {
		if err := checkServiceAddress(a); err != nil {
			return err
		}
	}
	if len(req.Backends) > 0 && len(selector) > 0 {
		return usagef("--backend and --selector exclude each other: name the endpoints, or let their labels choose them")
	}
	if req.Labels, err = parseLabels(labels); err == nil {
		req.Selector, err = parseLabels(selector)
	}
	return err
}

func newServiceList() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the services of this node",
		Example: `  headgate service list
  headgate service list -o json`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			var list []*agentv1.Service
			err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
				resp, err := agent.ListServices(ctx, &agentv1.ListServicesRequest{})
				list = resp.GetServices()
				return err
			})
			if err != nil {
				return err
			}
			return showServices(c, list)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newServiceGet() *cobra.Command {
	c := &cobra.Command{
		Use:               "get NAME",
		Short:             "Show one service and what is behind it now",
		Example:           `  headgate service get shop/db`,
		Args:              wantArgs("NAME"),
		ValidArgsFunction: completeFirst(serviceNames),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := serviceName(args[0])
			if err != nil {
				return err
			}
			return askService(c, callTimeout, func(ctx context.Context, agent *agentConn) (*agentv1.Service, error) {
				return agent.GetService(ctx, name)
			})
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newServiceDelete() *cobra.Command {
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Take services away",
		Long: `Take the services' addresses away, and cut the connections that the gate translates
for them. Backends are left as they are.`,
		Example:           `  headgate service delete shop/db`,
		Args:              wantArgs("NAME..."),
		ValidArgsFunction: completeAll(serviceNames),
		RunE: func(c *cobra.Command, args []string) error {
			for _, arg := range args {
				name, err := serviceName(arg)
				if err != nil {
					return err
				}
				err = call(c, waitTimeout, hintServices, func(ctx context.Context, agent *agentConn) error {
					_, err := agent.DeleteService(ctx, name)
					return err
				})
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	addSocket(c)
	return c
}

// askService asks the agent something about a service, and shows what becomes of it.
func askService(c *cobra.Command, timeout time.Duration, ask func(context.Context, *agentConn) (*agentv1.Service, error)) error {
	var got *agentv1.Service
	err := call(c, timeout, hintServices, func(ctx context.Context, agent *agentConn) (err error) {
		got, err = ask(ctx, agent)
		return err
	})
	if err != nil {
		return err
	}
	return showService(c, got)
}

func serviceName(arg string) (*agentv1.ServiceName, error) {
	namespace, name, err := splitName(arg)
	if err != nil {
		return nil, err
	}
	return &agentv1.ServiceName{Namespace: namespace, Name: name}, nil
}
