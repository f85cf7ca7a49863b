package xds

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// dirName is Envoy's directory in the run directory. It is root's: what Envoy could
// write there, it could make us end any process by. The admin interface alone is in a
// directory of Envoy's own, because Envoy makes that socket.
const (
	dirName     = "envoy"
	adminName   = "admin/admin.sock"
	processName = "process.json"
	portsName   = "ports.json"
	logName     = "envoy.log"
)

// SocketName is the socket that Envoy asks, in Config.Dir.
const SocketName = "xds.sock"

// Dir is Envoy's directory in a run directory.
func Dir(runDir string) string { return filepath.Join(runDir, dirName) }

const (
	// fileLimit is how many descriptors Envoy may have: two a connection.
	fileLimit = 1 << 18
	// startWithin is how long it may take to be there.
	startWithin = 30 * time.Second
	// endGrace is how long Envoy may take to end after SIGTERM.
	endGrace = 5 * time.Second
	// steadyAfter: an Envoy that lived as long is not one that fails to start.
	steadyAfter = time.Second
	backOffMost = 10 * time.Second
)

// process is an Envoy that runs, started by this agent or by one before. It lives in
// a session of its own and goes on without us.
type process struct {
	PID      int      `json:"pid"`              // zero: its holder has not said it yet
	Started  uint64   `json:"started"`          // clock ticks since boot: a number that is used again tells
	Settings string   `json:"settings"`         // that it was started with: for others it is replaced
	Meets    string   `json:"meets,omitempty"`  // where the one that follows speaks to it
	Holder   holder   `json:"holder"`           // its parent, which ends with it
	Epoch    int      `json:"epoch"`            // how many it follows
	Before   *process `json:"before,omitempty"` // which may still drain
	Until    int64    `json:"until,omitempty"`  // it is to have drained, in seconds since 1970; zero: it has not been taken over from
	pidfd    int
}

// startProcess starts Envoy as a user without rights, with the capabilities that
// transparent sockets, marks and low ports need.
func (b *Backend) startProcess(follows *succession) (*process, error) {
	bootstrap, err := b.bootstrap(follows)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(b.file(logName), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	defer log.Close()
	path, err := exec.LookPath(b.config.Path)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w: install it, or name it with --envoy-path", err)
	}
	// By descriptor, as its directory: the user that Envoy runs as need not be able to
	// reach either by its path.
	program, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	defer program.Close()
	dir, err := os.Open(b.config.Dir)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	defer dir.Close()
	h, err := b.startHolder(follows.arguments(Args(bootstrap, b.config.Workers)), log, program, dir)
	if err != nil {
		return nil, err
	}
	defer h.close()
	p := &process{Settings: b.settings, Meets: b.meets(), Holder: h.holder}
	if follows != nil {
		p.Epoch, p.Before = follows.old.Epoch+1, follows.old
	}
	// Known before there is an Envoy: whatever happens to us from here on, the next
	// agent finds both.
	if err = writeJSON(b.file(processName), p); err == nil {
		p.PID, err = h.start()
	}
	if err == nil {
		err = p.open()
	}
	if err == nil {
		err = writeJSON(b.file(processName), p)
	}
	if err != nil {
		err = fmt.Errorf("%w; it said: %s", err, lastLine(b.file(logName)))
		return nil, errors.Join(err, h.holder.end())
	}
	return p, nil
}

// open takes hold of the process, so that no other can be taken for it.
func (p *process) open() error {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fmt.Errorf("watch Envoy %d: %w", p.PID, err)
	}
	started, err := startTime(p.PID)
	if err == nil && p.Started != 0 && started != p.Started {
		err = fmt.Errorf("watch Envoy %d: that number is another process's now", p.PID)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	p.pidfd, p.Started = fd, started
	return nil
}

// close lets go of the process, which goes on.
func (p *process) close() { unix.Close(p.pidfd) }

