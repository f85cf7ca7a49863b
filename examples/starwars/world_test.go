package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func needRoot(t *testing.T) {
	t.Helper()
	const why = "needs root: makes network namespaces"
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") != "":
		t.Fatal(why)
	default:
		t.Skip(why)
	}
}

// testWorld is a world whose headgate is a script that says what it was asked.
func testWorld(t *testing.T) *world {
	t.Helper()
	needRoot(t)
	script := filepath.Join(t.TempDir(), "headgate")
	text := "#!/bin/sh\necho \"$@\" >> " + script + ".calls\n[ \"$1\" != agent ] || exec sleep 1000\n"
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	w, err := newWorld(script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := os.Stat(w.dir); err == nil {
			w.teardown()
		}
	})
	return w
}

// TestTeardownLeavesNothing builds a world with processes, a stray and a mount,
// and removes it as another process would.
func TestTeardownLeavesNothing(t *testing.T) {
	w := testWorld(t)
	if err := w.startAgent(func() {}); err != nil {
		t.Fatal(err)
	}
	stray := exec.Command("sleep", "1000")
	if err := inNetns(w.netns("xwing"), stray.Start); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- stray.Wait() }()

	found, err := loadWorld(w.dir)
	if err != nil {
		t.Fatal(err)
	}
	agent := found.Processes[0]
	if !agent.running() {
		t.Fatalf("the agent is not running: %+v", agent)
	}
	if err := found.teardown(); err != nil {
		t.Fatal(err)
	}
	<-ended
	if agent.running() {
		t.Error("the agent still runs")
	}
	if mounts, err := mountsUnder(w.dir); err != nil || len(mounts) > 0 {
		t.Errorf("mounts left: %v, error %v", mounts, err)
	}
	if _, err := os.Stat(w.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	calls, err := os.ReadFile(w.Headgate + ".calls")
	if want := "cleanup --run-dir " + w.path("run"); err != nil || !strings.Contains(string(calls), want) {
		t.Errorf("headgate was asked %q, error %v; want %q", calls, err, want)
	}
}

// TestNamespacesAreApart wants every namespace to be its own, with a loopback,
// and the threads that made them to be back home.
func TestNamespacesAreApart(t *testing.T) {
	w := testWorld(t)
	links := map[string]bool{}
	read := func() (link string, err error) {
		link, err = os.Readlink("/proc/thread-self/ns/net")
		return link, err
	}
	home, err := read()
	if err != nil {
		t.Fatal(err)
	}
	links[home] = true
	for _, name := range namespaces() {
		err := inNetns(w.netns(name), func() error {
			link, err := read()
			links[link] = true
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(links) != 1+len(namespaces()) {
		t.Errorf("namespaces %v: want %d different ones", links, 1+len(namespaces()))
	}
	if now, err := read(); now != home {
		t.Errorf("this thread is in %s, error %v; want %s", now, err, home)
	}
}

// TestDeathstarInItsNamespace launches the real server and asks it from inside.
func TestDeathstarInItsNamespace(t *testing.T) {
	w := testWorld(t)
	self := filepath.Join(t.TempDir(), "starwars")
	if out, err := exec.Command("go", "build", "-o", self, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	if err := w.launch(context.Background(), self); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"in", w.netns("deathstar"), self, "ship"}, clientCommand("POST", "http://[::1]"+landingPath, true)...)
	out, err := exec.Command(self, args...).Output()
	if err != nil {
		t.Fatalf("ship: %v", err)
	}
	if got, err := parseAnswer(string(out), 0); err != nil || judge(got) != landed {
		t.Errorf("got %q, error %v; want %q", out, err, landed)
	}
	outside := exec.Command(self, append([]string{"in", w.netns("xwing"), self, "ship"}, clientCommand("POST", "http://[::1]"+landingPath, true)...)...)
	if err := outside.Run(); err == nil || outside.ProcessState.ExitCode() != curlRefused {
		t.Errorf("from another namespace: error %v, want exit code %d", err, curlRefused)
	}
}

func TestTeardownKeepsToItsProcesses(t *testing.T) {
	other := exec.Command("sleep", "1000")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = other.Process.Kill()
		_ = other.Wait()
	}()
	p := process{Name: "agent", PID: other.Process.Pid, Start: "1"}
	if err := p.stop(); err != nil {
		t.Fatal(err)
	}
	if _, ok := startTime(other.Process.Pid); !ok {
		t.Error("a process with the same pid and another start was ended")
	}
}
