package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// makeNetns makes a network namespace with its loopback up, and keeps it alive
// by a mount on path, as 'ip netns add' does.
func makeNetns(path string) error {
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		return fmt.Errorf("make the mount point of a namespace: %w", err)
	}
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("make a network namespace (needs root with CAP_SYS_ADMIN): %w", err)
		}
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return fmt.Errorf("find the loopback interface: %w", err)
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set the loopback interface up: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount the namespace at %s: %w", path, err)
		}
		return nil
	})
}

// inNetns runs f in the namespace at path; processes that f starts stay there.
func inNetns(path string, f func() error) error {
	return onOwnThread(func() error {
		ns, err := netns.GetFromPath(path)
		if err != nil {
			return fmt.Errorf("open the namespace %s: %w", path, err)
		}
		defer ns.Close()
		if err := netns.Set(ns); err != nil {
			return fmt.Errorf("enter the namespace %s: %w", path, err)
		}
		return f()
	})
}

// onOwnThread runs f, which may change the thread's network namespace, and
// puts the thread back. A thread that cannot be put back is never used again.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			result <- fmt.Errorf("open the present namespace: %w", err)
			return
		}
		defer home.Close()
		defer func() {
			if p := recover(); p != nil {
				err = fmt.Errorf("panic: %v", p)
			}
			if netns.Set(home) == nil {
				runtime.UnlockOSThread()
			}
			result <- err
		}()
		err = f()
	}()
	return <-result
}

// runIn is for machines without nsenter.
func runIn(args []string) error {
	f := flag.NewFlagSet("starwars in", flag.ContinueOnError)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() < 2 {
		return errors.New("in: needs NETNS and a command")
	}
	cmd := exec.Command(f.Arg(1), f.Args()[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := inNetns(f.Arg(0), cmd.Start); err != nil {
		return err
	}
	err := cmd.Wait()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return exitError(128 + int(status.Signal()))
		}
		return exitError(exit.ExitCode())
	}
	return err
}
