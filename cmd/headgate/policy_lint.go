package main

import (
	"fmt"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/policy/lint"
	"github.com/headgate/headgate/policy/verdict"
)

// lintFiles adds to the views what was probably not meant in files that are
// good. All of them are taken together, as they would be applied.
func lintFiles(c *cobra.Command, files []*agentv1.PolicyFile, views []fileView, world string) error {
	var policies []policy.Policy
	var of []int // the file of each policy
	for i, f := range files {
		good, err := decode.Decode(f.GetName(), f.GetData())
		if err != nil {
			continue // validate has said so
		}
		policies = append(policies, good...)
		for range good {
			of = append(of, i)
		}
	}
	var judge *verdict.Judge
	if world != "" {
		file, err := readCases(c, world)
		if err != nil {
			return err
		}
		if judge, err = newJudge(c, &file.World, policies); err != nil {
			return fmt.Errorf("%s: %w", world, err)
		}
	}
	for _, w := range lint.Check(policies, judge) {
		p, v := &policies[w.Policy], &views[of[w.Policy]]
		v.Warnings = append(v.Warnings, fmt.Sprintf("%s (%s %s): %s: %s", p.Origin, p.Kind, p.FullName(), w.Path, w.Message))
	}
	return nil
}
