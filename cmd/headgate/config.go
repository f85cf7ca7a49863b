package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

func newConfigCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "config",
		Short: "Show and change settings of the running agent",
		Long: `Settings that change while the agent runs. What is set is remembered, and wins
over the flags of the next start.

  enforcement       default, always or never: when policy is on
  audit             on: nothing is denied, what would be is reported as AUDIT
  reset-on-revoke   on: a TCP connection that policy ends is reset at both ends
  host-firewall     off, audit or enforce: policies with nodeSelector`,
		Example: `  headgate config get
  headgate config set audit=on
  headgate config set host-firewall=enforce --for 2m
  headgate config confirm`,
	}
	c.AddCommand(newConfigGet(), newConfigSet(), newConfigConfirm())
	return c
}

func newConfigGet() *cobra.Command {
	c := &cobra.Command{
		Use:               "get [NAME]",
		Short:             "Show the settings",
		Example:           "  headgate config get\n  headgate config get enforcement -o json",
		Args:              atMostOne("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			return runConfig(c, args, func(ctx context.Context, agent *agentConn) (*agentv1.ConfigResponse, error) {
				return agent.GetConfig(ctx, &agentv1.GetConfigRequest{})
			})
		},
	}
	addSocket(c)
	addOutput(c)
	return c
}

func newConfigSet() *cobra.Command {
	var trial time.Duration
	c := &cobra.Command{
		Use:   "set NAME=VALUE",
		Short: "Change a setting, in force when it returns",
		Long: `Change a setting. It is in force, on open connections too, when the command returns.

With --for the setting falls back after that time unless it is confirmed: whoever
locked himself out by it cannot. The host firewall falls back to audit.`,
		Example:           "  headgate config set enforcement=always\n  headgate config set host-firewall=enforce --for 2m",
		Args:              wantArgs("NAME=VALUE"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			name, value, found := strings.Cut(args[0], "=")
			if !found {
				return usagef("%q: write NAME=VALUE, such as audit=on", args[0])
			}
			if trial < 0 {
				return usagef("--for %s: write a time, such as 2m", trial)
			}
			return runConfig(c, []string{name}, func(ctx context.Context, agent *agentConn) (*agentv1.ConfigResponse, error) {
				return agent.SetConfig(ctx, &agentv1.SetConfigRequest{Name: name, Value: value, ForNs: int64(trial)})
			})
		},
	}
	c.Flags().DurationVar(&trial, "for", 0, "fall back after this long, unless confirmed")
	addSocket(c)
	addOutput(c)
	return c
}

func newConfigConfirm() *cobra.Command {
	c := &cobra.Command{
		Use:               "confirm",
		Short:             "Keep what was set with --for",
		Example:           "  headgate config confirm",
		Args:              wantArgs(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			var resp *agentv1.ConfirmConfigResponse
			err := call(c, callTimeout, "", func(ctx context.Context, agent *agentConn) (err error) {
				resp, err = agent.ConfirmConfig(ctx, &agentv1.ConfirmConfigRequest{})
				return err
			})
			if err != nil {
				return err
			}
			if !resp.GetConfirmed() {
				return fmt.Errorf("nothing is on trial: it may have fallen back already; see 'headgate config get'")
			}
			_, err = fmt.Fprintln(c.OutOrStdout(), "confirmed")
			return err
		},
	}
	addSocket(c)
	return c
}

// settingView is a setting as JSON and YAML show it.
type settingView struct {
	Name     string   `json:"name"`
	Value    string   `json:"value"`
	Flag     string   `json:"flag"`
	Values   []string `json:"values"`
	Fallback string   `json:"fallback"`
	Until    string   `json:"until"`
}

func runConfig(c *cobra.Command, args []string, do func(context.Context, *agentConn) (*agentv1.ConfigResponse, error)) error {
	var resp *agentv1.ConfigResponse
	err := call(c, waitTimeout, "", func(ctx context.Context, agent *agentConn) (err error) {
		resp, err = do(ctx, agent)
		return err
	})
	if err != nil {
		return err
	}
	views := []settingView{}
	t := newTable("NAME", "VALUE", "FLAG", "MAY BE", "FALLS BACK")
	for _, s := range resp.GetSettings() {
		if len(args) == 1 && args[0] != s.GetName() {
			continue
		}
		v := settingView{Name: s.GetName(), Value: s.GetValue(), Flag: s.GetFlag(), Values: s.GetValues(), Fallback: s.GetFallback()}
		back := ""
		if s.GetUntilNs() != 0 {
			until := time.Unix(0, s.GetUntilNs())
			v.Until = until.UTC().Format(time.RFC3339)
			back = fmt.Sprintf("to %s at %s, unless confirmed", v.Fallback, until.UTC().Format("15:04:05 MST"))
		}
		views = append(views, v)
		t.row(v.Name, v.Value, v.Flag, strings.Join(v.Values, ", "), back)
	}
	if len(args) == 1 && len(views) == 0 {
		return usagef("there is no setting %q; see 'headgate config get'", args[0])
	}
	return show(c, views, func(w io.Writer) error { return t.write(w) })
}
