package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/agent"
	"github.com/headgate/headgate/proxy"
	"github.com/headgate/headgate/xds"
)

// endProxies ends every proxy of a run directory, whoever judges HTTP there.
func endProxies(ctx context.Context, runDir string) error {
	return errors.Join(proxy.Terminate(ctx, runDir), xds.Terminate(ctx, runDir))
}

func newCleanupCommand() *cobra.Command {
	var d dirs
	c := &cobra.Command{
		Use:   "cleanup",
		Short: "End the proxy and take everything out of kernel and disk",
		Long: `Take away what an agent leaves behind when it stops: the proxy, the endpoints'
interfaces with the programs on them, the routing rules, the sockets and what is
remembered. Workloads lose their network. The agent itself must have been stopped.`,
		Example: `  headgate cleanup
  ip netns exec node1 headgate cleanup --run-dir /run/headgate-node1`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			d.settle(c.Flags())
			if err := agent.Cleanup(c.Context(), d.run, d.state, endProxies); err != nil {
				return err
			}
			_, err := fmt.Fprintln(c.OutOrStdout(), "headgate is gone from this machine")
			return err
		},
	}
	d.addTo(c.Flags())
	return c
}
