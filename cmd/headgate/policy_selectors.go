package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/verdict"
)

func newPolicySelectors() *cobra.Command {
	var source worldSource
	c := &cobra.Command{
		Use:     "selectors",
		Aliases: []string{"selector"},
		Short:   "List the selectors of policies and what each picks",
		Long: `List every selector that policies have, once: whom rules are for and whom they
name. RULES counts the rules that have it; ENDPOINTS and IDENTITIES are what it
picks now. One that picks nothing is mostly a mistake in a label. Without
--policy the policies and endpoints are those of the running agent.`,
		Example: `  headgate policy selectors
  headgate policy selectors --policy web.yaml --cases cluster.yaml -o json`,
		Args: morePolicies,
		RunE: func(c *cobra.Command, args []string) error {
			source.policies = append(source.policies, args...)
			world, policies, err := source.read(c)
			if err != nil {
				return err
			}
			judge, err := newJudge(c, world, policies)
			if err != nil {
				return err
			}
			return showSelectors(c, judge.Selectors())
		},
	}
	source.addTo(c)
	addSocket(c)
	addOutput(c)
	return c
}

// selectorView is a selector as JSON and YAML show it.
type selectorView struct {
	Kind       string   `json:"kind"`
	Selector   string   `json:"selector"`
	Subjects   []string `json:"subjects"` // rules that are for what it picks
	Peers      []string `json:"peers"`    // rules that name it as the other side
	Endpoints  []string `json:"endpoints"`
	Identities []string `json:"identities"`
}

func showSelectors(c *cobra.Command, list []verdict.Selection) error {
	views := make([]selectorView, 0, len(list))
	t := newTable("KIND", "SELECTOR", "RULES", "ENDPOINTS", "IDENTITIES")
	for _, s := range list {
		v := selectorView{s.Kind, s.Text, refTexts(s.Subjects), refTexts(s.Peers), notNil(s.Endpoints), notNil(s.Identities)}
		views = append(views, v)
		t.row(v.Kind, v.Selector, strconv.Itoa(len(v.Subjects)+len(v.Peers)), joinList(v.Endpoints), joinList(v.Identities))
	}
	return show(c, views, t.write)
}

func refTexts(refs []policy.Ref) []string {
	list := make([]string, len(refs))
	for i, r := range refs {
		list[i] = r.String()
	}
	return list
}
