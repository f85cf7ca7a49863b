package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stopTimeout    = 5 * time.Second
	cleanupTimeout = 20 * time.Second
)

// runCleanup removes what a story that was kept has left.
func runCleanup(args []string) error {
	if len(args) != 1 {
		return errors.New("cleanup: needs the directory that the demo printed")
	}
	w, err := loadWorld(args[0])
	if err != nil {
		return err
	}
	return w.teardown()
}

// teardown removes the world. It goes on whatever fails, and says all that did.
func (w *world) teardown() error {
	var errs []error
	agentRan := false
	for _, p := range slices.Backward(w.Processes) {
		agentRan = agentRan || p.Name == "agent"
		errs = append(errs, p.stop())
	}
	if agentRan {
		errs = append(errs, w.headgateCleanup())
	}
	errs = append(errs, w.endStrays())
	if err := w.unmount(); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, os.RemoveAll(w.dir))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up %s: %w", w.dir, err)
	}
	return nil
}

// headgateCleanup lets headgate end its proxy and take everything out of the
// kernel.
func (w *world) headgateCleanup() error {
	ctx, cancel := context.WithTimeout(context.Background(), cleanupTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.Headgate, "cleanup", "--run-dir", w.path("run"), "--state-dir", w.path("state"))
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := inNetns(w.netns(nodeNetns), cmd.Start); err != nil {
		return fmt.Errorf("start headgate cleanup: %w", err)
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("run headgate cleanup: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}

// startTime tells a process from another with the same pid; ok is false when
// there is none, or only its remains.
func startTime(pid int) (start string, ok bool) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	const state, started = 0, 19
	if len(fields) <= started || fields[state] == "Z" || fields[state] == "X" {
		return "", false
	}
	return fields[started], true
}

// running reports whether the process is still there.
func (p process) running() bool {
	start, ok := startTime(p.PID)
	return ok && start == p.Start
}

// stop ends the process: politely, then not.
func (p process) stop() error {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !p.running() {
			return nil
		}
		if err := syscall.Kill(p.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end %s (pid %d): %w", p.Name, p.PID, err)
		}
		for deadline := time.Now().Add(stopTimeout); p.running() && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if p.running() {
		return fmt.Errorf("end %s (pid %d): it does not go", p.Name, p.PID)
	}
	return nil
}

// endStrays ends what still runs in the story's namespaces. They were made for
// it, so whatever is there belongs to it: a proxy that outlived a cleanup, or a
// shell that a person left open.
func (w *world) endStrays() error {
	var errs []error
	for _, name := range namespaces() {
		pids, err := inside(w.netns(name))
		errs = append(errs, err)
		for _, pid := range pids {
			if start, ok := startTime(pid); ok {
				errs = append(errs, process{"a process in " + name, pid, start}.stop())
			}
		}
	}
	return errors.Join(errs...)
}

// inside lists the processes in the network namespace that is mounted at path.
func inside(path string) ([]int, error) {
	var want unix.Stat_t
	var fs unix.Statfs_t
	if unix.Stat(path, &want) != nil || unix.Statfs(path, &fs) != nil || fs.Type != unix.NSFS_MAGIC {
		return nil, nil // not made, or unmounted already
	}
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		var got unix.Stat_t
		if err != nil || pid == os.Getpid() || unix.Stat(dir+"/ns/net", &got) != nil {
			continue
		}
		if got.Dev == want.Dev && got.Ino == want.Ino {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// unmount takes away every mount under the directory, so that removing it
// removes nothing else.
func (w *world) unmount() error {
	mounts, err := mountsUnder(w.dir)
	if err != nil {
		return err
	}
	for _, m := range slices.Backward(mounts) {
		if err := unix.Unmount(m, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m, err)
		}
	}
	if mounts, err = mountsUnder(w.dir); err == nil && len(mounts) > 0 {
		return fmt.Errorf("unmount %s: it is still mounted", mounts[0])
	}
	return err
}

func mountsUnder(dir string) ([]string, error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("list mounts: %w", err)
	}
	const mountPoint = 4
	var mounts []string
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) > mountPoint && strings.HasPrefix(fields[mountPoint], dir+"/") {
			mounts = append(mounts, fields[mountPoint])
		}
	}
	return mounts, nil
}
