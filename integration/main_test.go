package integration

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// baseVariable tells the process that runs the tests where its files go.
const baseVariable = "HEADGATE_INTEGRATION_DIR"

// baseDir is where every test has its files.
var baseDir string

// The main goroutine keeps the main thread: a namespace lives as long as the
// thread that made it, and the main thread never ends before the process.
func init() { runtime.LockOSThread() }

// TestMain runs the tests in a child process. What they start, and what that
// starts, becomes ours when its parent dies, so that it is reaped, and ended even
// if the tests were killed before they could clean up.
func TestMain(m *testing.M) {
	if baseDir = os.Getenv(baseVariable); baseDir != "" {
		os.Exit(m.Run())
	}
	code, err := runTests()
	if err != nil {
		fmt.Fprintln(os.Stderr, "integration tests:", err)
		code = 2
	}
	os.Exit(code)
}

func runTests() (int, error) {
	dir, err := os.MkdirTemp("", "hg-") // short: the paths of sockets are
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("adopt orphans: %w", err)
	}
	tests, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), baseVariable+"="+dir),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range signals {
			_ = unix.Kill(tests.Pid, s.(syscall.Signal))
		}
	}()
	status := reapUntil(tests.Pid)
	for {
		orphans := children(os.Getpid())
		if len(orphans) == 0 {
			break
		}
		for _, pid := range orphans {
			if running(pid) {
				fmt.Fprintln(os.Stderr, "integration tests: ending what was left running:", pid, commandLine(pid))
				_ = unix.Kill(pid, unix.SIGKILL)
			}
			reapUntil(pid)
		}
	}
	if status.Signaled() {
		return 2, fmt.Errorf("ended by signal %s", status.Signal())
	}
	return status.ExitStatus(), nil
}

// reapUntil reaps children until it meets this one.
func reapUntil(pid int) unix.WaitStatus {
	for {
		var status unix.WaitStatus
		switch got, err := unix.Wait4(-1, &status, 0, nil); {
		case err == unix.EINTR:
		case err != nil || got == pid:
			return status
		}
	}
}

// children are the processes whose parent this is.
func children(of int) []int {
	var out []int
	for _, pid := range processes() {
		if fields := statFields(pid); len(fields) > 1 && fields[1] == strconv.Itoa(of) {
			out = append(out, pid)
		}
	}
	return out
}

func processes() []int {
	paths, _ := filepath.Glob("/proc/[0-9]*")
	var out []int
	for _, path := range paths {
		if pid, err := strconv.Atoi(filepath.Base(path)); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// statFields are those of /proc/PID/stat behind the name, which may hold anything:
// state, parent and so on.
func statFields(pid int) []string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

// running reports whether a process is there and not just its remains.
func running(pid int) bool {
	fields := statFields(pid)
	return len(fields) > 0 && fields[0] != "Z" && fields[0] != "X"
}

// threads is how many of a process are left: the first may have ended before those that still
// hold its sockets.
func threads(pid int) int {
	all, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	return len(all)
}

func commandLine(pid int) string {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return strings.ReplaceAll(strings.TrimRight(string(text), "\x00"), "\x00", " ")
}
