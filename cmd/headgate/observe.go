package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"strings"

	observerpb "github.com/cilium/cilium/api/v1/observer"
	"github.com/spf13/cobra"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/observe/cli"
)

func newObserveCommand() *cobra.Command {
	var flags cli.Flags
	c := &cobra.Command{
		Use:   "observe",
		Short: "Show flows: who talked to whom, and what became of it",
		Long: `Show what the kernel and the proxy judged: connections, drops and requests, with
identities, labels, the verdict and the rule that gave it, or came nearest. The
flags are those of 'hubble observe': one flag given twice means either, two flags
mean both, and --not turns the next one around. Without flags the last 20 flows
are shown; --follow goes on with flows as they come.

-o json and -o jsonpb are Hubble's GetFlowsResponse as JSON, one object a line.`,
		Example: `  headgate observe --follow
  headgate observe --verdict DROPPED --since 5m
  headgate observe --to-label app=web --http-status 5+
  headgate observe --from-pod shop/cart --not --to-port 53 -o json`,
		Args:              wantArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return runObserve(c, &flags) },
	}
	flags.AddTo(c.Flags())
	completeWords(c, "output", "compact", "dict", "json", "jsonpb", "table")
	completeWords(c, "verdict", "FORWARDED", "DROPPED", "REDIRECTED", "AUDIT", "ERROR")
	completeWords(c, "type", "drop", "l7", "policy-verdict", "trace")
	completeWords(c, "traffic-direction", "ingress", "egress")
	for _, flag := range []string{"pod", "from-pod", "to-pod"} {
		mustRegister(c.RegisterFlagCompletionFunc(flag, completeAll(endpointNames)))
	}
	addSocket(c)
	return c
}

// filterFault is an error in a filter without the words for where in the request it
// stands.
func filterFault(err error) string {
	text := err.Error()
	for _, prefix := range []string{"compile whitelist: ", "compile blacklist: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if rest, found := strings.CutPrefix(text, "filter "); found {
		if _, after, ok := strings.Cut(rest, ": "); ok {
			text = after
		}
	}
	return text
}

func completeWords(c *cobra.Command, flag string, words ...string) {
	complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	mustRegister(c.RegisterFlagCompletionFunc(flag, complete))
}

func runObserve(c *cobra.Command, flags *cli.Flags) error {
	req, err := flags.Request()
	if err != nil {
		return usageError{err}
	}
	// What the agent would refuse is wrong usage, and said before it is asked.
	if _, err := observe.CompileFilters(req.GetWhitelist(), req.GetBlacklist()); err != nil {
		return usagef("%s", filterFault(err))
	}
	options, err := flags.Options(cli.Terminal(c.OutOrStdout()))
	if err != nil {
		return usageError{err}
	}
	options.Errors = c.ErrOrStderr()
	out := bufio.NewWriter(c.OutOrStdout())
	printer, err := cli.NewPrinter(out, options)
	if err != nil {
		return usageError{err}
	}
	agent, err := connect(c)
	if err != nil {
		return err
	}
	defer agent.Close()
	err = printFlows(c.Context(), agent, req, printer, out)
	return errors.Join(err, printer.Close(), out.Flush())
}

// printFlows prints until the agent has no more. A person who stops following
// has seen what they wanted.
func printFlows(ctx context.Context, agent *agentConn, req *observerpb.GetFlowsRequest, printer *cli.Printer, out *bufio.Writer) error {
	stream, err := observerpb.NewObserverClient(agent).GetFlows(ctx, req)
	for err == nil {
		var resp *observerpb.GetFlowsResponse
		if resp, err = stream.Recv(); err != nil {
			break
		}
		if err := printer.Write(resp); err != nil {
			return err
		}
		if req.GetFollow() {
			if err := out.Flush(); err != nil {
				return err
			}
		}
	}
	if errors.Is(err, io.EOF) || req.GetFollow() && ctx.Err() != nil {
		return nil
	}
	return explain(agent.socket, err, "'headgate observe --help' explains the filters")
}
