package agent

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/vishvananda/netlink"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
)

// startControllers starts what keeps the node as it is wanted.
func (a *Agent) startControllers(ctx context.Context, pools []*endpoint.Pool) {
	a.control.every(ctx, "policy", 2*time.Second, a.retry, a.engine.Retry)
	links, addrs, devices := a.subscribe(ctx)
	a.control.every(ctx, "devices", 30*time.Second, devices, a.syncDevices)
	a.control.every(ctx, "endpoints", 10*time.Second, links, a.connector.Sweep)
	a.control.every(ctx, "host-addresses", 30*time.Second, addrs, func(ctx context.Context) error {
		fixed, err := a.fixedPrefixes(pools)
		if err != nil {
			return err
		}
		return a.engine.SetFixed(ctx, fixed)
	})
	if a.cfg.PolicyDir != "" {
		a.control.every(ctx, "policy-dir", 10*time.Second, a.watchDir(ctx), a.readPolicyDir)
	}
	a.control.wg.Go(func() { a.makeMissingSets(ctx) })
	a.control.every(ctx, "secrets", time.Second, nil, a.engine.CheckSecrets)
	a.control.every(ctx, "config", time.Second, nil, a.engine.EndTrial)
	a.control.every(ctx, "lost-events", time.Second, nil, a.readLost)
	a.control.wg.Go(func() {
		err := a.seeing.events.Run(ctx, func(events []bpf.Event) {
			a.monitors.publish(events)
			records := make([]observe.Record, len(events))
			for i := range events {
				records[i] = recordOf(&events[i], a.engine)
			}
			a.seeing.sink.Take(observe.Decoded(records))
		})
		if err != nil && ctx.Err() == nil {
			a.control.note("events", err, true)
		}
	})
}

func (a *Agent) readLost(context.Context) error {
	n, err := a.gate.Lost()
	if err != nil {
		return err
	}
	if before := a.seeing.lost.Swap(n); n > before && a.seeing.lostKnown.Swap(true) {
		a.seeing.sink.LostInKernel(n - before)
	}
	a.seeing.lostKnown.Store(true)
	return nil
}

// subscribe wakes controllers when the kernel's links and addresses change.
func (a *Agent) subscribe(ctx context.Context) (links, addrs, devices chan struct{}) {
	links, addrs, devices = make(chan struct{}, 1), make(chan struct{}, 1), make(chan struct{}, 1)
	wake := func(c chan struct{}) {
		select {
		case c <- struct{}{}:
		default:
		}
	}
	linkUpdates, addrUpdates := make(chan netlink.LinkUpdate, 64), make(chan netlink.AddrUpdate, 64)
	if err := errors.Join(netlink.LinkSubscribe(linkUpdates, ctx.Done()), netlink.AddrSubscribe(addrUpdates, ctx.Done())); err != nil {
		a.log.Warn("the kernel does not tell of changes; looking now and then instead", "error", err)
		return links, addrs, devices
	}
	a.control.wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-linkUpdates:
				if !ok {
					return
				}
				wake(links)
				wake(devices)
			case _, ok := <-addrUpdates:
				if !ok {
					return
				}
				wake(addrs)
				wake(devices)
			}
		}
	})
	return links, addrs, devices
}

// hostAddresses are this machine's own, without the loopback's.
func hostAddresses() ([]netip.Addr, error) {
	list, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list this machine's addresses: %w", err)
	}
	var out []netip.Addr
	for _, l := range list {
		ip, ok := netip.AddrFromSlice(l.IP)
		if ip = ip.Unmap(); ok && !ip.IsLoopback() && !ip.IsLinkLocalUnicast() {
			out = append(out, ip)
		}
	}
	return out, nil
}

// readPolicyDir makes the policies of the directory exactly what its files say. A
// file that cannot be read leaves everything as it was.
func (a *Agent) readPolicyDir(ctx context.Context) error {
	entries, err := os.ReadDir(a.cfg.PolicyDir)
	if err != nil {
		return fmt.Errorf("read policy directory: %w", err)
	}
	var all []policy.Policy
	seen := map[string]string{}
	for _, e := range entries {
		if !slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(e.Name())) || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		path := filepath.Join(a.cfg.PolicyDir, e.Name())
		data, err := os.ReadFile(path)
		if err != nil {
			return fmt.Errorf("read policy: %w", err)
		}
		ps, err := decode.Decode(path, data)
		if err != nil {
			return err
		}
		if len(ps) == 0 { // half written, as like as not: what it held stays in force
			return fmt.Errorf("read policy: %s holds none: write one, or remove the file", path)
		}
		for i := range ps {
			if first, twice := seen[ps[i].Key()]; twice {
				return fmt.Errorf("read policy: %s %s stands in %s and in %s: leave one", ps[i].Kind, ps[i].FullName(), first, path)
			}
			seen[ps[i].Key()] = path
			if err := errors.Join(policy.Unenforceable(&ps[i])...); err != nil {
				return fmt.Errorf("%s: %w", ps[i].Origin, err)
			}
			ps[i].Origin = reconcile.OriginDir + ps[i].Origin
		}
		all = append(all, ps...)
	}
	return a.engine.ReplaceOrigin(ctx, func(p *reconcile.Policy) bool { return strings.HasPrefix(p.Origin, reconcile.OriginDir) }, all)
}

// writeSettles is how long a file must stay as it is before it is read.
const writeSettles = 200 * time.Millisecond

// watchDir wakes when a file of the policy directory changes.
func (a *Agent) watchDir(ctx context.Context) chan struct{} {
	wake := make(chan struct{}, 1)
	w, err := fsnotify.NewWatcher()
	if err == nil {
		if err = w.Add(a.cfg.PolicyDir); err != nil {
			w.Close()
		}
	}
	if err != nil {
		a.log.Warn("cannot watch the policy directory; looking now and then instead", "error", err)
		return wake
	}
	settled := time.NewTimer(writeSettles)
	a.control.wg.Go(func() {
		defer w.Close()
		defer settled.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case _, ok := <-w.Events:
				if !ok {
					return
				}
				settled.Reset(writeSettles)
			case <-settled.C:
				select {
				case wake <- struct{}{}:
				default:
				}
			case <-w.Errors:
			}
		}
	})
	return wake
}
