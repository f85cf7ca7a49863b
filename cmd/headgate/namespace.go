package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newNamespaceCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "namespace",
		Aliases: []string{"namespaces", "ns"},
		Short:   "Label namespaces, for policies that select by them",
	}
	c.AddCommand(newNamespaceLabel())
	return c
}

func newNamespaceLabel() *cobra.Command {
	c := &cobra.Command{
		Use:   "label NAME KEY=VALUE|KEY-...",
		Short: "Change the labels of a namespace",
		Long: `Set labels (KEY=VALUE) and remove them (KEY-) of a namespace. Policies select by
them as io.cilium.k8s.namespace.labels.KEY. Every namespace has
kubernetes.io/metadata.name.`,
		Example: `  headgate namespace label shop env=prod team=checkout
  headgate namespace label shop team-`,
		Args:              wantArgs("NAME", "KEY=VALUE|KEY-..."),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			set, remove, err := parseLabelChanges(args[1:])
			if err != nil {
				return err
			}
			var labels map[string]string
			req := &agentv1.LabelNamespaceRequest{Name: args[0], Set: set, Remove: remove}
			err = call(c, waitTimeout, "", func(ctx context.Context, agent *agentConn) error {
				resp, err := agent.LabelNamespace(ctx, req)
				labels = resp.GetLabels()
				return err
			})
			if err != nil {
				return err
			}
			return showNamespace(c, args[0], labels)
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func showNamespace(c *cobra.Command, name string, labels map[string]string) error {
	view := struct {
		Name   string            `json:"name"`
		Labels map[string]string `json:"labels"`
	}{name, notNilMap(labels)}
	return show(c, view, func(w io.Writer) error {
		l := newLines()
		l.line("Namespace", name)
		l.line("Labels", joinLabels(labels))
		return l.write(w)
	})
}
