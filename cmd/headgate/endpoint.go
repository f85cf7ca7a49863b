package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

const (
	hintEndpoints = "'headgate endpoint list' shows what there is"
	// addTimeout covers making the interface, loading programs and policy.
	addTimeout = time.Minute
)

func newEndpointCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "endpoint",
		Aliases: []string{"endpoints", "ep"},
		Short:   "Add, list, label and delete workloads",
		Long: `An endpoint is a workload that headgate connects and guards: a network
namespace with an interface of headgate's in it, labels that say what it is, and
an identity made of those labels. Names are NAMESPACE/NAME, or NAME for one in
the namespace "default".`,
	}
	c.AddCommand(newEndpointAdd(), newEndpointList(), newEndpointGet(), newEndpointDelete(), newEndpointLabel())
	return c
}

func newEndpointAdd() *cobra.Command {
	var req agentv1.AddEndpointRequest
	var labels []string
	var timeout time.Duration
	c := &cobra.Command{
		Use:   "add NAME --netns NAME|PATH|PID",
		Short: "Connect a network namespace and guard it",
		Long: `Make an interface with addresses and routes in a network namespace, put the
policy that applies to its labels in force, and only then let traffic through.
The command returns when that is done.`,
		Example: `  # a namespace made by 'ip netns add web'
  headgate endpoint add web --netns web --label app=web --label tier=front

  # a container, by its pid, with a named port
  headgate endpoint add shop/db --netns 4711 --label app=db --port sql=5432/TCP

  # an address of your choice, and JSON for scripts
  headgate endpoint add web --netns web --ip 10.210.7.1 -o json`,
		Args: wantArgs("NAME"),
		RunE: func(c *cobra.Command, args []string) error {
			if err := fillAddRequest(c, &req, args[0], labels); err != nil {
				return err
			}
			return runEndpointAdd(c, &req, timeout)
		},
	}
	f := c.Flags()
	f.StringVar(&req.Netns, "netns", "", "network namespace: a name in /run/netns, a path or a pid (required)")
	f.StringVarP(&req.Namespace, "namespace", "n", defaultNamespace, "namespace of the endpoint")
	f.StringArrayVarP(&labels, "label", "l", nil, "label KEY=VALUE (repeatable)")
	f.StringVar(&req.ServiceAccount, "service-account", "", "service account that policies may name")
	f.StringArrayVar(&req.Ips, "ip", nil, "address, one an IP version (repeatable; default: allocated)")
	f.StringArrayVar(&req.Ports, "port", nil, "named port NAME=80/TCP (repeatable)")
	f.StringVar(&req.Interface, "interface", "eth0", "name of the interface in the namespace")
	f.BoolVar(&req.ResolvConf, "resolv-conf", false, "write /etc/netns/NAME/resolv.conf, by which 'ip netns exec' processes ask this node for names")
	f.DurationVar(&timeout, "timeout", addTimeout, "how long to wait until policy is in force")
	addSocket(c)
	addOutput(c)
	return c
}

func fillAddRequest(c *cobra.Command, req *agentv1.AddEndpointRequest, name string, labels []string) error {
	var err error
	if req.Namespace, req.Name, err = namespaced(c, name, req.Namespace); err != nil {
		return err
	}
	if req.Netns == "" {
		return usagef("--netns is missing: name the network namespace of the workload")
	}
	if req.Netns, err = netnsForAgent(req.Netns); err != nil {
		return err
	}
	for _, ip := range req.Ips {
		if err := checkAddress(ip); err != nil {
			return err
		}
	}
	for _, port := range req.Ports {
		if err := checkPort(port); err != nil {
			return err
		}
	}
	req.Labels, err = parseLabels(labels)
	return err
}

func runEndpointAdd(c *cobra.Command, req *agentv1.AddEndpointRequest, timeout time.Duration) error {
	p := startProgress(c.ErrOrStderr(), "waiting until policy is in force")
	var added *agentv1.Endpoint
	err := call(c, timeout, "", func(ctx context.Context, agent *agentConn) (err error) {
		added, err = agent.AddEndpoint(ctx, req)
		return err
	})
	p.end()
	if err != nil {
		return err
	}
	return showEndpoint(c, added)
}

