package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startUnwell is startNode for an agent that is not well yet.
func startUnwell(t *testing.T, flags ...string) *node {
	t.Helper()
	needPrivileges(t)
	dir, err := os.MkdirTemp(baseDir, "n")
	if err != nil {
		t.Fatal(err)
	}
	ns, err := openNamespace()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{namespace: ns, dir: dir, binary: headgateBinary(t), flags: flags, links: []string{"lo"}}
	t.Cleanup(func() { n.remove(t) })
	n.launchAgent(t)
	eventually(t, patience, "the agent to answer", func() error {
		if o := n.try(t, "", "status", "-o", "json"); o.stdout == "" {
			return fmt.Errorf("%s", o.stderr)
		}
		return nil
	})
	return n
}

// runEnvoy starts an Envoy as 'xds bootstrap' says.
func (n *node) runEnvoy(t *testing.T) *child {
	t.Helper()
	path := filepath.Join(n.dir, "envoy.yaml")
	text := n.headgate(t, "xds", "bootstrap", "--run-dir", n.run(), "--node-name", "node1")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var args []string
	for _, line := range strings.Split(text, "\n") {
		if _, rest, ok := strings.Cut(line, "envoy -c THIS_FILE.yaml "); ok {
			args = append([]string{"-c", path}, strings.Fields(rest)...)
		}
	}
	if args == nil {
		t.Fatalf("the bootstrap does not say how Envoy is started:\n%s", text)
	}
	c, err := n.start(exec.Command(envoyBinary(t), args...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.end(syscall.SIGKILL, patience) })
	return c
}

// TestEnvoyExternal has somebody else run Envoy: ports are closed until it is there, it
// goes on while the agent is away, and one that hangs is ended when there is a change that
// it does not take.
func TestEnvoyExternal(t *testing.T) {
	t.Parallel()
	n := startUnwell(t, "--backend", "envoy", "--envoy-external")
	client, server := n.workload(t, "client", "app=client"), n.workload(t, "server", "app=server")
	server.serveWeb(t, 8080)
	to := server.at(4, 8080)
	rules := allow("rules", "server", fromApp("client"), 8080, httpRule{"GET", "/yes.*"})
	n.mustRun(t, rules, "policy", "apply", "--wait=false", "-f", "-")
	if answer := client.askOnce(t, to, "/yes"); answer != "" {
		t.Errorf("without Envoy the answer is %q", answer)
	}
	if o := n.try(t, "", "status"); o.code != 1 || !strings.Contains(o.stderr, "xds bootstrap") {
		t.Errorf("without Envoy status says %d, %s", o.code, o.stderr)
	}

	envoy := n.runEnvoy(t)
	n.waitUntilWell(t)
	expect := func(path, want string) {
		t.Helper()
		eventually(t, patience, "the answer to "+path, func() error {
			if answer := client.askOnce(t, to, path); answer != want {
				return fmt.Errorf("it is %q, want %q", answer, want)
			}
			return nil
		})
	}
	expect("/yes", "200")
	expect("/no", "403")
	n.stopAgent(t)
	expect("/yes", "200")
	n.startAgent(t)
	expect("/no", "403")
	if pid := n.status(t).Backend.PID; pid != envoy.Process.Pid {
		t.Errorf("status says that process %d enforces, want %d", pid, envoy.Process.Pid)
	}

	// It hangs: a change that it does not take ends it.
	if err := envoy.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	changed := allow("rules", "server", fromApp("client"), 8080, httpRule{"GET", "/other"})
	n.mustRun(t, changed, "policy", "apply", "--wait=false", "-f", "-")
	select {
	case <-envoy.done:
	case <-time.After(time.Minute):
		t.Fatal("an Envoy that does not take a change is left alone")
	}
	if answer := client.askOnce(t, to, "/yes"); answer != "" {
		t.Errorf("once Envoy is ended the answer is %q", answer)
	}
	n.runEnvoy(t)
	n.waitUntilWell(t)
	expect("/other", "200")
	expect("/yes", "403")
}

// askOnce asks and returns the status; none if there was no answer.
func (w *workload) askOnce(t *testing.T, to netip.AddrPort, path string) string {
	t.Helper()
	out := w.run(t, "curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "2", "--noproxy", "*", "http://"+to.String()+path)
	return strings.TrimPrefix(out, "000")
}
