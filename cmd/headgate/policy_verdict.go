package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/headgate/headgate/parsers/http"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/verdict"
)

// caseFile is a world and questions about it.
type caseFile struct {
	verdict.World
	Cases []verdict.Question `json:"cases"`
}

func newPolicyVerdict() *cobra.Command {
	var files, cases []string
	c := &cobra.Command{
		Use:   "verdict --policy FILE... --cases FILE",
		Short: "Decide cases by policy files, without an agent",
		Long: `Read policies, and a file that describes endpoints and asks which of them may
reach which, and decide every case as the datapath and the proxies would. It
needs no agent, no kernel and no rights. Denied is an answer too: the exit code
is 0 when every case was decided.`,
		Example: `  headgate policy verdict --policy web.yaml --cases cases.yaml
  headgate policy verdict --policy policies/ --cases cases.yaml -o json`,
		Args: func(c *cobra.Command, args []string) error {
			if len(cases) == 0 {
				return usagef("%q needs --cases FILE", c.CommandPath())
			}
			return morePolicies(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			return runVerdict(c, append(files, args...), cases)
		},
	}
	addPolicyFiles(c, &files)
	c.Flags().StringArrayVar(&cases, "cases", nil, "file of endpoints and cases, or - for standard input (repeatable)")
	mustRegister(c.MarkFlagFilename("cases", "yaml", "yml", "json"))
	addOutput(c)
	return c
}

// addPolicyFiles gives a command the --policy flag.
func addPolicyFiles(c *cobra.Command, files *[]string) {
	c.Flags().StringArrayVar(files, "policy", nil, "policy file, directory, or - for standard input (repeatable)")
	mustRegister(c.MarkFlagFilename("policy", "yaml", "yml", "json"))
}

// morePolicies takes arguments for more files behind --policy, as a shell makes
// of --policy *.yaml.
func morePolicies(c *cobra.Command, args []string) error {
	if len(args) > 0 && !c.Flags().Changed("policy") {
		return wantArgs()(c, args)
	}
	return nil
}

func runVerdict(c *cobra.Command, files, cases []string) error {
	policies, err := decodeFiles(c, files)
	if err != nil {
		return err
	}
	answers := []verdict.Answer{}
	for _, name := range cases {
		file, err := readCases(c, name)
		if err != nil {
			return err
		}
		judge, err := newJudge(c, &file.World, policies)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		for i := range file.Cases {
			a, err := judge.Decide(&file.Cases[i])
			if err != nil {
				return fmt.Errorf("%s: decide case %s: %w", name, caseName(&file.Cases[i], i), err)
			}
			answers = append(answers, a)
		}
	}
	return show(c, answers, func(w io.Writer) error {
		t := newTable("ID", "VERDICT", "L7", "RULE", "REASON")
		for _, a := range answers {
			l7 := ""
			if a.L7 {
				l7 = "yes"
			}
			t.row(a.ID, a.Verdict, l7, a.Rule, a.Reason)
		}
		return t.write(w)
	})
}

func caseName(q *verdict.Question, i int) string {
	if q.ID != "" {
		return q.ID
	}
	return fmt.Sprintf("number %d", i+1)
}

func newJudge(c *cobra.Command, world *verdict.World, policies []policy.Policy) (*verdict.Judge, error) {
	judge, err := verdict.New(world, policies, http.NormalPath)
	if err != nil {
		return nil, err
	}
	for _, w := range judge.Warnings {
		fmt.Fprintf(c.ErrOrStderr(), "warning: %s\n", clean(w))
	}
	return judge, nil
}

// decodeFiles reads policies, all or nothing.
func decodeFiles(c *cobra.Command, names []string) ([]policy.Policy, error) {
	files, err := readPolicies(c.InOrStdin(), names)
	if err != nil {
		return nil, err
	}
	return decodePolicies(c, files)
}

func decodePolicies(c *cobra.Command, files []*agentv1.PolicyFile) ([]policy.Policy, error) {
	var all []policy.Policy
	origin := map[string]string{}
	for _, f := range files {
		policies, err := decode.Decode(f.GetName(), f.GetData())
		var list decode.Errors
		if errors.As(err, &list) {
			for _, e := range list {
				fmt.Fprintf(c.ErrOrStderr(), "error: %s\n", clean(e.Error()))
			}
			return nil, fmt.Errorf("%s is bad: mend the errors above (%d)", f.GetName(), len(list))
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", f.GetName(), err)
		}
		for _, p := range policies {
			if other, twice := origin[p.Key()]; twice {
				return nil, fmt.Errorf("%s: %s %s is in %s too; give one of them another name", p.Origin, p.Kind, p.FullName(), other)
			}
			origin[p.Key()] = p.Origin
		}
		all = append(all, policies...)
	}
	return all, nil
}

// readCases reads a file of cases, or of a world alone. What it does not know it
// leaves alone: people keep notes and what they expect beside the cases.
func readCases(c *cobra.Command, name string) (*caseFile, error) {
	data, err := readWorldFile(c, name)
	if err != nil {
		return nil, err
	}
	file := &caseFile{}
	if err := yaml.Unmarshal(data, file); err != nil {
		return nil, fmt.Errorf("read %s: %w", name, err)
	}
	return file, nil
}

func readWorldFile(c *cobra.Command, name string) ([]byte, error) {
	if name == stdinName {
		return readBounded(c.InOrStdin(), "standard input")
	}
	file, err := readFile(name)
	return file.GetData(), err
}
