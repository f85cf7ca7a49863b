package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/headgate/headgate/xds"
)

// bootstrapFlags are those of "xds bootstrap".
type bootstrapFlags struct {
	run, nodeName, admin, output string
	workers                      int
	grpc                         bool
}

func newXDSBootstrap() *cobra.Command {
	var f bootstrapFlags
	c := &cobra.Command{
		Use:   "bootstrap",
		Short: "Print what an Envoy that somebody else runs starts with",
		Long: `Print the bootstrap of an Envoy for an agent with --envoy-external. As YAML it says
above how to start Envoy: with which arguments, capabilities and user. It needs no
running agent; Envoy waits for one.

With --grpc it is the bootstrap of a program with gRPC's own xDS client
(GRPC_XDS_BOOTSTRAP), which then finds services: xds:///NAME.NAMESPACE, or with a port
xds:///NAME.NAMESPACE:PORT. It must run as root or as Envoy's user to reach the socket.`,
		Example: `  headgate xds bootstrap > envoy.yaml
  headgate xds bootstrap --grpc > grpc.json
  headgate xds bootstrap --run-dir /run/headgate-node1 --admin off -o json`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return runXDSBootstrap(c, &f) },
	}
	fs := c.Flags()
	fs.StringVar(&f.run, "run-dir", defaultRunDir, "the agent's --run-dir")
	fs.StringVar(&f.nodeName, "node-name", "", "the agent's --node-name (default: the hostname)")
	fs.StringVar(&f.admin, "admin", "", "unix socket of Envoy's admin interface, from which the agent takes metrics; off (default: where the agent looks)")
	fs.IntVar(&f.workers, "envoy-workers", 2, "threads of Envoy that carry connections")
	fs.BoolVar(&f.grpc, "grpc", false, "for a program with gRPC's xDS client, which looks up services")
	fs.StringVarP(&f.output, "output", "o", formatYAML, "output format: yaml or json")
	return c
}

func runXDSBootstrap(c *cobra.Command, f *bootstrapFlags) error {
	if f.output != formatYAML && f.output != formatJSON {
		return usagef("unknown output format %q: write yaml or json", f.output)
	}
	d := dirs{run: f.run}
	d.settle(c.Flags())
	if f.nodeName == "" {
		f.nodeName, _ = os.Hostname()
	}
	o := xds.ExternalOptions(d.run, f.nodeName)
	if f.grpc {
		return showGRPCBootstrap(c, o)
	}
	switch f.admin {
	case "":
	case "off":
		o.Admin = ""
	default:
		o.Admin = f.admin
	}
	text, err := xds.Bootstrap(o)
	if err != nil {
		return err
	}
	if f.output == formatYAML {
		if text, err = yaml.JSONToYAML(text); err != nil {
			return fmt.Errorf("render Envoy's bootstrap: %w", err)
		}
		text = append(bootstrapNote(f.workers), text...)
	}
	_, err = c.OutOrStdout().Write(append(bytes.TrimRight(text, "\n"), '\n'))
	return err
}

// showGRPCBootstrap prints what gRPC's xDS client reads, which is JSON.
func showGRPCBootstrap(c *cobra.Command, o xds.BootstrapOptions) error {
	text, err := encodeJSON(map[string]any{
		"xds_servers": []any{map[string]any{
			"server_uri": "unix://" + o.Socket, "channel_creds": []any{map[string]any{"type": "insecure"}}, "server_features": []string{"xds_v3"},
		}},
		"node": map[string]any{"id": o.NodeID},
	})
	if err != nil {
		return fmt.Errorf("render gRPC's bootstrap: %w", err)
	}
	_, err = c.OutOrStdout().Write(text)
	return err
}

// bootstrapNote says how Envoy is started.
func bootstrapNote(workers int) []byte {
	args := append([]string{"envoy", "-c", "THIS_FILE.yaml"}, xds.Args("", workers)[2:]...)
	return fmt.Appendf(nil, `# For an Envoy that the agent does not start: 'headgate agent --backend envoy --envoy-external'.
#
# Start it in the agent's network namespace with
#   %s
# as root, or as the user whom the agent is told by --envoy-uid, with the capabilities
# CAP_NET_ADMIN (transparent sockets, marks) and CAP_NET_BIND_SERVICE, and no other: with
# systemd, AmbientCapabilities= and CapabilityBoundingSet=. Without them its listeners
# are refused, and their ports stay closed.
#
# The agent's socket and the directory of the admin socket are that user's alone. Whoever
# reaches the admin socket reads every rule and can stop Envoy.
`, strings.Join(args, " "))
}
