package proxy

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// childMain is the proxy process of these tests: this program again.
func childMain() int {
	api, err := InheritedListener()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for fd := DescriptorTCPMap; fd <= DescriptorServices; fd++ {
		if b, err := readAt(uintptr(fd)); err != nil || string(b) != fmt.Sprint("map", fd) {
			fmt.Fprintln(os.Stderr, "descriptor", fd, string(b), err)
			return 1
		}
	}
	connections := &fakeConnections{known: Connection{SourceIdentity: 1000, Egress: setA}}
	err = Run(context.Background(), Config{
		Version: os.Getenv("HEADGATE_TEST_PROXY"), Layout: "maps", API: api, Connections: connections,
		AllowRoot: os.Getenv("HEADGATE_TEST_ROOT") != "", Listen: loopbackListener, Dial: dialer(os.Getenv("HEADGATE_TEST_SERVER")),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// readAt reads a file whose offset is shared with other processes.
func readAt(fd uintptr) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(os.NewFile(fd, "map"), 0, 100))
}

// supervised is an agent's Backend with its Run.
type supervised struct {
	*Backend
	t       *testing.T
	ports   chan redirect.ProxyPort
	mu      sync.Mutex
	records []observe.Record
	log     bytes.Buffer
	stop    func()
}

// Write takes the log.
func (s *supervised) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.Write(b)
}

// logged is the log so far.
func (s *supervised) logged() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// supervise starts an agent's side on a run directory.
func supervise(t *testing.T, runDir, version, server string, change func(*BackendConfig)) *supervised {
	t.Helper()
	s := &supervised{t: t, ports: make(chan redirect.ProxyPort, 100)}
	config := BackendConfig{
		RunDir: runDir, Version: version, Layout: "maps", KeepUser: true,
		Logger:     slog.New(slog.NewTextHandler(s, nil)),
		Arguments:  []string{"headgate", "proxy"},
		MapFiles:   mapFiles(t),
		DrainGrace: 5 * time.Second,
		Environment: []string{
			"HEADGATE_TEST_PROXY=" + version, "HEADGATE_TEST_SERVER=" + server, "HEADGATE_TEST_ROOT=1",
		},
		OnPort: func(p redirect.ProxyPort) { s.ports <- p },
		Sink: func(batch observe.Batch, _ uint64) {
			s.mu.Lock()
			defer s.mu.Unlock()
			for _, d := range batch.Digests {
				s.records = append(s.records, batch.Records.Record(d.Place))
			}
		},
	}
	if change != nil {
		change(&config)
	}
	b, err := NewBackend(config)
	must(t, err)
	s.Backend = b
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = b.Run(ctx) }()
	s.stop = func() { cancel(); <-done }
	t.Cleanup(s.stop)
	return s
}

// mapFiles stand in for the maps: each says where it must arrive.
func mapFiles(t *testing.T) (files []*os.File) {
	for fd := DescriptorTCPMap; fd <= DescriptorServices; fd++ {
		path := filepath.Join(t.TempDir(), "map")
		must(t, os.WriteFile(path, fmt.Append(nil, "map", fd), 0o644))
		f, err := os.Open(path)
		must(t, err)
		t.Cleanup(func() { _ = f.Close() })
		files = append(files, f)
	}
	return files
}

func (s *supervised) port() redirect.ProxyPort {
	s.t.Helper()
	select {
	case p := <-s.ports:
		return p
	case <-time.After(patience):
		log, _ := os.ReadFile(filepath.Join(s.config.RunDir, logName))
		s.t.Fatalf("no port; %+v\n%s", s.Status(), log)
		return 0
	}
}

func (s *supervised) allowPublic(revision uint64) {
	s.t.Helper()
	id := policy.SetID{byte(revision)}
	set := &policy.L7Set{ID: id, Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{allow("GET", "/public")}}
	must(s.t, s.Enforce(s.t.Context(), redirect.Snapshot{
		Revision: revision, Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setA, Set: set}},
	}))
}

func get(t *testing.T, port redirect.ProxyPort, path string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	answer, err := client.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return 0
	}
	_ = answer.Body.Close()
	return answer.StatusCode
}

