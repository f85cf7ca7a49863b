package xds

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Envoy asks the kernel to end it when the thread that started it does. So that it
// outlives the agent, it is started by a process that does nothing else, and ends
// with it.

// Descriptors that the holding process inherits. It passes the first two on.
const (
	descriptorProgram   = 3
	descriptorDirectory = 4
	descriptorAgent     = 5 // a stream: the agent says when to start, we say as what process
)

// Hold starts Envoy with these arguments and waits for its end. It is the whole of a
// process of its own, which has Envoy's program and directory open. It starts nothing
// before the agent says so, for an agent that has ended does not know of it.
func Hold(args []string) error {
	runtime.LockOSThread()                                                   // whose end would be Envoy's
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil { // Envoy inherits it
		return fmt.Errorf("start Envoy: give up new privileges: %w", err)
	}
	syscall.CloseOnExec(descriptorAgent)
	agent := os.NewFile(descriptorAgent, "agent")
	defer agent.Close()
	if _, err := io.ReadFull(agent, make([]byte, 1)); err != nil {
		return fmt.Errorf("start Envoy: the agent did not say so: %w", err)
	}
	cmd := &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", descriptorProgram), Args: append([]string{"envoy"}, args...),
		Dir: "/", Env: []string{}, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles:  []*os.File{os.NewFile(descriptorProgram, "envoy"), os.NewFile(descriptorDirectory, "directory")},
		SysProcAttr: &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}, // until it asks for that itself
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start Envoy: %w", err)
	}
	// An agent that has ended reads it no more; the next one ends us for that.
	_, _ = fmt.Fprintln(agent, cmd.Process.Pid)
	_ = agent.Close()
	return cmd.Wait()
}

// holder is a process that holds Envoy, so that no other can be taken for it.
type holder struct {
	PID     int    `json:"pid"`
	Started uint64 `json:"started"`
}

// startedHolder is one that waits to be told to start Envoy.
type startedHolder struct {
	holder
	stream *os.File
}

// startHolder starts the process that will hold Envoy, as a user without rights, with
// the capabilities that transparent sockets, marks and low ports need.
func (b *Backend) startHolder(args []string, log, program, dir *os.File) (*startedHolder, error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("start Envoy: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "holder"), os.NewFile(uintptr(pair[1]), "agent")
	defer theirs.Close()
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", Args: append(slices.Clone(b.config.Holder), args...),
		Dir: "/", Env: []string{}, Stdout: log, Stderr: log, ExtraFiles: []*os.File{program, dir, theirs},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:      true,
			Credential:  &syscall.Credential{Uid: b.config.UID, Gid: b.config.UID, Groups: []uint32{}},
			AmbientCaps: []uintptr{unix.CAP_NET_ADMIN, unix.CAP_NET_BIND_SERVICE},
		},
	}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("start Envoy: %w", err), ours.Close())
	}
	limit := unix.Rlimit{Cur: fileLimit, Max: fileLimit}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_NOFILE, &limit, nil); err != nil {
		b.log.Debug("raise Envoy's file limit", "error", err)
	}
	h := &startedHolder{stream: ours, holder: holder{PID: cmd.Process.Pid}}
	h.Started, err = startTime(h.PID) // not waited for yet: the number is still its own
	go func() { _ = cmd.Wait() }()    // it ends with Envoy, whose end is seen by its descriptor
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start Envoy: %w", err), h.close())
	}
	return h, nil
}

// start has Envoy started and says as what process.
func (h *startedHolder) start() (int, error) {
	if _, err := h.stream.Write([]byte{'\n'}); err != nil {
		return 0, fmt.Errorf("start Envoy: tell process %d: %w", h.PID, err)
	}
	if err := h.stream.SetReadDeadline(time.Now().Add(startWithin)); err != nil {
		return 0, fmt.Errorf("start Envoy: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(h.stream, 16))
	if err != nil {
		return 0, fmt.Errorf("start Envoy: process %d does not start it: %w", h.PID, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 1 {
		return 0, errors.New("start Envoy: it ended at once")
	}
	return pid, nil
}

// close lets go of the process: one that was not told to start Envoy ends.
func (h *startedHolder) close() error { return h.stream.Close() }

// runs reports whether the process has not ended.
func (h holder) runs() bool {
	fields := statFields(h.PID)
	return len(fields) > 0 && fields[0] != "Z"
}

// end ends what the process holds, and so the process.
func (h holder) end() error {
	if h.PID <= 1 {
		return nil
	}
	p := process{PID: h.PID, Started: h.Started}
	if p.open() != nil || !h.runs() {
		return nil // it has ended; that number is nobody's, or another's
	}
	defer p.close()
	for pid := childOf(h.PID); pid != 0; pid = childOf(h.PID) {
		held := process{PID: pid}
		if held.open() != nil {
			continue
		}
		err := held.endItself()
		held.close()
		if err != nil {
			return err
		}
	}
	if p.ended(endGrace) {
		return nil
	}
	if err := p.kill(); err != nil {
		return fmt.Errorf("end Envoy: what held it: %w", err)
	}
	return nil
}

// childOf finds a child of a process that has not ended, by fields 3 and 4 of
// /proc/PID/stat (proc(5)).
func childOf(parent int) int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if fields := statFields(pid); len(fields) > 1 && fields[1] == strconv.Itoa(parent) && fields[0] != "Z" {
			return pid
		}
	}
	return 0
}

// statFields are those of /proc/PID/stat behind the name, which may hold anything.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}
