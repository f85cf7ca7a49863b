package xds

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Envoy asks the kernel to end it when the thread that started it does. So that it
// outlives the agent, it is started by a process that does nothing else, and ends
// with it.

// Descriptors that the holding process inherits and passes on.
const (
	descriptorProgram   = 3
	descriptorDirectory = 4
)

// Hold starts Envoy with these arguments and waits for its end. It is the whole of a
// process of its own, which has Envoy's program and directory open.
func Hold(args []string) error {
	runtime.LockOSThread() // whose end would be Envoy's
	cmd := &exec.Cmd{
		Path: fmt.Sprintf("/proc/self/fd/%d", descriptorProgram), Args: append([]string{"envoy"}, args...),
		Dir: "/", Env: []string{}, Stdout: os.Stdout, Stderr: os.Stderr,
		ExtraFiles: []*os.File{os.NewFile(descriptorProgram, "envoy"), os.NewFile(descriptorDirectory, "directory")},
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start Envoy: %w", err)
	}
	return cmd.Wait()
}

// heldBy waits for the child of a holding process.
func heldBy(holder int) (int, error) {
	for deadline := time.Now().Add(startWithin); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if pid := childOf(holder); pid != 0 {
			return pid, nil
		}
		if syscall.Kill(holder, 0) != nil {
			return 0, fmt.Errorf("start Envoy: it ended at once")
		}
	}
	return 0, fmt.Errorf("start Envoy: process %d does not start it", holder)
}

// childOf finds the first child of a process, by field 4 of /proc/PID/stat (proc(5)).
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
		if fields := statFields(pid); len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
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