func TestBackendLifeCycle(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	defer s.Close()
	dir := t.TempDir()
	t.Cleanup(func() { _ = Terminate(context.Background(), dir) }) // after the agents have stopped

	a := supervise(t, dir, "v1", s.Listener.Addr().String(), nil)
	port := a.port()
	if got, err := a.Serve(t.Context(), redirect.Route{}); err != nil || got != port {
		t.Fatal(got, err)
	}
	if get(t, port, "/public") != 0 {
		t.Error("served without a policy")
	}
	a.allowPublic(5)
	if get(t, port, "/public") != 200 || get(t, port, "/secret") != 403 {
		t.Error("not served by the policy")
	}
	st := a.Status()
	if st.State != "ready" || st.Revision != 5 || st.PID == 0 || st.PID == os.Getpid() {
		t.Errorf("%+v", st)
	}
	eventually(t, "records arrive", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.records) >= 4 })

	// Killed: another one is started at once, and serves by the same policy.
	must(t, syscall.Kill(st.PID, syscall.SIGKILL))
	if p := a.port(); p != 0 {
		t.Fatal("the loss was not reported")
	}
	port = a.port()
	if get(t, port, "/public") != 200 || get(t, port, "/secret") != 403 {
		t.Error("not served by the last policy")
	}
	if log := a.logged(); !strings.Contains(log, "again_in=0s") {
		t.Errorf("another one was not started at once:\n%s", log)
	}
	pid := a.Status().PID

	// The agent ends, the proxy goes on, the next agent adopts it.
	a.stop()
	for range 10 { // soon the proxy notices that nobody takes records, and keeps them
		time.Sleep(30 * time.Millisecond)
		if get(t, port, "/public") != 200 {
			t.Error("the proxy ended with the agent")
		}
	}
	b := supervise(t, dir, "v1", s.Listener.Addr().String(), nil)
	if p := b.port(); p != port || b.Status().PID != pid || b.Status().Revision != 5 {
		t.Errorf("not adopted: port %d, %+v", p, b.Status())
	}
	eventually(t, "what was recorded in between arrives", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.records) >= 2 })

	// An adopted one that dies is noticed too.
	must(t, syscall.Kill(pid, syscall.SIGKILL))
	if p := b.port(); p != 0 {
		t.Fatal("the loss was not reported")
	}
	port = b.port()
	b.allowPublic(6)
	if get(t, port, "/public") != 200 {
		t.Error("not served")
	}
	pid = b.Status().PID

	must(t, b.Stop(t.Context()))
	if alive(pid) {
		t.Error("the process is still there")
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.sock")); len(left) > 0 {
		t.Error("sockets are left:", left)
	}
	must(t, Terminate(t.Context(), dir)) // nobody there
}

func TestBackendReplacesOtherVersion(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	defer s.Close()
	dir := t.TempDir()
	t.Cleanup(func() { _ = Terminate(context.Background(), dir) }) // after the agents have stopped
	a := supervise(t, dir, "v1", s.Listener.Addr().String(), nil)
	oldPort := a.port()
	a.allowPublic(5)
	oldPID := a.Status().PID
	open := (&running{t: t, addr: fmt.Sprintf("127.0.0.1:%d", oldPort)}).asker()
	open.send("GET /public")
	open.want(200, "hello /public")
	a.stop()

	b := supervise(t, dir, "v2", s.Listener.Addr().String(), nil)
	port := b.port()
	if st := b.Status(); port == oldPort || st.PID == oldPID || st.Version != "v2" {
		t.Errorf("%d %+v", port, st)
	}
	eventually(t, "the old one accepts no more", func() bool { return get(t, oldPort, "/public") == 0 })
	b.allowPublic(6)
	if get(t, port, "/public") != 200 {
		t.Error("the new one does not serve")
	}
	open.send("GET /public") // on the old one, by new rules
	open.want(200, "hello /public")
	// The next agent still knows of the one that drains.
	b.stop()
	c := supervise(t, dir, "v2", s.Listener.Addr().String(), nil)
	if c.port() != port {
		t.Error("not adopted")
	}
	must(t, c.Enforce(t.Context(), redirect.Snapshot{Revision: 7}))
	open.send("GET /public")
	open.want(403, denied)
	_ = open.c.Close()
	eventually(t, "the old one ends", func() bool { return !alive(oldPID) })
	eventually(t, "its socket goes", func() bool {
		left, _ := filepath.Glob(filepath.Join(dir, drainedGlob))
		return len(left) == 0
	})
	must(t, c.Stop(t.Context()))
}

// alive does not count a process that nobody has waited for.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

// As root the process gives up being root.
func TestBackendDropsPrivileges(t *testing.T) {
	if os.Getuid() != 0 {
		needed(t, "needs root")
	}
	dir := t.TempDir()
	// The test program lies where only root may look; what counts is its mode.
	program := filepath.Join(dir, "program")
	self, err := os.Executable()
	must(t, err)
	must(t, exec.Command("cp", self, program).Run())
	must(t, os.Chmod(program, 0o755))
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	t.Cleanup(func() { _ = Terminate(context.Background(), dir) }) // after the agents have stopped
	a := supervise(t, dir, "v1", "127.0.0.1:1", func(c *BackendConfig) {
		c.KeepUser, c.Executable = false, program
		c.Environment = []string{"HEADGATE_TEST_PROXY=v1"}
	})
	a.port()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.Status().PID))
	must(t, err)
	for _, want := range []string{"Uid:\t64210\t64210\t64210\t64210\n", "Gid:\t64210\t64210\t64210\t64210\n", "Groups:\t \n", "CapEff:\t0000000000001400\n", "NoNewPrivs:\t1\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	must(t, a.Stop(t.Context()))
}

// A program that ends at once is started again with pauses, and says so.
func TestBackendFailingProgram(t *testing.T) {
	a := supervise(t, t.TempDir(), "v1", "", func(c *BackendConfig) { c.Executable = "/bin/false" })
	eventually(t, "the status says why", func() bool { return strings.Contains(a.Status().Detail, "ended") })
	err := a.Enforce(t.Context(), redirect.Snapshot{})
	if st := a.Status(); st.State != "down" || err == nil || !strings.Contains(err.Error(), redirect.ErrNotReady.Error()) {
		t.Errorf("%+v %v", st, err)
	}
}

// needed ends a test that cannot run here. CI has what it takes.
func needed(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(what)
	}
	t.Skip(what)
}
