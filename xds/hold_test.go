package xds

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// holdSleep makes the test's own program hold a process that does nothing.
const holdSleep = "hold-sleep"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == holdSleep {
		if Hold([]string{"600"}) != nil {
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 && os.Args[1] == severed {
		if haveConnections(os.Args[2:]) != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// newHolding is a backend whose Envoy is a process that does nothing.
func newHolding(t *testing.T) *Backend {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	dir := Dir(t.TempDir())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return &Backend{log: slog.New(slog.DiscardHandler), config: Config{
		Dir: dir, Path: path, Holder: []string{"headgate", holdSleep}, UID: 65534, NodeID: "node",
	}}
}

func (b *Backend) startHolderOf(t *testing.T) *startedHolder {
	t.Helper()
	program, err := os.Open(b.config.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	dir, err := os.Open(b.config.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	h, err := b.startHolder(nil, os.Stderr, program, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.holder.end() })
	return h
}

// TestHolderKnown: the Envoy that is known is the process that the holder started, and
// ends with it.
func TestHolderKnown(t *testing.T) {
	b := newHolding(t)
	p, err := b.startProcess(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if comm, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "comm")); err != nil || strings.TrimSpace(string(comm)) == "" {
		t.Errorf("process %d: %q, %v", p.PID, comm, err)
	}
	if fields := statFields(p.PID); len(fields) < 2 || fields[1] != strconv.Itoa(p.Holder.PID) {
		t.Errorf("the parent of %d is %v, not %d", p.PID, fields, p.Holder.PID)
	}
	found := running(b.config.Dir)
	if found == nil || found.PID != p.PID || found.Holder != p.Holder {
		t.Fatalf("the next agent finds %+v, not %+v", found, p)
	}
	defer found.close()
	if err := found.end(); err != nil {
		t.Error(err)
	}
	if !p.ended(0) || p.Holder.runs() {
		t.Error("something is left")
	}
}

// TestAgentEndsBeforeEnvoyStarts: nothing is started for an agent that has ended.
func TestAgentEndsBeforeEnvoyStarts(t *testing.T) {
	h := newHolding(t).startHolderOf(t)
	if err := h.close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); h.runs(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the process waits on")
		}
	}
}

// TestAgentEndsBeforeEnvoyIsKnown: what was started and not written down is ended.
func TestAgentEndsBeforeEnvoyIsKnown(t *testing.T) {
	b := newHolding(t)
	h := b.startHolderOf(t)
	if err := writeJSON(b.file(processName), process{Holder: h.holder}); err != nil {
		t.Fatal(err)
	}
	pid, err := h.start()
	if err != nil {
		t.Fatal(err)
	}
	held := process{PID: pid}
	if err := held.open(); err != nil {
		t.Fatal(err)
	}
	defer held.close()
	_ = h.close()
	if p := running(b.config.Dir); p != nil {
		t.Fatalf("%+v is known", p)
	}
	if err := Terminate(t.Context(), filepath.Dir(b.config.Dir)); err != nil {
		t.Fatal(err)
	}
	if !held.ended(0) || h.runs() {
		t.Error("something is left")
	}
}
