package integration

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// missing ends a test that cannot run here: it is skipped, but a CI that leaves
// tests out without anybody noticing is worth nothing.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// needPrivileges ends the test unless it may make namespaces and load programs.
func needPrivileges(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		missing(t, "this test makes network namespaces and loads BPF programs: run it as root")
	}
	ns, err := openNamespace()
	if err != nil {
		missing(t, "this test makes network namespaces: run it with CAP_SYS_ADMIN: %v", err)
	}
	ns.close()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	var major, minor int
	_, _ = fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor)
	if major < 6 || major == 6 && minor < 6 {
		missing(t, "this test needs a kernel of 6.6 or newer, this is %d.%d", major, minor)
	}
}

// needProgram finds a program of the machine.
func needProgram(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "this test drives %s, which is not installed: 'make parts' installs it", names[0])
	return ""
}

// moduleRoot is the directory of go.mod.
func moduleRoot(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

var build = sync.OnceValues(func() (string, error) {
	path := filepath.Join(baseDir, "headgate")
	cmd := exec.Command("go", "build", "-o", path, "./cmd/headgate")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build headgate: %w\n%s", err, out)
	}
	// The proxy runs as a user of its own, who must be able to execute it.
	return path, os.Chmod(path, 0o755)
})

// headgateBinary is the program under test, built once.
func headgateBinary(t *testing.T) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}