// ended reports whether the process ended, after waiting a little for it.
func (p *process) ended(within time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(within/time.Millisecond))
	return n > 0 && err == nil
}

// end ends the process, and its parent with it.
func (p *process) end() error {
	if err := p.endItself(); err != nil {
		return err
	}
	return p.Holder.end()
}

func (p *process) endItself() error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGTERM, nil, 0); errors.Is(err, unix.ESRCH) {
		return nil
	}
	if p.ended(endGrace) {
		return nil
	}
	return p.kill()
}

func (p *process) kill() error {
	if err := unix.PidfdSendSignal(p.pidfd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end Envoy %d: %w", p.PID, err)
	}
	if !p.ended(endGrace) {
		return fmt.Errorf("end Envoy %d: it is still there after SIGKILL", p.PID)
	}
	return nil
}

// running finds the Envoy that an earlier agent started. Nil: there is none. Where an agent
// ended while it started the next one, it is the one before.
func running(dir string) *process {
	p, err := written(dir)
	if err != nil || p == nil {
		return nil
	}
	if p.PID == 0 && p.Before != nil {
		if p.Holder.end() != nil {
			return nil
		}
		p = p.Before
	}
	if p.PID <= 1 || p.Started == 0 || p.open() != nil {
		return nil
	}
	return p
}

// written is what an agent wrote down of its Envoy; nil: nothing, or nothing that says
// anything, being of another layout, or half a file.
func written(dir string) (*process, error) {
	text, err := os.ReadFile(filepath.Join(dir, processName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for Envoy: %w", err)
	}
	p := &process{}
	if json.Unmarshal(text, p) != nil {
		return nil, nil
	}
	return p, nil
}

// endUnknown ends what an agent left behind that ended itself while it started Envoy, and
// what drains.
func endUnknown(dir string) error {
	p, err := written(dir)
	if err != nil || p == nil {
		return err
	}
	err = p.Holder.end()
	if p.Before != nil {
		err = errors.Join(err, p.Before.endOther())
	}
	return err
}

// startTime is when a process started, field 22 of /proc/PID/stat (proc(5)).
func startTime(pid int) (uint64, error) {
	fields := statFields(pid)
	if len(fields) < 20 {
		return 0, fmt.Errorf("look at process %d: it has no start time", pid)
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// Terminate ends the Envoy of a run directory and removes its files. None there is
// no error.
func Terminate(_ context.Context, runDir string) error {
	dir := Dir(runDir)
	if p := running(dir); p != nil {
		defer p.close()
		if err := p.end(); err != nil {
			return err
		}
	}
	if err := endUnknown(dir); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove Envoy's files: %w", err)
	}
	return nil
}

// inheritedDir is Config.Dir as an Envoy that we start finds it.
const inheritedDir = "/proc/self/fd/4" // descriptorDirectory

// bootstrap makes what Envoy starts with, and its own directory. What one before has left
// there says nothing of one that starts anew.
func (b *Backend) bootstrap(follows *succession) (string, error) {
	admin := filepath.Dir(b.file(adminName))
	var err error
	if follows == nil {
		err = os.RemoveAll(admin)
	}
	if err = errors.Join(err, os.MkdirAll(admin, 0o700), os.Chown(admin, int(b.config.UID), int(b.config.UID)), removeStale(b.file(adminName))); err != nil {
		return "", fmt.Errorf("make the directory of Envoy's admin interface: %w", err)
	}
	return b.bootstrapText()
}

func (b *Backend) bootstrapText() (string, error) {
	text, err := Bootstrap(BootstrapOptions{
		NodeID: b.config.NodeID, Socket: filepath.Join(inheritedDir, SocketName), Admin: filepath.Join(inheritedDir, adminName),
	})
	return string(text), err
}

// writeJSON replaces a file whole.
func writeJSON(path string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

// removeStale removes a socket that nobody listens on any more.
func removeStale(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
