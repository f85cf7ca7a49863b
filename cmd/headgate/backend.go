package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/headgate/headgate/agent"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/proxy"
	"github.com/headgate/headgate/xds"
)

// backends are the proxies of an agent. Headgate's own is always there: it carries what
// Envoy does not understand, and collects connections while no agent is there.
func (f *agentFlags) backends() ([]agent.BackendFactory, error) {
	own := agent.BackendFactory{New: newGoBackend(f.proxyUID, &f.proxy)}
	switch f.backend {
	case "go":
		alone := func(cfg agent.BackendConfig) (agent.Backend, error) {
			// One that an agent with other settings has left. Only now are we the only agent.
			if err := xds.Terminate(context.Background(), cfg.RunDir); err != nil {
				return nil, err
			}
			return own.New(cfg)
		}
		return []agent.BackendFactory{{New: alone}}, nil
	case "envoy":
		return []agent.BackendFactory{{New: f.newEnvoyBackend, PerRoute: true, MaxRoutes: f.envoy.maxListeners}, own}, nil
	}
	return nil, usagef("--backend %q: write go or envoy", f.backend)
}

// newGoBackend makes the agent's side of headgate's own proxy.
func newGoBackend(uid uint32, limits *proxyLimits) func(agent.BackendConfig) (agent.Backend, error) {
	return func(cfg agent.BackendConfig) (agent.Backend, error) {
		names, err := openNamesDir(cfg.NamesDir, uid)
		if err != nil {
			return nil, err
		}
		return proxy.NewBackend(proxy.BackendConfig{
			RunDir: cfg.RunDir, Version: buildVersion().String(), Layout: layoutWith(cfg.Layout, limits), Logger: cfg.Logger,
			Arguments: append([]string{"headgate", "proxy", "--run-dir", cfg.RunDir}, limits.arguments()...),
			OnPort:    cfg.OnPort, Sink: cfg.Records,
			MapFiles: append(slices.Clone(cfg.Maps), names), UID: uid, GID: uid,
		})
	}
}

// openNamesDir opens the directory in which the proxy keeps what it learns of names, for
// its user: the directories above are closed to that.
func openNamesDir(path string, uid uint32) (*os.File, error) {
	if uid == 0 {
		uid = proxy.DefaultUser
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for names: %w", err)
	}
	if err := os.Chown(path, int(uid), int(uid)); err != nil {
		return nil, fmt.Errorf("give the directory for names to the proxy's user: %w", err)
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open directory for names: %w", err)
	}
	return dir, nil
}

func (f *agentFlags) newEnvoyBackend(cfg agent.BackendConfig) (agent.Backend, error) {
	c := xds.Config{
		Dir: xds.Dir(cfg.RunDir), Path: f.envoyPath, Holder: []string{"headgate", holdName, "--"}, Workers: f.envoyWorkers, NodeID: f.nodeName,
		UID: f.proxyUID, Logger: cfg.Logger, OnStream: cfg.OnReady, Identify: cfg.Identify,
		Records: func(records []observe.Record) { cfg.Records(observe.Decoded(records), 0) },
	}
	if c.UID == 0 {
		c.UID = proxy.DefaultUser
	}
	f.envoy.settle(&c)
	return xds.New(c)
}

// holdName is the command that an Envoy is started by.
const holdName = "hold-envoy"

func newHoldCommand() *cobra.Command {
	return &cobra.Command{
		Use: holdName + " -- ARGUMENT...", Short: "Start Envoy and wait for its end, on behalf of the agent", Hidden: true,
		Example: "  headgate " + holdName + " -- --config-yaml '{}'",
		RunE:    func(_ *cobra.Command, args []string) error { return xds.Hold(args) },
	}
}
