package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// completeTimeout keeps a shell from hanging on an agent that does not answer.
const completeTimeout = 5 * time.Second

// lister asks the agent for the names that an argument may be.
type lister func(context.Context, *agentConn) ([]string, error)

type completion = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// completeFirst completes the first argument.
func completeFirst(list lister) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return ask(c, list), cobra.ShellCompDirectiveNoFileComp
	}
}

// completeAll completes every argument, each name once.
func completeAll(list lister) completion {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		names := slices.DeleteFunc(ask(c, list), func(name string) bool { return slices.Contains(args, name) })
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeThen completes the first argument by one list, and the others by another.
func completeThen(first, others lister) completion {
	return func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return completeFirst(first)(c, args, word)
		}
		return completeAll(others)(c, args[1:], word)
	}
}

// completeFlag completes the value of a flag.
func completeFlag(list lister) completion {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return ask(c, list), cobra.ShellCompDirectiveNoFileComp
	}
}

// ask is silent when there is no agent: completion must not write errors.
func ask(c *cobra.Command, list lister) []string {
	ctx, cancel := context.WithTimeout(c.Context(), completeTimeout)
	defer cancel()
	socket, err := c.Flags().GetString("socket")
	if err != nil {
		return nil
	}
	agent, err := dial(ctx, socket)
	if err != nil {
		return nil
	}
	defer agent.Close()
	names, err := list(ctx, agent)
	if err != nil {
		return nil
	}
	for i := range names {
		names[i] = clean(names[i])
	}
	return names
}

func endpointNames(ctx context.Context, agent *agentConn) ([]string, error) {
	resp, err := agent.ListEndpoints(ctx, &agentv1.ListEndpointsRequest{})
	var names []string
	for _, e := range sortedEndpoints(resp.GetEndpoints()) {
		names = append(names, shortName(e.GetNamespace(), e.GetName()))
	}
	return names, err
}

// policyNames lists the policies of one kind.
func policyNames(kind string) lister {
	return func(ctx context.Context, agent *agentConn) ([]string, error) {
		resp, err := agent.ListPolicies(ctx, &agentv1.ListPoliciesRequest{})
		var names []string
		for _, p := range sortedPolicies(resp.GetPolicies()) {
			if p.GetKey().GetKind() == kind {
				names = append(names, keyName(p.GetKey()))
			}
		}
		return names, err
	}
}

// completePolicy completes KIND, then the names of that kind.
func completePolicy(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return kindNames(), cobra.ShellCompDirectiveNoFileComp
	}
	key, err := policyKey(args[0], "x")
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return completeAll(policyNames(key.Kind))(c, args[1:], word)
}
