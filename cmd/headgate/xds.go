package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newXDSCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "xds",
		Short: "Show what Envoy is told, and what it made of it",
		Long: `With --backend envoy the agent feeds a stock Envoy by xDS, over a socket in its run
directory. These commands show what is served there, and print what an Envoy that
somebody else runs must be started with.`,
	}
	c.AddCommand(newXDSDump(), newXDSBootstrap())
	return c
}

func newXDSDump() *cobra.Command {
	var kind string
	c := &cobra.Command{
		Use:   "dump",
		Short: "Show the resources that are served, and the clients",
		Long: `Show every resource that is handed out, with its version and what Envoy made of it,
and every client with the nonces of what it was sent and has acknowledged. What Envoy
refused last is told in its own words. Secrets are masked. The resources themselves
are in JSON and YAML.`,
		Example: `  headgate xds dump
  headgate xds dump --type listener -o yaml
  headgate xds dump -o json | jq '.clients[].refusal'`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error { return runXDSDump(c, kind) },
	}
	c.Flags().StringVar(&kind, "type", "", "only resources of this type: listener, cluster, routeconfiguration, clusterloadassignment, or a type URL")
	addSocket(c)
	addOutput(c)
	return c
}

// xdsView is the answer as JSON and YAML show it.
type xdsView struct {
	Resources []xdsResource `json:"resources"`
	Clients   []xdsClient   `json:"clients"`
}

type xdsResource struct {
	Type     string          `json:"type"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	State    string          `json:"state"`
	Refusal  string          `json:"refusal,omitempty"`
	Resource json.RawMessage `json:"resource"`
	size     uint32
}

type xdsClient struct {
	Node      string    `json:"node"`
	Agent     string    `json:"agent"`
	Role      string    `json:"role"`
	Variant   string    `json:"variant"`
	PID       int32     `json:"pid"`
	UID       uint32    `json:"uid"`
	Since     string    `json:"since"`
	Types     []xdsType `json:"types"`
	Refusal   string    `json:"refusal,omitempty"`
	RefusedAt string    `json:"refusedAt,omitempty"`
}

type xdsType struct {
	Type      string `json:"type"`
	Sent      string `json:"sentNonce"`
	Acked     string `json:"ackedNonce"`
	Refused   string `json:"refusedNonce"`
	Responses uint64 `json:"responses"`
	Refusals  uint64 `json:"refusals"`
}

func runXDSDump(c *cobra.Command, kind string) error {
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	v := xdsView{Resources: []xdsResource{}, Clients: []xdsClient{}}
	err = call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) error {
		stream, err := agent.DumpXDS(ctx, &agentv1.DumpXDSRequest{Type: kind, Bodies: format != formatTable})
		if err != nil {
			return err
		}
		for {
			part, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			v.add(part)
		}
	})
	if err != nil {
		return err
	}
	return show(c, v, v.write)
}

func (v *xdsView) add(part *agentv1.DumpXDSResponse) {
	for _, r := range part.GetResources() {
		x := xdsResource{Type: r.GetType(), Name: r.GetName(), Version: r.GetVersion(), State: r.GetState(), Refusal: r.GetRefusal(), Resource: r.GetBody(), size: r.GetSize()}
		if len(x.Resource) == 0 {
			x.Resource = json.RawMessage("null")
		}
		v.Resources = append(v.Resources, x)
	}
	for _, k := range part.GetClients() {
		x := xdsClient{
			Node: k.GetNode(), Agent: k.GetAgent(), Role: k.GetRole(), Variant: k.GetVariant(), PID: k.GetPid(), UID: k.GetUid(),
			Since: moment(k.GetSinceNs()), Refusal: k.GetRefusal(), RefusedAt: moment(k.GetRefusedNs()), Types: []xdsType{},
		}
		for _, t := range k.GetTypes() {
			x.Types = append(x.Types, xdsType{t.GetType(), t.GetSent(), t.GetAcked(), t.GetRefused(), t.GetResponses(), t.GetRefusals()})
		}
		v.Clients = append(v.Clients, x)
	}
}

func moment(ns int64) string {
	if ns == 0 {
		return ""
	}
	return time.Unix(0, ns).UTC().Format(time.RFC3339Nano)
}

func (v *xdsView) write(w io.Writer) error {
	t := newTable("TYPE", "NAME", "VERSION", "STATE", "BYTES", "REFUSAL")
	for _, r := range v.Resources {
		t.row(lastWord(r.Type), r.Name, r.Version, r.State, strconv.Itoa(int(r.size)), r.Refusal)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return err
	}
	t = newTable("CLIENT", "AGENT", "ROLE", "VARIANT", "PID", "UID", "TYPE", "SENT", "ACKED", "REFUSED", "RESPONSES", "REFUSALS")
	for _, k := range v.Clients {
		who := []string{k.Node, k.Agent, k.Role, k.Variant, strconv.Itoa(int(k.PID)), strconv.FormatUint(uint64(k.UID), 10)}
		for _, s := range k.Types {
			t.row(append(who, lastWord(s.Type), s.Sent, s.Acked, s.Refused, strconv.FormatUint(s.Responses, 10), strconv.FormatUint(s.Refusals, 10))...)
		}
		if len(k.Types) == 0 {
			t.row(append(who, "", "", "", "", "0", "0")...)
		}
	}
	if err := t.write(w); err != nil {
		return err
	}
	for _, k := range v.Clients {
		if k.Refusal == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "\n%s refused at %s: %s\n", clean(k.Node), k.RefusedAt, cleanText(k.Refusal)); err != nil {
			return err
		}
	}
	return nil
}

// lastWord is the last part of a type URL.
func lastWord(typeURL string) string {
	for i := len(typeURL) - 1; i >= 0; i-- {
		if typeURL[i] == '.' {
			return typeURL[i+1:]
		}
	}
	return typeURL
}
