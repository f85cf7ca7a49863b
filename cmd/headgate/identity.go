package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// identityView is an identity as JSON and YAML show it.
type identityView struct {
	ID        uint32   `json:"id"`
	Labels    []string `json:"labels"`
	Endpoints uint32   `json:"endpoints"`
	Prefix    string   `json:"prefix"`
}

func newIdentityCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "identity",
		Aliases: []string{"identities", "id"},
		Short:   "List the identities that this node knows",
	}
	list := &cobra.Command{
		Use:     "list",
		Aliases: []string{"ls"},
		Short:   "List identities, their labels and how many endpoints have them",
		Long: `An identity is the number of a set of labels; packets are judged by the two
numbers they go between. Below 256 are the reserved ones (host, world, ...), then
come those of workloads, and from 16777216 those of address ranges and DNS names,
which are this node's own.`,
		Example: `  headgate identity list`,
		Args:    wantArgs(),
		RunE:    runIdentityList,
	}
	addSocket(list)
	addOutput(list)
	c.AddCommand(list)
	return c
}

func runIdentityList(c *cobra.Command, _ []string) error {
	var list []*agentv1.Identity
	err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
		resp, err := agent.ListIdentities(ctx, &agentv1.ListIdentitiesRequest{})
		list = resp.GetIdentities()
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b *agentv1.Identity) int { return cmp.Compare(a.GetId(), b.GetId()) })
	views := make([]identityView, 0, len(list))
	t := newTable("ID", "LABELS", "ENDPOINTS", "PREFIX")
	for _, i := range list {
		views = append(views, identityView{i.GetId(), notNil(i.GetLabels()), i.GetEndpoints(), i.GetPrefix()})
		t.row(strconv.FormatUint(uint64(i.GetId()), 10), joinList(i.GetLabels()),
			strconv.FormatUint(uint64(i.GetEndpoints()), 10), i.GetPrefix())
	}
	return show(c, views, t.write)
}
