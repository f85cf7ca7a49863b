package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newFQDNCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "fqdn",
		Short: "List the names that endpoints have learnt, for toFQDNs",
		Example: `  headgate fqdn list
  headgate fqdn selectors`,
	}
	c.AddCommand(newFQDNList(), newFQDNSelectors())
	return c
}

func newFQDNList() *cobra.Command {
	var endpoint string
	c := &cobra.Command{
		Use:     "list [PATTERN]",
		Aliases: []string{"ls"},
		Short:   "List names and the addresses that count for them",
		Long: `List the names that endpoints have asked for, and which addresses they were told.
An address counts for the endpoint that asked. SOURCE is lookup as long as an
answer holds, and connection where it has run out and an open connection, or the
grace after it, keeps it. A table shows four of a longer list; -o json has all.`,
		Example: `  headgate fqdn list
  headgate fqdn list '*.example.com' --endpoint shop/web -o json`,
		Args:              atMostOne("PATTERN"),
		ValidArgsFunction: completeFirst(learntNames),
		RunE: func(c *cobra.Command, args []string) error {
			req := &agentv1.ListNamesRequest{}
			if len(args) > 0 {
				req.Pattern = args[0]
			}
			if endpoint != "" {
				namespace, name, err := splitName(endpoint)
				if err != nil {
					return err
				}
				req.Endpoint = namespace + "/" + name
			}
			return runFQDNList(c, req)
		},
	}
	c.Flags().StringVar(&endpoint, "endpoint", "", "only what this endpoint knows, NAME or NAMESPACE/NAME")
	_ = c.RegisterFlagCompletionFunc("endpoint", completeFlag(endpointNames))
	addSocket(c)
	addOutput(c)
	return c
}

// nameView is a name as JSON and YAML show it.
type nameView struct {
	Name      string        `json:"name"`
	Addresses []string      `json:"addresses"`
	Endpoints []string      `json:"endpoints"`
	Expires   string        `json:"expires"` // the latest
	Source    string        `json:"source"`
	Selectors []string      `json:"selectors"`
	Entries   []addressView `json:"entries"`
}

// addressView is one address that one endpoint knows.
type addressView struct {
	Endpoint string `json:"endpoint"`
	Address  string `json:"address"`
	Expires  string `json:"expires"`
	Source   string `json:"source"`
	Identity uint32 `json:"identity"`
}

func runFQDNList(c *cobra.Command, req *agentv1.ListNamesRequest) error {
	var resp *agentv1.ListNamesResponse
	err := call(c, callTimeout, hintEndpoints, func(ctx context.Context, agent *agentConn) (err error) {
		resp, err = agent.ListNames(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	views := viewNames(resp.GetNames())
	t := newTable("NAME", "ADDRESSES", "ENDPOINTS", "EXPIRES", "SOURCE", "SELECTORS")
	for _, v := range views {
		t.row(v.Name, joinFew(v.Addresses), joinFew(v.Endpoints), v.Expires, v.Source, joinFew(v.Selectors))
	}
	if n := resp.GetLeftOff(); n > 0 {
		defer fmt.Fprintf(c.ErrOrStderr(), "%d addresses more were left off; name a pattern or an endpoint\n", n)
	}
	if len(views) == 0 && req.Pattern == "" && req.Endpoint == "" {
		defer fmt.Fprintln(c.ErrOrStderr(), "no endpoint has learnt a name: names are learnt from questions that its rules for DNS let through")
	}
	return show(c, views, t.write)
}

// fewShown is how many of a list a table shows; -o json shows all.
const fewShown = 4

func joinFew(list []string) string {
	if len(list) <= fewShown+1 {
		return joinList(list)
	}
	return fmt.Sprintf("%s,+%d", joinList(list[:fewShown]), len(list)-fewShown)
}

func viewNames(list []*agentv1.LearntName) []nameView {
	byName := map[string]*nameView{}
	latest := map[string]int64{}
	for _, n := range list {
		v := byName[n.GetName()]
		if v == nil {
			v = &nameView{Name: n.GetName(), Addresses: []string{}, Endpoints: []string{}, Source: "connection", Selectors: notNil(n.GetSelectors()), Entries: []addressView{}}
			byName[n.GetName()] = v
		}
		a := addressView{Endpoint: n.GetEndpoint(), Address: n.GetAddress(), Expires: utc(n.GetExpires()), Source: "lookup", Identity: n.GetIdentity()}
		if n.GetKept() {
			a.Source = "connection"
		} else {
			v.Source = "lookup"
		}
		v.Entries = append(v.Entries, a)
		if !slices.Contains(v.Addresses, a.Address) {
			v.Addresses = append(v.Addresses, a.Address)
		}
		if !slices.Contains(v.Endpoints, a.Endpoint) {
			v.Endpoints = append(v.Endpoints, a.Endpoint)
		}
		latest[v.Name] = max(latest[v.Name], n.GetExpires())
		v.Expires = utc(latest[v.Name])
	}
	views := make([]nameView, 0, len(byName))
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		views = append(views, *byName[name])
	}
	return views
}

func utc(unix int64) string { return time.Unix(unix, 0).UTC().Format(time.RFC3339) }

// learntNames lists the names that are known.
func learntNames(ctx context.Context, agent *agentConn) ([]string, error) {
	resp, err := agent.ListNames(ctx, &agentv1.ListNamesRequest{})
	var names []string
	for _, v := range viewNames(resp.GetNames()) {
		names = append(names, v.Name)
	}
	return names, err
}

func newFQDNSelectors() *cobra.Command {
	c := &cobra.Command{
		Use:     "selectors",
		Aliases: []string{"selector"},
		Short:   "List the selectors of names that rules have, and what each picks",
		Long: `List every toFQDNs selector in force, once, with how many of the names that
endpoints have asked for it picks, and of how many addresses.`,
		Example: `  headgate fqdn selectors -o json`,
		Args:    wantArgs(),
		RunE:    runFQDNSelectors,
	}
	addSocket(c)
	addOutput(c)
	return c
}

// nameSelectorView is a selector as JSON and YAML show it.
type nameSelectorView struct {
	Selector  string `json:"selector"`
	Names     uint64 `json:"names"`
	Addresses uint64 `json:"addresses"`
}

func runFQDNSelectors(c *cobra.Command, _ []string) error {
	var list []*agentv1.NameSelector
	err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
		resp, err := agent.ListNames(ctx, &agentv1.ListNamesRequest{})
		list = resp.GetSelectors()
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(list, func(a, b *agentv1.NameSelector) int { return cmp.Compare(a.GetSelector(), b.GetSelector()) })
	views := make([]nameSelectorView, 0, len(list))
	t := newTable("SELECTOR", "NAMES", "ADDRESSES")
	for _, s := range list {
		views = append(views, nameSelectorView{s.GetSelector(), s.GetNames(), s.GetAddresses()})
		t.row(s.GetSelector(), strconv.FormatUint(s.GetNames(), 10), strconv.FormatUint(s.GetAddresses(), 10))
	}
	return show(c, views, t.write)
}
