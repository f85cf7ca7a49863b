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
// terminate ends the proxy of a run directory. What fails leaves the state, so that
// it can be tried again.
func Cleanup(ctx context.Context, runDir, stateDir string, terminate func(ctx context.Context, runDir string) error) error {
	unlock, err := lock(runDir, stateDir)
	if err != nil {
		return err
	}
	defer unlock()
	if err := sameNamespace(stateDir); err != nil {
		return err
	}
	if err := detachCgroups(stateDir); err != nil {
		return err
	}
	if err := forgetEndpoints(stateDir); err != nil {
		return err
	}
	// Interfaces first: from then on nothing passes, judged or not.
	err = errors.Join(removeInterfaces(), redirect.RemoveRules(), terminate(ctx, runDir))
	if err != nil {
		return err
	}
	for _, name := range []string{SocketName, "hubble.sock", "proxy.sock", "proxy.log", "agent.lock"} {
		err = errors.Join(err, removeFile(filepath.Join(runDir, name)))
	}
	for _, name := range []string{"state.json", "agent.lock"} {
		err = errors.Join(err, removeFile(filepath.Join(stateDir, name)))
	}
	err = errors.Join(err, os.RemoveAll(filepath.Join(stateDir, namesDir)))
	// Directories go if nobody else has put something there.
	_, _ = os.Remove(runDir), os.Remove(stateDir)
	return err
}

// forgetEndpoints removes files that were written for endpoints.
func forgetEndpoints(stateDir string) error {
	f, err := readState(filepath.Join(stateDir, "state.json"))
	if err != nil {
		return nil // a state that cannot be read is no reason to keep the rest
	}
	for _, e := range f.Endpoints {
		err = errors.Join(err, endpoint.Forget(e))
	}
	return err
}

func removeFile(path string) error {
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove: %w", err)
	}
	return nil
}

// sameNamespace refuses to clean up from outside: interfaces and rules are only
// found in the namespace that the agent ran in. If that is gone, so are they.
func sameNamespace(stateDir string) error {
	f, err := readState(filepath.Join(stateDir, "state.json"))
	if err != nil || f.Namespace == 0 {
		return nil // a state that cannot be read is no reason to keep the rest
	}
	here, err := namespaceID()
	if err != nil {
		return err
	}
	if here != f.Namespace && namespaceLives(f.Namespace) {
		return errors.New("the agent ran in another network namespace: run cleanup there, with 'ip netns exec NAME headgate cleanup' or nsenter")
	}
	return nil
}

// removeInterfaces takes away every interface that the gate is attached to.
func removeInterfaces() error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs error
	// The node's own devices stay, and lose the gate when no endpoint is left.
	var devices []int
	for _, l := range links {
		if device, err := bpf.AttachedDevice(l.Attrs().Index); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = errors.Join(errs, err)
			continue
		} else if device {
			devices = append(devices, l.Attrs().Index)
			continue
		}
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
	for _, ifindex := range devices {
		if err := bpf.Detach(ifindex); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = errors.Join(errs, err)
		}
	}
	return errors.Join(errs, redirect.RemoveInjector(), endpoint.RemoveHostDevice())
}
