package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// station is what ships call the Death Star.
const station = "deathstar.default.svc.cluster.local"

// etc is a directory of files that ships see in /etc.
func (w *world) etc() string { return w.path("etc") }

// nameServers are the gateways of headgate's workloads.
func nameServers() []string { return []string{"10.210.0.1", "fd00:210::1"} }

// tellNames makes ships ask headgate for names, and nobody else.
func (w *world) tellNames() error {
	if err := os.MkdirAll(w.etc(), 0o755); err != nil {
		return fmt.Errorf("make a directory for files of /etc: %w", err)
	}
	resolv := "options timeout:1\n"
	for _, s := range nameServers() {
		resolv += "nameserver " + s + "\n"
	}
	for name, text := range map[string]string{"resolv.conf": resolv, "nsswitch.conf": "hosts: files dns\n"} {
		if err := os.WriteFile(filepath.Join(w.etc(), name), []byte(text), 0o644); err != nil {
			return fmt.Errorf("write a file of /etc: %w", err)
		}
	}
	return nil
}

// runEtc becomes a command that sees files of a directory in place of those in /etc
// that have the same names, as ip-netns(8) does it.
func runEtc(args []string) error {
	f := flag.NewFlagSet("starwars etc", flag.ContinueOnError)
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() < 2 {
		return errors.New("etc: needs DIR and a command")
	}
	path, err := exec.LookPath(f.Arg(1))
	if err != nil {
		return fmt.Errorf("find the command: %w", err)
	}
	runtime.LockOSThread() // this thread becomes the command
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a mount namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("keep mounts from others: %w", err)
	}
	files, err := filepath.Glob(filepath.Join(f.Arg(0), "*"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("etc: %s holds no files", f.Arg(0))
	}
	for _, file := range files {
		to := filepath.Join("/etc", filepath.Base(file))
		if _, err := os.Stat(to); os.IsNotExist(err) {
			continue // whoever has none does as the library does by itself
		}
		if err := unix.Mount(file, to, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("put %s in place: %w", to, err)
		}
	}
	return syscall.Exec(path, f.Args()[1:], os.Environ())
}
