package main

import (
	"bytes"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newPolicyGet() *cobra.Command {
	c := &cobra.Command{
		Use:   "get [KIND NAMESPACE/NAME]",
		Short: "Show policies as they were written",
		Long: `Show the document of one policy, or of all of them, as YAML that can be applied
again. With -o json it is an object for one policy and a list for all; with -o
table it is what 'headgate policy list' shows.`,
		Example: `  headgate policy get cnp default/rule1
  headgate policy get > backup.yaml`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return wantArgs("KIND", "NAMESPACE/NAME")(c, args)
		},
		ValidArgsFunction: completePolicy,
		RunE:              runPolicyGet,
	}
	addSocket(c)
	addOutputDefault(c, formatYAML)
	return c
}

func runPolicyGet(c *cobra.Command, args []string) error {
	var want *agentv1.PolicyKey
	if len(args) > 0 {
		key, err := policyKey(args[0], args[1])
		if err != nil {
			return err
		}
		want = key
	}
	list, err := listPolicies(c, true)
	if err != nil {
		return err
	}
	if want == nil {
		return showSources(c, list)
	}
	for _, p := range list {
		if proto.Equal(p.GetKey(), want) {
			return showSource(c, p)
		}
	}
	return fmt.Errorf("there is no %s %s; %s", want.Kind, keyName(want), hintPolicies)
}

func showSources(c *cobra.Command, list []*agentv1.Policy) error {
	format, err := outputFormat(c)
	switch {
	case err != nil:
		return err
	case format == formatTable:
		return showPolicies(c, list)
	case format == formatYAML:
		return writeSources(c.OutOrStdout(), list)
	}
	documents := make([]any, 0, len(list))
	for _, p := range list {
		document, err := parseSource(p)
		if err != nil {
			return err
		}
		documents = append(documents, document)
	}
	return show(c, documents, nil)
}

func showSource(c *cobra.Command, p *agentv1.Policy) error {
	format, err := outputFormat(c)
	switch {
	case err != nil:
		return err
	case format == formatTable:
		return showPolicies(c, []*agentv1.Policy{p})
	case format == formatYAML:
		return writeSources(c.OutOrStdout(), []*agentv1.Policy{p})
	}
	document, err := parseSource(p)
	if err != nil {
		return err
	}
	return show(c, document, nil)
}

func parseSource(p *agentv1.Policy) (any, error) {
	var document any
	if err := yaml.Unmarshal(p.GetSource(), &document); err != nil {
		return nil, fmt.Errorf("read the document of %s %s: %w", p.GetKey().GetKind(), keyName(p.GetKey()), err)
	}
	return document, nil
}

// writeSources writes documents as they came, comments included.
func writeSources(w io.Writer, list []*agentv1.Policy) error {
	var out bytes.Buffer
	for i, p := range list {
		if i > 0 {
			out.WriteString("---\n")
		}
		document := bytes.TrimSpace(bytes.TrimPrefix(bytes.TrimSpace(p.GetSource()), []byte("---")))
		out.WriteString(cleanText(string(document)))
		out.WriteByte('\n')
	}
	_, err := w.Write(out.Bytes())
	return err
}