func newEndpointList() *cobra.Command {
	c := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List the endpoints of this node",
		Example: `  headgate endpoint list
  headgate endpoint list -o json`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			var list []*agentv1.Endpoint
			err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
				resp, err := agent.ListEndpoints(ctx, &agentv1.ListEndpointsRequest{})
				list = resp.GetEndpoints()
				return err
			})
			if err != nil {
				return err
			}
			return showEndpoints(c, list)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newEndpointGet() *cobra.Command {
	c := &cobra.Command{
		Use:               "get NAME",
		Short:             "Show one endpoint and what is enforced on it",
		Example:           `  headgate endpoint get shop/db`,
		Args:              wantArgs("NAME"),
		ValidArgsFunction: completeFirst(endpointNames),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := endpointName(args[0])
			if err != nil {
				return err
			}
			var got *agentv1.Endpoint
			err = call(c, callTimeout, hintEndpoints, func(ctx context.Context, agent *agentConn) (err error) {
				got, err = agent.GetEndpoint(ctx, name)
				return err
			})
			if err != nil {
				return err
			}
			return showEndpoint(c, got)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newEndpointDelete() *cobra.Command {
	c := &cobra.Command{
		Use:     "delete NAME...",
		Aliases: []string{"rm"},
		Short:   "Take endpoints off the network",
		Long: `Remove the endpoints' interfaces, addresses and connections. The network
namespaces themselves stay. An endpoint whose namespace goes away is noticed and
removed without this command.`,
		Example:           `  headgate endpoint delete shop/db`,
		Args:              wantArgs("NAME..."),
		ValidArgsFunction: completeAll(endpointNames),
		RunE: func(c *cobra.Command, args []string) error {
			for _, arg := range args {
				name, err := endpointName(arg)
				if err != nil {
					return err
				}
				err = call(c, callTimeout, hintEndpoints, func(ctx context.Context, agent *agentConn) error {
					_, err := agent.DeleteEndpoint(ctx, name)
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

func newEndpointLabel() *cobra.Command {
	c := &cobra.Command{
		Use:   "label NAME KEY=VALUE|KEY-...",
		Short: "Change the labels of an endpoint",
		Long: `Set labels (KEY=VALUE) and remove them (KEY-). The endpoint gets the identity
of its new labels, and with it other policies; its connections stay where the new
policies allow them.`,
		Example:           `  headgate endpoint label web tier=front canary-`,
		Args:              wantArgs("NAME", "KEY=VALUE|KEY-..."),
		ValidArgsFunction: completeFirst(endpointNames),
		RunE: func(c *cobra.Command, args []string) error {
			name, err := endpointName(args[0])
			if err != nil {
				return err
			}
			set, remove, err := parseLabelChanges(args[1:])
			if err != nil {
				return err
			}
			req := &agentv1.LabelEndpointRequest{Name: name.Name, Namespace: name.Namespace, Set: set, Remove: remove}
			var got *agentv1.Endpoint
			err = call(c, waitTimeout, hintEndpoints, func(ctx context.Context, agent *agentConn) (err error) {
				got, err = agent.LabelEndpoint(ctx, req)
				return err
			})
			if err != nil {
				return err
			}
			return showEndpoint(c, got)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func showEndpoints(c *cobra.Command, list []*agentv1.Endpoint) error {
	views := make([]endpointView, 0, len(list))
	t := newTable("ID", "NAMESPACE/NAME", "IDENTITY", "LABELS", "IPS", "ENFORCED", "REVISION", "STATE")
	for _, e := range sortedEndpoints(list) {
		views = append(views, viewEndpoint(e))
		t.row(strconv.FormatUint(uint64(e.GetId()), 10), e.GetNamespace()+"/"+e.GetName(),
			strconv.FormatUint(uint64(e.GetIdentity()), 10), joinLabels(e.GetLabels()), joinList(e.GetIps()),
			enforced(e), strconv.FormatUint(e.GetPolicyRevision(), 10), stateOf(e))
	}
	return show(c, views, t.write)
}

func sortedEndpoints(list []*agentv1.Endpoint) []*agentv1.Endpoint {
	return slices.SortedFunc(slices.Values(list), func(a, b *agentv1.Endpoint) int {
		return compareNames(a.GetNamespace(), a.GetName(), b.GetNamespace(), b.GetName())
	})
}

func showEndpoint(c *cobra.Command, e *agentv1.Endpoint) error {
	return show(c, viewEndpoint(e), func(w io.Writer) error {
		l := newLines()
		l.line("Name", e.GetNamespace()+"/"+e.GetName())
		l.line("ID", strconv.FormatUint(uint64(e.GetId()), 10))
		l.line("Identity", strconv.FormatUint(uint64(e.GetIdentity()), 10))
		l.line("Labels", joinLabels(e.GetLabels()))
		l.optional("Service account", e.GetServiceAccount())
		l.line("Addresses", joinList(e.GetIps()))
		l.line("Interface", e.GetInterface())
		l.optional("Network namespace", e.GetNetns())
		l.optional("Named ports", joinList(e.GetPorts()))
		l.line("Enforced", enforced(e))
		l.line("Policy", fmt.Sprintf("revision %d", e.GetPolicyRevision()))
		l.line("State", stateOf(e))
		return l.write(w)
	})
}
