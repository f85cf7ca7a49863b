package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// stdio is where a command reads and writes; tests give their own.
type stdio struct {
	in       io.Reader
	out, err io.Writer
}

// Groups under which the root help lists the commands.
const (
	groupWork = "work"
	groupSee  = "see"
	groupNode = "node"
)

// run executes one command line and returns the exit code of the process.
func run(ctx context.Context, args []string, std stdio) int {
	root := newRootCommand(std)
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	fmt.Fprintln(std.err, errorLine(err, c.CommandPath()))
	return exitCode(err)
}

func newRootCommand(std stdio) *cobra.Command {
	root := &cobra.Command{
		Use:   "headgate",
		Short: "Identity-aware network policy for Linux",
		Long: `Headgate enforces network policy between workloads by what they are, not by
their address: eBPF judges L3 and L4 in the kernel, a proxy on the node judges
HTTP requests. It speaks CiliumNetworkPolicy.

Start the agent, give it workloads and policies, and watch what happens:`,
		Example: `  headgate agent &
  headgate endpoint add web --netns web --label app=web
  headgate policy apply -f policies/
  headgate observe --follow`,
		Version:       buildVersion().String(),
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.SetIn(std.in)
	root.SetOut(std.out)
	root.SetErr(std.err)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.AddGroup(
		&cobra.Group{ID: groupWork, Title: "Workloads and policies:"},
		&cobra.Group{ID: groupSee, Title: "See what happens:"},
		&cobra.Group{ID: groupNode, Title: "The node:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupWork, newEndpointCommand(), newNamespaceCommand(), newServiceCommand(), newPolicyCommand())
	add(groupSee, newObserveCommand(), newMonitorCommand(), newStatusCommand(), newIdentityCommand(), newFQDNCommand(), newBPFCommand(), newXDSCommand())
	// agent, proxy, cleanup and check join here.
	add(groupNode, newNodeCommands()...)
	add(groupNode, newConfigCommand())
	root.AddCommand(newVersionCommand())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	settle(root)
	return root
}

// settle gives every command of the tree the exit codes of the contract:
// whatever fails before a command runs is wrong usage, whatever fails in it is
// a failure. Commands that only group others refuse to run.
func settle(c *cobra.Command) {
	for _, sub := range c.Commands() {
		settle(sub)
	}
	switch {
	case c.RunE != nil:
		runE := c.RunE
		c.RunE = func(c *cobra.Command, args []string) error {
			return failed(runE(c, args))
		}
	case c.Run == nil && c.HasParent():
		c.Args = cobra.ArbitraryArgs
		c.RunE = refuseGroup
	case c.Run == nil:
		c.Args = cobra.ArbitraryArgs
		c.RunE = runRoot
	}
}

// runRoot shows the help when nothing was asked for.
func runRoot(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return c.Help()
	}
	return unknownCommand(c, args[0])
}

func refuseGroup(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return unknownCommand(c, args[0])
	}
	var names []string
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return usagef("%q needs one of: %s", c.CommandPath(), strings.Join(names, ", "))
}

func unknownCommand(c *cobra.Command, name string) error {
	for c.SuggestionsMinimumDistance = 1; c.SuggestionsMinimumDistance <= 2; c.SuggestionsMinimumDistance++ {
		if near := c.SuggestionsFor(name); len(near) > 0 {
			return usagef("unknown command %q for %q; did you mean %q?", name, c.CommandPath(), near[0])
		}
	}
	return usagef("unknown command %q for %q; see '%s --help'", name, c.CommandPath(), c.CommandPath())
}
