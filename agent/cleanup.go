package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/redirect"
)

// Cleanup takes everything of an agent that has stopped out of kernel and disk.
// terminate ends the proxy of a run directory.
func Cleanup(ctx context.Context, runDir, stateDir string, terminate func(ctx context.Context, runDir string) error) error {
	f, err := os.OpenFile(filepath.Join(runDir, "agent.lock"), os.O_RDWR, 0o600)
	if err == nil {
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return fmt.Errorf("the agent of %s is running: stop it first", runDir)
		}
	}
	// Interfaces first: from then on nothing passes, judged or not.
	errs := errors.Join(removeInterfaces(), redirect.RemoveRules(), terminate(ctx, runDir))
	for _, name := range []string{SocketName, "hubble.sock", "proxy.sock", "proxy.log", "agent.lock"} {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !os.IsNotExist(err) {
			errs = errors.Join(errs, fmt.Errorf("remove: %w", err))
		}
	}
	for _, path := range []string{filepath.Join(stateDir, "state.json"), filepath.Join(stateDir, "agent.lock")} {
		if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
			errs = errors.Join(errs, fmt.Errorf("remove: %w", err))
		}
	}
	// Directories go if nobody else has put something there.
	_, _ = os.Remove(runDir), os.Remove(stateDir)
	return errs
}

// removeInterfaces takes away every interface that the gate is attached to.
func removeInterfaces() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs error
	for _, l := range links {
		if l.Type() != "veth" {
			continue
		}
		maps, err := bpf.AttachedMaps(l.Attrs().Index)
		if err != nil {
			if !errors.Is(err, bpf.ErrNotAttached) && !errors.Is(err, unix.ENODEV) { // gone by itself
				errs = errors.Join(errs, err)
			}
			continue
		}
		maps.Close()
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = errors.Join(errs, fmt.Errorf("delete interface %s: %w", l.Attrs().Name, err))
		}
	}
	return errors.Join(errs, endpoint.RemoveHostDevice())
}
