package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// startGate loads the datapath, over the maps of the one that is attached, if any.
func (a *Agent) startGate(gateways []netip.Addr) error {
	if err := redirect.InstallRules(); err != nil {
		return err
	}
	ifindex, err := endpoint.EnsureHostDevice(gateways)
	if err != nil {
		return err
	}
	opts := bpf.Options{
		MaxConnections: a.connections(),
		GatewayMAC:     endpoint.GatewayMAC(), HostIfindex: ifindex, Masquerade: a.cfg.Masquerade}
	for _, gw := range gateways {
		if gw.Is4() {
			opts.Gateway4 = gw
		} else {
			opts.Gateway6 = gw
		}
	}
	maps, err := bpf.AttachedMaps(ifindex)
	switch {
	case errors.Is(err, bpf.ErrNotAttached):
		a.log.Info("starting a new datapath", "layout", bpf.Layout)
	case err != nil:
		return err
	default:
		defer maps.Close()
		a.log.Info("taking over the running datapath", "layout", bpf.Layout)
	}
	if a.gate, err = bpf.Load(opts, maps); err != nil {
		return err
	}
	return a.gate.AttachHost(ifindex)
}

func (a *Agent) startBackend(ctx context.Context) error {
	var files []*os.File
	for _, m := range a.gate.ConntrackMaps() {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return fmt.Errorf("copy map descriptor: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), m.String()))
	}
	var err error
	a.backend, err = a.cfg.NewBackend(BackendConfig{
		RunDir: a.cfg.RunDir, Layout: bpf.Layout, Maps: files, Logger: a.log, OnPort: a.onPort, Records: a.seeing.proxyRecords,
	})
	if err != nil {
		return err
	}
	a.control.wg.Go(func() {
		if err := a.backend.Run(ctx); err != nil && ctx.Err() == nil {
			a.log.Error("proxy backend ended", "error", err)
		}
	})
	// A proxy that does not come up holds up nothing but its own ports.
	deadline := time.Now().Add(5 * time.Second)
	for a.backend.Status().State == "down" && time.Now().Before(deadline) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// onPort opens and closes redirected ports as the proxy comes and goes.
func (a *Agent) onPort(port redirect.ProxyPort) {
	a.port.Store(uint32(port))
	if err := a.gate.SetRoute(bpf.AnyRoute(policy.ProtocolHTTP), uint16(port)); err != nil {
		a.log.Error("cannot tell the datapath the proxy's port", "port", port, "error", err)
	}
	a.log.Info("proxy port", "port", port)
	select { // what could not be enforced while it was away
	case a.retry <- struct{}{}:
	default:
	}
}

// restore puts in force what is remembered, then replaces the programs.
func (a *Agent) restore(ctx context.Context) error {
	state, err := a.store.load()
	if err != nil {
		return err
	}
	policies, err := policiesOf(state)
	if err != nil {
		return err
	}
	var gone []*endpoint.Endpoint
	state.Endpoints, gone = a.connector.Restore(state.Endpoints)
	for _, e := range gone {
		a.log.Info("forgetting an endpoint whose network namespace is gone", "endpoint", e.Key())
	}
	if err := a.connector.RemoveOrphans(state.Endpoints); err != nil {
		return err
	}
	err = a.engine.Start(ctx, state, policies)
	if err != nil && !errors.Is(err, redirect.ErrNotReady) {
		return fmt.Errorf("put remembered policy in force: %w", err)
	}
	if err := a.connector.Attach(); err != nil {
		return err
	}
	a.log.Info("policy is in force", "endpoints", len(state.Endpoints), "policies", len(policies))
	return nil
}
