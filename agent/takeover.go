package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
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
	if advice := redirect.SourceValidation(); advice != "" {
		a.log.Warn("the reverse path filter is in the way", "effect", advice)
	}
	ifindex, err := endpoint.EnsureHostDevice(gateways)
	if err != nil {
		return err
	}
	opts := bpf.Options{
		// Who has its share of connections has it of what they need besides.
		MaxConnections: a.connections(), MaxServiced: a.connections(), MaxTranslations: a.connections(),
		GatewayMAC: endpoint.GatewayMAC(), HostIfindex: ifindex, Masquerade: a.cfg.Masquerade}
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
	if n := a.connectionsLimit(); a.cfg.MaxConnections > 0 && n != a.cfg.MaxConnections {
		return fmt.Errorf("the running datapath has room for %d connections, and open ones are in it: start with --max-connections %d or without, or end them with 'headgate cleanup' first", n, n)
	}
	if err := a.gate.AttachHost(ifindex); err != nil {
		return err
	}
	a.startInjector()
	return nil
}

// startInjector makes the device by which the proxy's datagrams reach workloads past the host's
// stack. Without it they go through that: slower.
func (a *Agent) startInjector() {
	ifindex, err := redirect.EnsureInjector()
	if err == nil {
		if err = a.gate.AttachInjector(ifindex); err == nil {
			err = redirect.RaiseInjector()
		}
		if err != nil {
			err = errors.Join(err, redirect.RemoveInjector()) // nobody writes to it unjudged
		}
	}
	if err != nil {
		a.log.Info("datagrams of the proxy go by the host's stack", "reason", err)
	}
}

func (a *Agent) startBackend(ctx context.Context) error {
	files, err := a.copyMaps()
	if err != nil {
		return err
	}
	a.backend, err = newBackends(a.cfg.Backends, func(index int) BackendConfig {
		return BackendConfig{
			RunDir: a.cfg.RunDir, Layout: bpf.Layout, Maps: files, NamesDir: filepath.Join(a.cfg.StateDir, namesDir), Logger: a.log, Records: a.seeing.proxyRecords,
			OnPort: func(port redirect.ProxyPort) { a.onPort(index, port) }, OnReady: a.tryAgain, Identify: a.identify,
		}
	})
	if err != nil {
		return err
	}
	if err := a.measureBackends(); err != nil {
		return err
	}
	for p, perRoute := range a.backend.perRoute {
		if perRoute { // what an agent with another backend has left
			if err := a.gate.SetRoute(bpf.AnyRoute(p), 0); err != nil {
				return err
			}
		}
	}
	a.ports = newPorts(
		func(p policy.Protocol, port uint16) error { return a.gate.SetRoute(bpf.AnyRoute(p), port) },
		func(err error) { a.control.note("proxy-port", err, true) },
	)
	a.control.wg.Go(func() { a.ports.run(ctx, a.tryAgain) })
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

// copyMaps makes descriptors of the maps that a proxy needs.
func (a *Agent) copyMaps() ([]*os.File, error) {
	var files []*os.File
	for _, m := range slices.Concat(a.gate.ConntrackMaps(), a.gate.NameMaps(), a.gate.QuestionMaps()) {
		fd, err := unix.FcntlInt(uintptr(m.FD()), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("copy map descriptor: %w", err)
		}
		files = append(files, os.NewFile(uintptr(fd), m.String()))
	}
	for _, open := range []func() (*os.File, error){a.gate.EndpointsToRead, a.gate.SubjectsToRead} {
		f, err := open()
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

// onPort opens and closes the redirected ports of a backend as its proxy comes and goes.
func (a *Agent) onPort(index int, port redirect.ProxyPort) {
	a.port.Store(uint32(port))
	if a.ports.tell(a.backend.of(index), uint16(port)) == nil { // else it is noted
		a.log.Info("proxy port", "port", port)
	}
	a.tryAgain()
}

// tryAgain wakes the controller that puts in force what could not be: a proxy is back.
func (a *Agent) tryAgain() {
	select {
	case a.retry <- struct{}{}:
	default:
	}
}

// identify says whose the ends of a connection are, as the gate judged it.
func (a *Agent) identify(source, destination netip.AddrPort) (from, to policy.Identity) {
	if c, ok := a.gate.Conntrack().Lookup(source, destination); ok {
		return c.SourceIdentity, c.DestinationIdentity
	}
	if a.engine == nil { // Envoy was there before us
		return 0, 0
	}
	return a.engine.IdentityOf(source.Addr()), a.engine.IdentityOf(destination.Addr())
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
	a.connector.GoOnFrom(state.LastEndpoint)
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
