package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// wantArgs checks arguments against names such as "NAME" and "KEY=VALUE...":
// one each, and one or more of a last one that ends in dots.
func wantArgs(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		many := len(names) > 0 && strings.HasSuffix(names[len(names)-1], "...")
		switch {
		case len(args) < len(names):
			return usagef("%q needs %s", c.CommandPath(), strings.Join(names[len(args):], " "))
		case len(args) > len(names) && !many && len(names) == 0:
			return usagef("%q takes no arguments, not %q", c.CommandPath(), args[0])
		case len(args) > len(names) && !many:
			return usagef("%q takes %s and no more: what is %q?", c.CommandPath(), strings.Join(names, " "), args[len(names)])
		}
		return nil
	}
}

// atMostOne takes one argument or none.
func atMostOne(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return wantArgs(name)(c, args)
		}
		return nil
	}
}
