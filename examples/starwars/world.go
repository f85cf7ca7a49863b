package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	// dirPrefix marks the directories that cleanup may remove.
	dirPrefix = "headgate-demo-"
	// maxTemp is how long a path may be for the sockets under it to work.
	maxTemp = 48

	nodeNetns = "node"
	// launchTimeout is how long the Death Star may take to listen.
	launchTimeout = 10 * time.Second
)

// namespaces are the network namespaces of the story: the node that headgate
// runs on, then the workloads.
func namespaces() []string { return []string{nodeNetns, "deathstar", "tiefighter", "xwing"} }

// process is one that the story started and left running. Start tells it from
// a later process with the same pid.
type process struct {
	Name  string `json:"name"`
	PID   int    `json:"pid"`
	Start string `json:"start"`
}

// world is everything the story makes on this machine, all of it under dir.
// What must be known to remove it is in a file there, so that another process
// can.
type world struct {
	dir       string
	Headgate  string    `json:"headgate"`
	Processes []process `json:"processes"`
}

func (w *world) path(parts ...string) string {
	return filepath.Join(append([]string{w.dir}, parts...)...)
}
func (w *world) netns(name string) string { return w.path("netns", name) }
func (w *world) socket() string           { return w.path("run", "headgate.sock") }
func (w *world) record() string           { return w.path("demo.json") }
func (w *world) log(name string) string   { return w.path(name + ".log") }

// newWorld makes the directory and the namespaces. On failure the world is
// returned too when there is something to remove.
func newWorld(headgate string) (*world, error) {
	headgate, err := filepath.Abs(headgate)
	if err != nil {
		return nil, fmt.Errorf("find headgate: %w", err)
	}
	dir, err := os.MkdirTemp(tempDir(), dirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make a directory for the demo: %w", err)
	}
	w := &world{dir: dir, Headgate: headgate}
	if err := w.save(); err != nil {
		return w, err
	}
	if err := os.Mkdir(w.path("netns"), 0o700); err != nil {
		return w, fmt.Errorf("make a directory for namespaces: %w", err)
	}
	for _, name := range namespaces() {
		if err := makeNetns(w.netns(name)); err != nil {
			return w, fmt.Errorf("make the namespace %s: %w", name, err)
		}
	}
	return w, nil
}

// tempDir is the usual one, unless sockets and mounts under it would not work:
// the path of a socket is short, and mounts are listed with odd characters
// escaped and links resolved.
func tempDir() string {
	dir, err := filepath.EvalSymlinks(os.TempDir())
	if err != nil || len(dir) > maxTemp || strings.ContainsAny(dir, " \t\n\\") {
		return "/tmp"
	}
	return dir
}

func (w *world) save() error {
	text, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return fmt.Errorf("encode %s: %w", w.record(), err)
	}
	if err := os.WriteFile(w.record(), append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", w.record(), err)
	}
	return nil
}

// loadWorld reads what an earlier process made.
func loadWorld(dir string) (*world, error) {
	path, err := filepath.EvalSymlinks(dir)
	if err == nil {
		path, err = filepath.Abs(path)
	}
	if err != nil {
		return nil, fmt.Errorf("find %s: %w", dir, err)
	}
	w := &world{dir: path}
	text, err := os.ReadFile(w.record())
	if err != nil || !strings.HasPrefix(filepath.Base(path), dirPrefix) {
		return nil, fmt.Errorf("%s is not a directory that the demo made", dir)
	}
	if err := json.Unmarshal(text, w); err != nil {
		return nil, fmt.Errorf("read %s: %w", w.record(), err)
	}
	return w, nil
}

// start runs a process of the story in a namespace, in a session of its own: a
// Ctrl-C reaches this program alone, which ends the others in order. ended is
// called when the process ends.
func (w *world) start(name, netns string, ended func(), argv ...string) error {
	log, err := os.OpenFile(w.log(name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", name, err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := inNetns(w.netns(netns), cmd.Start); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		_ = cmd.Wait() // how it ended is in its log
		ended()
	}()
	start, _ := startTime(cmd.Process.Pid)
	w.Processes = append(w.Processes, process{name, cmd.Process.Pid, start})
	return w.save()
}

// launch starts the Death Star and waits until it listens.
func (w *world) launch(ctx context.Context, self string) error {
	if err := w.start("deathstar", "deathstar", func() {}, self, "deathstar"); err != nil {
		return err
	}
	deadline := time.Now().Add(launchTimeout)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		text, err := os.ReadFile(w.log("deathstar"))
		if err == nil && strings.Contains(string(text), operational) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("start the Death Star: it does not listen: %s", w.tail("deathstar"))
}

// startAgent runs headgate's agent on the node.
func (w *world) startAgent(ended func()) error {
	return w.start("agent", nodeNetns, ended, append([]string{w.Headgate}, w.agentArgs()...)...)
}

func (w *world) agentArgs() []string {
	return []string{"agent", "--run-dir", w.path("run"), "--state-dir", w.path("state"), "--node-name", "endor", "--dns", "on"}
}

// logLines is how much of a log an error shows.
const logLines = 20

// tail is the end of a log.
func (w *world) tail(name string) string {
	text, err := os.ReadFile(w.log(name))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}
