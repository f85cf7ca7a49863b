package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

const (
	storyTimeout = 2 * time.Minute
	// flowsTimeout is how long flows may take to be seen.
	flowsTimeout = 5 * time.Second
	flowsAsked   = "200"
)

// story is one telling.
type story struct {
	options
	*world
	screen *screen
	wanted []sighting
}

// allegiance is the org of a ship or station.
func allegiance(name string) string {
	if name == "xwing" {
		return "alliance"
	}
	return "empire"
}

// runStory makes the world, tells the story in it and removes it, whatever
// happens in between.
func runStory(ctx context.Context, args []string) (err error) {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, storyTimeout)
	defer cancel()
	w, err := newWorld(o.headgate)
	s := &story{options: o, world: w, screen: newScreen(os.Stdout)}
	told := false
	defer func() {
		if w == nil || told && o.keep {
			return
		}
		if clean := w.teardown(); clean != nil {
			err = errors.Join(err, clean)
		}
	}()
	if err != nil {
		return err
	}
	if err := s.tell(ctx); ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	} else if err != nil {
		return fmt.Errorf("%w\nthe end of the agent's log:\n%s", err, s.tail("agent"))
	}
	told = true
	if o.keep {
		s.handOver()
	}
	return s.end()
}

func (s *story) end() error {
	if s.screen.failed > 0 {
		return fmt.Errorf("%d of %d verdicts were not as expected", s.screen.failed, s.screen.failed+s.screen.passed)
	}
	s.screen.title(fmt.Sprintf("All %d verdicts as expected", s.screen.passed))
	return nil
}

// tell tells it, as long as the agent lives.
func (s *story) tell(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	err := s.tellAll(ctx, func() { cancel(errors.New("the agent ended")) })
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (s *story) tellAll(ctx context.Context, agentEnded func()) error {
	if err := s.begin(ctx, agentEnded); err != nil {
		return err
	}
	for i, scene := range plot() {
		s.screen.title(fmt.Sprintf("%d. %s", i+1, scene.title))
		if err := s.play(ctx, scene); err != nil {
			return err
		}
	}
	s.screen.title("4. What was seen")
	return s.review(ctx)
}

// begin starts the agent and the workloads.
func (s *story) begin(ctx context.Context, agentEnded func()) error {
	s.screen.title("A node, a Death Star and two ships")
	s.screen.command("$", "export DEMO="+s.dir)
	s.screen.command("$", "export HEADGATE_SOCKET=$DEMO/run/headgate.sock")
	s.screen.command("$", "headgate "+s.short(strings.Join(s.agentArgs(), " "))+" &")
	if err := s.startAgent(agentEnded); err != nil {
		return err
	}
	if _, err := s.headgateShown(ctx, "status", "--wait", "--wait-duration", "30s"); err != nil {
		return err
	}
	if err := s.launch(ctx, s.self); err != nil {
		return err
	}
	for _, name := range namespaces()[1:] {
		_, err := s.headgateShown(ctx, "endpoint", "add", name, "--netns", s.netns(name),
			"--label", "org="+allegiance(name), "--label", "class="+name)
		if err != nil {
			return err
		}
	}
	if _, err := s.headgateShown(ctx, "endpoint", "list"); err != nil {
		return err
	}
	_, err := s.headgateShown(ctx, "service", "add", "deathstar", "--vip", "10.96.0.10:80/TCP", "--vip", "[fd00:96::10]:80/TCP",
		"--selector", "org=empire", "--selector", "class=deathstar")
	if err != nil {
		return err
	}
	return s.tellNames()
}

func (s *story) play(ctx context.Context, scene scene) error {
	if scene.policy != "" {
		if _, err := s.headgateShown(ctx, "policy", "apply", "-f", filepath.Join(s.policies, scene.policy)); err != nil {
			return err
		}
	}
	for _, a := range scene.attempts {
		began := time.Now()
		if err := s.try(ctx, a); err != nil {
			return err
		}
		s.wanted = append(s.wanted, scene.sightings(a, began, time.Now())...)
	}
	return nil
}

// review shows the flows and looks for one of each attempt.
func (s *story) review(ctx context.Context) error {
	if err := s.await(ctx); err != nil {
		return err
	}
	if _, err := s.headgateShown(ctx, "observe", "--last", flowsAsked, "--port", "80"); err != nil {
		return err
	}
	s.screen.command("$", "headgate observe --last "+flowsAsked+" -o json   # verdicts, identities, labels, names, HTTP, latency")
	flows, err := s.flows(ctx)
	if err != nil {
		return err
	}
	taken := map[*flowpb.Flow]bool{}
	for _, w := range s.wanted {
		s.screen.seen(w.String(), w.find(flows, taken))
	}
	return nil
}

// await gives the flows a moment: they are reported, not waited for.
func (s *story) await(ctx context.Context) error {
	for deadline := time.Now().Add(flowsTimeout); ; time.Sleep(100 * time.Millisecond) {
		flows, err := s.flows(ctx)
		if err != nil {
			return err
		}
		missing, taken := 0, map[*flowpb.Flow]bool{}
		for _, w := range s.wanted {
			if w.find(flows, taken) != nil {
				missing++
			}
		}
		if missing == 0 || time.Now().After(deadline) {
			return nil
		}
	}
}

func (s *story) flows(ctx context.Context) ([]*flowpb.Flow, error) {
	out, err := s.headgateRun(ctx, "observe", "--last", flowsAsked, "-o", "json")
	if err != nil {
		return nil, err
	}
	return parseFlows(out)
}
