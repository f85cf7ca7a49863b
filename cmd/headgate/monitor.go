package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/observe"
)

func newMonitorCommand() *cobra.Command {
	var types, endpoints, reasons []string
	c := &cobra.Command{
		Use:   "monitor",
		Short: "Show what the kernel tells, raw and as it happens",
		Long: `Show every drop and every verdict on a new connection as the datapath tells it, with
the numbers it knows things by. It goes on until it is interrupted. 'headgate
observe' shows the same with labels, and requests besides.

-o json is one object a line.`,
		Example: `  headgate monitor
  headgate monitor --type drop --endpoint shop/db
  headgate monitor --reason POLICY_DENIED -o json`,
		Args:              wantArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			req, err := monitorRequest(types, endpoints, reasons)
			if err != nil {
				return err
			}
			return runMonitor(c, req)
		},
	}
	c.Flags().StringArrayVar(&types, "type", nil, "drop or verdict; repeatable")
	c.Flags().StringArrayVar(&endpoints, "endpoint", nil, "events of this endpoint; repeatable")
	c.Flags().StringArrayVar(&reasons, "reason", nil, "drops for this reason, a name or a number; repeatable")
	completeWords(c, "type", monitorTypes()...)
	mustRegister(c.RegisterFlagCompletionFunc("endpoint", completeAll(endpointNames)))
	addSocket(c)
	c.Flags().StringP("output", "o", formatTable, "output format: table or json")
	completeWords(c, "output", formatTable, formatJSON)
	return c
}

func monitorTypes() []string { return []string{"drop", "verdict"} }

func monitorRequest(types, endpoints, reasons []string) (*agentv1.MonitorRequest, error) {
	req := &agentv1.MonitorRequest{Types: types}
	for _, t := range types {
		if !slices.Contains(monitorTypes(), t) {
			return nil, usagef("--type %q: write %s", t, strings.Join(monitorTypes(), " or "))
		}
	}
	for _, e := range endpoints {
		namespace, name, err := splitName(e)
		if err != nil {
			return nil, err
		}
		req.Endpoints = append(req.Endpoints, namespace+"/"+name)
	}
	for _, s := range reasons {
		r, ok := observe.ParseDropReason(s)
		if !ok {
			return nil, usagef("--reason %q is no reason of drops: write one such as POLICY_DENIED, or its number", s)
		}
		req.Reasons = append(req.Reasons, uint32(r))
	}
	return req, nil
}

// monitorView is an event as JSON shows it.
type monitorView struct {
	Time                string `json:"time"`
	Type                string `json:"type"`
	Verdict             string `json:"verdict,omitempty"`
	Reason              string `json:"reason,omitempty"`
	ReasonCode          uint32 `json:"reasonCode,omitempty"`
	Direction           string `json:"direction,omitempty"`
	Protocol            string `json:"protocol,omitempty"`
	Flags               string `json:"flags,omitempty"`
	Source              string `json:"source,omitempty"`
	Destination         string `json:"destination,omitempty"`
	SourceIdentity      uint32 `json:"sourceIdentity,omitempty"`
	DestinationIdentity uint32 `json:"destinationIdentity,omitempty"`
	SourceEndpoint      string `json:"sourceEndpoint,omitempty"`
	DestinationEndpoint string `json:"destinationEndpoint,omitempty"`
	SourceMAC           string `json:"sourceMac,omitempty"`
	DestinationMAC      string `json:"destinationMac,omitempty"`
	Ifindex             uint32 `json:"ifindex,omitempty"`
	Length              uint32 `json:"length,omitempty"`
	Rule                string `json:"rule,omitempty"`
	Set                 string `json:"set,omitempty"`
	Lost                uint64 `json:"lost,omitempty"`
}

func viewMonitor(e *agentv1.MonitorEvent) monitorView {
	return monitorView{
		Time: time.Unix(0, e.GetTimeNs()).UTC().Format(time.RFC3339Nano), Type: e.GetType(), Verdict: e.GetVerdict(), Reason: e.GetReason(),
		ReasonCode: e.GetReasonCode(), Direction: e.GetDirection(), Protocol: e.GetProtocol(), Flags: e.GetFlags(), Source: e.GetSource(),
		Destination: e.GetDestination(), SourceIdentity: e.GetSourceIdentity(), DestinationIdentity: e.GetDestinationIdentity(),
		SourceEndpoint: e.GetSourceEndpoint(), DestinationEndpoint: e.GetDestinationEndpoint(), SourceMAC: e.GetSourceMac(),
		DestinationMAC: e.GetDestinationMac(), Ifindex: e.GetIfindex(), Length: e.GetLength(), Rule: e.GetRule(), Set: e.GetSet(), Lost: e.GetLost(),
	}
}

// monitorLine is an event on one line.
func monitorLine(e *agentv1.MonitorEvent) string {
	at := time.Unix(0, e.GetTimeNs()).Format("15:04:05.000000")
	if e.GetType() == "lost" {
		return fmt.Sprintf("%s LOST %d events, this reader was too slow", at, e.GetLost())
	}
	words := []string{
		at, e.GetVerdict(), e.GetDirection(), strings.TrimSpace(e.GetProtocol() + " " + e.GetFlags()),
		monitorEnd(e.GetSource(), e.GetSourceEndpoint(), e.GetSourceIdentity()), "->",
		monitorEnd(e.GetDestination(), e.GetDestinationEndpoint(), e.GetDestinationIdentity()),
		fmt.Sprintf("ifindex %d, %d bytes", e.GetIfindex(), e.GetLength()),
	}
	if e.GetType() == "drop" {
		words = append(words, fmt.Sprintf("reason %d %s", e.GetReasonCode(), e.GetReason()))
	}
	if e.GetRule() != "" {
		words = append(words, "rule "+e.GetRule())
	}
	if e.GetSet() != "" {
		words = append(words, "set "+e.GetSet())
	}
	return clean(strings.Join(words, " "))
}

func monitorEnd(addr, endpoint string, identity uint32) string {
	return strings.TrimSpace(fmt.Sprintf("%s (%s)", addr, strings.TrimSpace(fmt.Sprintf("%s %d", endpoint, identity))))
}

func runMonitor(c *cobra.Command, req *agentv1.MonitorRequest) error {
	format, err := c.Flags().GetString("output")
	if err != nil {
		return err
	}
	if format != formatTable && format != formatJSON {
		return usagef("unknown output format %q: write table or json", format)
	}
	agent, err := connect(c)
	if err != nil {
		return err
	}
	defer agent.Close()
	ctx := c.Context()
	stream, err := agent.Monitor(ctx, req)
	out := bufio.NewWriter(c.OutOrStdout())
	for err == nil {
		var e *agentv1.MonitorEvent
		if e, err = stream.Recv(); err != nil {
			break
		}
		if err = writeMonitor(out, format, e); err == nil {
			err = out.Flush()
		}
	}
	if errors.Is(err, io.EOF) || ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return explain(agent.socket, err, hintEndpoints)
}

func writeMonitor(w io.Writer, format string, e *agentv1.MonitorEvent) error {
	if format == formatTable {
		_, err := fmt.Fprintln(w, monitorLine(e))
		return err
	}
	text, err := encodeJSON(viewMonitor(e))
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, text); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, line.String())
	return err
}
