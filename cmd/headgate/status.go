package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// statusInterval is how often --wait asks again.
const statusInterval = 250 * time.Millisecond

// statusPatience is how long the last answer of --wait may take past its end.
const statusPatience = 5 * time.Second

func newStatusCommand() *cobra.Command {
	var wait bool
	var duration time.Duration
	c := &cobra.Command{
		Use:   "status",
		Short: "Show whether every part of headgate on this node is well",
		Long: `Show the parts of headgate on this node, a line each. The exit code is 0 when
every part is well and 1 when one is not, or when there is no agent; stderr then
says which. With --wait the command returns when all is well, an agent that is
still starting included.`,
		Example: `  headgate status
  headgate status --wait --wait-duration 30s
  headgate status -o json`,
		Args: wantArgs(),
		RunE: func(c *cobra.Command, _ []string) error {
			if !wait {
				return statusOnce(c)
			}
			return statusWait(c, duration)
		},
	}
	c.Flags().BoolVar(&wait, "wait", false, "return when every part is well")
	c.Flags().DurationVar(&duration, "wait-duration", time.Minute, "give up waiting after this long")
	addSocket(c)
	addOutput(c)
	return c
}

func statusOnce(c *cobra.Command) error {
	s, err := askStatus(c, callTimeout)
	if err != nil {
		return err
	}
	if err := showStatus(c, s); err != nil {
		return err
	}
	return unwell(s)
}

// statusWait asks until all is well and shows the last answer.
func statusWait(c *cobra.Command, duration time.Duration) error {
	deadline := time.Now().Add(duration)
	p := startProgress(c.ErrOrStderr(), "waiting for the agent")
	var s *agentv1.StatusResponse
	var err error
	for {
		s, err = askStatus(c, max(time.Until(deadline), statusPatience))
		if err == nil {
			err = unwell(s)
		}
		if err == nil || c.Context().Err() != nil || time.Now().Add(statusInterval).After(deadline) {
			break
		}
		p.say(err.Error())
		select {
		case <-c.Context().Done():
		case <-time.After(statusInterval):
		}
	}
	p.end()
	if s != nil {
		if err := showStatus(c, s); err != nil {
			return err
		}
	}
	if err != nil {
		return fmt.Errorf("after %s: %w", duration, err)
	}
	return nil
}

func askStatus(c *cobra.Command, timeout time.Duration) (*agentv1.StatusResponse, error) {
	var s *agentv1.StatusResponse
	err := call(c, min(timeout, callTimeout), "", func(ctx context.Context, agent *agentConn) (err error) {
		s, err = agent.Status(ctx, &agentv1.StatusRequest{})
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// unwell names what is not well. The agent decides whether something is.
func unwell(s *agentv1.StatusResponse) error {
	if s.GetOk() {
		return nil
	}
	var sick, counted []string
	for _, p := range s.GetParts() {
		switch name := strings.ToLower(p.GetName()); {
		case p.GetOk():
		case name == "policy" || name == "endpoints" || name == "controllers": // said better below
			counted = append(counted, named(name, p.GetDetail()))
		default:
			sick = append(sick, named(name, p.GetDetail()))
		}
	}
	for _, k := range s.GetControllers() {
		if !k.GetOk() {
			sick = append(sick, named("controller "+k.GetName(), k.GetError()))
		}
	}
	if ready, all := readyEndpoints(s); ready < all {
		sick = append(sick, fmt.Sprintf("%d of %d endpoints are not ready ('headgate endpoint list' shows which)", all-ready, all))
	}
	if s.GetPolicyEnforced() < s.GetPolicyRevision() {
		sick = append(sick, fmt.Sprintf("policy revision %d is not yet in force", s.GetPolicyRevision()))
	}
	if len(sick) == 0 {
		sick = counted
	}
	if len(sick) == 0 {
		return errors.New("not well, and the agent does not say why; see its log")
	}
	return fmt.Errorf("not well: %s; see the agent's log", strings.Join(sick, "; "))
}

func named(name, detail string) string {
	if detail == "" {
		return name
	}
	return fmt.Sprintf("%s (%s)", name, detail)
}
