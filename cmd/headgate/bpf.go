package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// kernelMap is one of the listings under "headgate bpf".
type kernelMap struct {
	command, name string // as people type it, as the agent calls it
	short, long   string
	byEndpoint    bool
}

func kernelMaps() []kernelMap {
	return []kernelMap{
		{"policy", "policy", "List the policy entries in the kernel", `Each entry is what one subject (an identity with its named ports) lets in or
out: for a peer identity, a direction, a protocol and a port. Peer 0 is every
peer. The longest port prefix of the peer's own entries decides; what is not
listed is denied.`, true},
		{"ct", "ct", "List the connections the kernel tracks", `Each entry is a connection that was allowed, with both identities, the route
through the proxy if it has one, and when it expires.`, true},
		{"nat", "nat", "List the node's ports that endpoints' connections hold", `Each entry is a port of the node (for ping: an id) that stands for an endpoint's
towards one remote end. One in state free was left behind by a connection that
ended: the next may have it.`, true},
		{"ipcache", "ipcache", "List which address has which identity", "", false},
		{"endpoint", "endpoints", "List the endpoints as the kernel knows them", "", false},
		{"route", "routes", "List which L7 sets go to which port of the proxy", "", false},
		{"service", "services", "List the services as the kernel knows them", `Each row is a backend of one address of a service, with how many of the slots
of its Maglev table it has: the part of new connections that it gets.`, false},
		{"name", "names", "List the addresses that endpoints know by names", `Each row is an address that an endpoint was told in an answer of the DNS, and the
identity by which rules about names (toFQDNs) judge it. 'headgate fqdn list' has
the names.`, true},
		{"name-rules", "name-rules", "List what rules about names say of such identities", `Each entry is what a table of rules about names says of one identity, for a
protocol and a port. An address whose identity is not listed for an endpoint's
table is judged by its prefix alone.`, true},
		{"device", "devices", "List the node's devices that lead to other networks", `Each row is a device that the gate is on, with the addresses that endpoints'
connections get there.`, false},
		{"node", "node", "List the addresses that the kernel's programs take for this machine's", "", false},
		{"fragment", "fragments", "List the datagrams whose later fragments may follow", `Each row is a datagram in fragments whose first was let through. The later ones
have its ports; what comes before it or over it is dropped.`, false},
		{"drops", "drops", "List dropped packets by reason", "", false},
		{"subject", "subjects", "List whose policy tables there are, and which are closed", `A subject is an identity with its named ports, or this machine. One that is closed
has a table that found no room: everything is denied to it until there is.`, false},
		{"share", "shares", "List what workloads have of the room for connections", "", false},
		{"config", "config", "List the settings that the kernel's programs read", "", false},
		{"open", "open", "List the ports of this machine that no host policy closes", "", false},
		{"events", "events", "Show how many events wait, and how many found no room", "", false},
		{"usage", "usage", "List how full each map is", "", false},
	}
}

func newBPFCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "bpf",
		Short: "List what is in force in the kernel",
		Long: `Show the kernel's own tables, read now and not remembered: what stands here is
what packets meet.`,
		Example: `  headgate bpf policy list shop/db
  headgate bpf ct list -o json`,
	}
	for _, m := range kernelMaps() {
		group := &cobra.Command{Use: m.command, Short: m.short}
		group.AddCommand(newMapList(m))
		c.AddCommand(group)
	}
	return c
}

func newMapList(m kernelMap) *cobra.Command {
	c := &cobra.Command{
		Use:               "list",
		Aliases:           []string{"ls"},
		Short:             m.short,
		Long:              m.long,
		Example:           fmt.Sprintf("  headgate bpf %s list", m.command),
		Args:              wantArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, args []string) error { return runMapList(c, m, args) },
	}
	if m.byEndpoint {
		c.Use = "list [ENDPOINT]"
		c.Example += fmt.Sprintf("\n  headgate bpf %s list shop/db", m.command)
		c.Args = atMostOne("ENDPOINT")
		c.ValidArgsFunction = completeFirst(endpointNames)
	}
	addSocket(c)
	addOutput(c)
	return c
}

func runMapList(c *cobra.Command, m kernelMap, args []string) error {
	req := &agentv1.ListMapRequest{Map: m.name}
	for _, arg := range args {
		namespace, name, err := splitName(arg)
		if err != nil {
			return err
		}
		req.Endpoint = namespace + "/" + name
	}
	var resp *agentv1.ListMapResponse
	err := call(c, callTimeout, hintEndpoints, func(ctx context.Context, agent *agentConn) (err error) {
		resp, err = agent.ListMap(ctx, req)
		return err
	})
	if err != nil {
		return err
	}
	return showMap(c, resp)
}

// showMap lists rows; as JSON each is an object of column and cell.
func showMap(c *cobra.Command, resp *agentv1.ListMapResponse) error {
	keys := make([]string, len(resp.GetColumns()))
	headings := make([]string, len(keys))
	for i, column := range resp.GetColumns() {
		keys[i], headings[i] = lowerCamel(column), clean(strings.ToUpper(column))
	}
	views := make([]map[string]any, 0, len(resp.GetRows()))
	t := newTable(headings...)
	for _, row := range resp.GetRows() {
		view := make(map[string]any, len(keys))
		for i, cell := range row.GetCells() {
			if i < len(keys) {
				view[keys[i]] = cellView(cell, slices.Contains(resp.GetNumbers(), uint32(i)))
			}
		}
		views = append(views, view)
		t.row(row.GetCells()...)
	}
	if capacity := resp.GetCapacity(); capacity > 0 && isTerminal(c.OutOrStdout()) {
		defer fmt.Fprintf(c.ErrOrStderr(), "%d of %d entries in use\n", resp.GetEntries(), capacity)
	}
	return show(c, views, t.write)
}

// cellView is a cell as JSON has it: numbers are numbers.
func cellView(cell string, number bool) any {
	if n, err := strconv.ParseInt(cell, 10, 64); number && err == nil {
		return n
	}
	return cell
}

// lowerCamel turns a heading such as "PEER IDENTITY" into "peerIdentity".
func lowerCamel(heading string) string {
	words := strings.FieldsFunc(strings.ToLower(heading), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r)
	})
	for i, w := range words {
		if i > 0 {
			words[i] = strings.ToUpper(w[:1]) + w[1:]
		}
	}
	return strings.Join(words, "")
}
