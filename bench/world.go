package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// world is what a benchmark makes on this machine: namespaces, processes, each in a
// control group by which its processor time is known, and files under dir.
type world struct {
	options
	ctx    context.Context
	pinned bool
	dir    string
	cgroup string
	undo   []func()
}

func newWorld(ctx context.Context, o options, pinned bool) (*world, error) {
	mount, err := cgroupMount()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "hgb-") // short: the paths of sockets are
	if err != nil {
		return nil, fmt.Errorf("make a directory: %w", err)
	}
	w := &world{options: o, ctx: ctx, pinned: pinned, dir: dir, cgroup: filepath.Join(mount, filepath.Base(dir))}
	if err := os.Mkdir(w.cgroup, 0o755); err != nil {
		_ = os.RemoveAll(dir)
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return w, nil
}

// cgroupMount is where the unified hierarchy is. Processor time is accounted in it
// for every group, whichever controllers there are.
func cgroupMount() (string, error) {
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		return "", fmt.Errorf("find control groups: %w", err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("find control groups: no cgroup2 is mounted; mount one at /sys/fs/cgroup/unified")
}

// close ends and removes everything. What does not end by itself is killed by its group.
func (w *world) close() {
	w.ctx = context.Background() // also when we were told to end
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
	_ = os.WriteFile(filepath.Join(w.cgroup, "cgroup.kill"), []byte("1"), 0)
	groups, _ := filepath.Glob(filepath.Join(w.cgroup, "*", "cgroup.procs"))
	for _, g := range append(groups, filepath.Join(w.cgroup, "cgroup.procs")) {
		for range 500 {
			if err := unix.Rmdir(filepath.Dir(g)); err != unix.EBUSY {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	if err := os.RemoveAll(w.dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
	}
}

// Cores: when pinned, what carries has one for itself.
func (w *world) cores(carrier bool) string {
	switch {
	case !w.pinned:
		return "0,1"
	case carrier:
		return "1"
	}
	return "0"
}

// workers of a carrier, as many as it has cores.
func (w *world) workers() int { return len(strings.Split(w.cores(true), ",")) }

// command is a process of the group, on the given cores. It ends with us.
func (w *world) command(group, cores, name string, args ...string) (*exec.Cmd, func(), error) {
	dir, err := w.group(group)
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.CommandContext(w.ctx, "taskset", append([]string{"-c", cores, name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	return cmd, func() { _ = dir.Close() }, nil
}

func (w *world) group(name string) (*os.File, error) {
	path := filepath.Join(w.cgroup, name)
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("make a control group: %w", err)
	}
	return os.Open(path)
}

// move puts a process into a group, and on cores.
func (w *world) move(pid int, group, cores string) error {
	dir, err := w.group(group)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := os.WriteFile(filepath.Join(dir.Name(), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0); err != nil {
		return fmt.Errorf("move process %d: %w", pid, err)
	}
	if out, err := exec.Command("taskset", "-a", "-c", "-p", cores, strconv.Itoa(pid)).CombinedOutput(); err != nil {
		return fmt.Errorf("move process %d: %w: %s", pid, err, out)
	}
	return precede(pid)
}

// precede lets a process and its later children go before whatever else the machine
// does. The proxy has a session of its own, and so a scheduling group of its own.
func precede(pid int) error {
	err := unix.Setpriority(unix.PRIO_PROCESS, pid, -20)
	group := fmt.Sprintf("/proc/%d/autogroup", pid)
	if _, missing := os.Stat(group); err == nil && missing == nil {
		err = os.WriteFile(group, []byte("-20"), 0)
	}
	if err != nil {
		return fmt.Errorf("take precedence on the processors: %w", err)
	}
	return nil
}

// used is the processor time of each group so far, in µs.
func (w *world) used() (map[string]float64, error) {
	out := map[string]float64{}
	files, err := filepath.Glob(filepath.Join(w.cgroup, "*", "cpu.stat"))
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("read processor time: %w", err)
		}
		first, _, _ := strings.Cut(string(text), "\n")
		usage, err := strconv.ParseFloat(strings.TrimPrefix(first, "usage_usec "), 64)
		if err != nil {
			return nil, fmt.Errorf("read processor time: %w", err)
		}
		out[filepath.Base(filepath.Dir(f))] = usage
	}
	return out, nil
}

// start starts a process that stays. It is up once it prints ready, if that is given.
func (w *world) start(n *netns, group string, carrier bool, ready, name string, args ...string) error {
	cmd, done, err := w.command(group, w.cores(carrier), name, args...)
	if err != nil {
		return err
	}
	defer done()
	log, err := os.Create(filepath.Join(w.dir, group+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stderr = log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = n.do(cmd.Start)
	}
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	w.undo = append(w.undo, func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		stop := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		stop.Stop()
	})
	lines := bufio.NewScanner(out)
	for ready != "" {
		if !lines.Scan() {
			text, _ := os.ReadFile(log.Name())
			return fmt.Errorf("start %s: it ended: %s", name, text)
		}
		if lines.Text() == ready {
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return nil
}

// run runs a process to its end and returns what it printed.
func (w *world) run(n *netns, group, input string, name string, args ...string) ([]byte, error) {
	cmd, done, err := w.command(group, w.cores(false), name, args...)
	if err != nil {
		return nil, err
	}
	defer done()
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &out, &errs
	if err := n.do(cmd.Start); err != nil {
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	if err := cmd.Wait(); err != nil {
		return nil, fmt.Errorf("run %s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err, errs.Bytes())
	}
	return out.Bytes(), nil
}

// netns makes a namespace that ends with the world.
func (w *world) netns() (*netns, error) {
	n, err := newNetns()
	if err == nil {
		w.undo = append(w.undo, func() { close(n.calls) })
	}
	return n, err
}

// serve starts the server of requests.
func (w *world) serve(n *netns, ports ...string) error {
	return w.start(n, "server", false, "ready", w.self, append([]string{"serve"}, ports...)...)
}

// logs are what processes had to say, for errors.
func (w *world) logs() string {
	var all strings.Builder
	paths, _ := filepath.Glob(filepath.Join(w.dir, "*.log"))
	for _, p := range paths {
		if text, err := os.ReadFile(p); err == nil && len(text) > 0 {
			fmt.Fprintf(&all, "%s: %s\n", filepath.Base(p), text[max(0, len(text)-2000):])
		}
	}
	return all.String()
}
