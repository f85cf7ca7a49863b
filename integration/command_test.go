package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestExitCodes has commands succeed, fail and be misused: 0, 1 and 2, with one
// line on stderr that says why.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	n.workload(t, "web", "app=web")
	const unknownField = "apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: x}\nspec: {endpointSelector: {}, nonsense: 1}\n"
	netns, ownNetns := " --netns "+n.workloads[0].path, " --netns "+n.path
	dirs := " " + strings.Join(n.dirs(), " ")
	for i, c := range []struct {
		args  string
		input string
		code  int
		says  string
	}{
		{args: "check", code: 0},
		{args: "status", code: 0},
		{args: "status --wait", code: 0},
		{args: "endpoint get web", code: 0},
		{args: "observe --last 1 -o json", code: 0},
		{args: "endpoint get nobody", code: 1, says: "nobody"},
		{args: "endpoint add web" + netns, code: 1, says: "exists"},
		{args: "endpoint add new --netns /nonexistent", code: 1, says: "nonexistent"},
		{args: "endpoint add new" + ownNetns, code: 1, says: "the agent's own"},
		{args: "policy apply -f -", input: unknownField, code: 1, says: "nonsense"},
		{args: "policy validate -", input: unknownField, code: 1, says: "nonsense"},
		{args: "status --socket /nonexistent.sock", code: 1, says: "/nonexistent.sock"},
		{args: "cleanup" + dirs, code: 1, says: "running"},
		{args: "agent" + dirs, code: 1, says: "an agent is running"},
		{args: "agent --run-dir " + n.dir + "/other --state-dir " + n.dir + "/other", code: 1, says: "an agent is running"},
		{args: "", code: 0},
		{args: "nonsense", code: 2, says: "nonsense"},
		{args: "endpoint", code: 2},
		{args: "endpoint add", code: 2},
		{args: "endpoint add new", code: 2, says: "--netns"},
		{args: "endpoint get web --nonsense", code: 2, says: "--nonsense"},
		{args: "endpoint list -o nonsense", code: 2, says: "nonsense"},
		{args: "observe --verdict NONSENSE", code: 2, says: "NONSENSE"},
		{args: "agent --enforcement nonsense", code: 2, says: "nonsense"},
		{args: "agent --endpoint-cidr nonsense", code: 2, says: "nonsense"},
		{args: "status extra", code: 2},
	} {
		words := strings.Fields(c.args)
		t.Run(fmt.Sprint(i, " ", strings.Join(words[:min(2, len(words))], " ")), func(t *testing.T) {
			o := n.try(t, c.input, words...)
			if o.code != c.code {
				t.Fatalf("exit code %d, want %d\n%s%s", o.code, c.code, o.stdout, o.stderr)
			}
			if !strings.Contains(o.stderr, c.says) {
				t.Errorf("stderr is %q, want something about %q", o.stderr, c.says)
			}
			if lines := strings.Count(o.stderr, "\n"); c.code != 0 && lines != 1 && words[1] != "validate" { // which lists what is wrong
				t.Errorf("stderr has %d lines, want one: %s", lines, o.stderr)
			}
		})
	}
}

// TestStatusWhenNotWell has a proxy that cannot come back, then no agent.
func TestStatusWhenNotWell(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	log := filepath.Join(n.run(), "proxy.log")
	if err := os.Rename(log, log+".kept"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(log, 0o700); err != nil { // so that no other proxy can be started
		t.Fatal(err)
	}
	kill(t, n.proxyPID(t))
	eventually(t, patience, "status says that the proxy is gone", func() error {
		o := n.try(t, "", "status")
		if o.code != 1 || !strings.Contains(o.stderr, "proxy") {
			return fmt.Errorf("exit code %d: %s", o.code, o.stderr)
		}
		return nil
	})
	if o := n.try(t, "", "status", "--wait", "--wait-duration", "500ms"); o.code != 1 {
		t.Errorf("status --wait: exit code %d without a proxy", o.code)
	}
	if err := os.Remove(log); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(log+".kept", log); err != nil {
		t.Fatal(err)
	}
	n.waitUntilWell(t)
	n.stopAgent(t)
	if o := n.try(t, "", "status"); o.code != 1 || !strings.Contains(o.stderr, "headgate.sock") {
		t.Errorf("status without an agent: exit code %d: %s", o.code, o.stderr)
	}
}

// TestStuckProxy stops the proxy without ending it. Nothing passes, and the agent
// puts another in its place.
func TestStuckProxy(t *testing.T) {
	t.Parallel()
	p := newProxied(t, ownBackend)
	stuck := p.proxyPID(t)
	if err := unix.Kill(stuck, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	p.web.forget()
	if s, err := p.clients[0].open(p.server.at(4, 80), patience); err == nil { // the kernel accepts for it
		_ = s.SetDeadline(time.Now().Add(refusalTime))
		fmt.Fprintf(s, "GET /denied HTTP/1.1\r\nHost: server\r\n\r\n")
		if b, err := s.read.ReadByte(); !isTimeout(err) {
			t.Errorf("a stopped proxy answered: %#x, %v", b, err)
		}
		s.Close()
	}
	if seen := p.web.requests(); len(seen) > 0 {
		t.Errorf("the server saw %v", seen)
	}
	eventually(t, 3*patience, "another proxy", func() error { return p.wellWithout(t, stuck) })
	eachVersion(t, func(t *testing.T, v ipVersion) {
		p.clients[0].mustAsk(t, p.server.at(v, 80), "GET", "/allowed", 200)
		p.clients[0].mustAsk(t, p.server.at(v, 80), "GET", "/denied", 403)
	})
	eventually(t, patience, "the end of the stuck proxy", func() error {
		if running(stuck) {
			return fmt.Errorf("process %d is still there", stuck)
		}
		return nil
	})
	p.web.forget()
	p.clients[0].mustAsk(t, p.server.at(4, 80), "GET", "/allowed", 200)
	p.onlyAllowed(t)
}

// TestProxyProcess looks at what the process may do that reads what strangers send.
func TestProxyProcess(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	check := func(t *testing.T) {
		pid := n.proxyPID(t)
		facts := processStatus(t, pid)
		for _, name := range []string{"Uid", "Gid"} {
			for _, id := range strings.Fields(facts[name]) {
				if id == "0" {
					t.Errorf("the proxy has %s %s", name, facts[name])
				}
			}
		}
		if facts["Groups"] != "" {
			t.Errorf("the proxy is in the groups %s", facts["Groups"])
		}
		if facts["NoNewPrivs"] != "1" {
			t.Errorf("the proxy may gain privileges: NoNewPrivs %s", facts["NoNewPrivs"])
		}
		const netAdmin, netBindService = 1 << unix.CAP_NET_ADMIN, 1 << unix.CAP_NET_BIND_SERVICE
		for _, name := range []string{"CapEff", "CapPrm"} {
			var caps uint64
			if _, err := fmt.Sscanf(facts[name], "%x", &caps); err != nil || caps&netAdmin == 0 || caps&^(netAdmin|netBindService) != 0 {
				t.Errorf("the proxy has the capabilities %s=%s, %v", name, facts[name], err)
			}
		}
		session, err := unix.Getsid(pid)
		if err != nil || session != pid {
			t.Errorf("the proxy %d is in session %d, %v: it would end with another's", pid, session, err)
		}
		if ns, err := os.Stat(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil || ns.Sys().(*syscall.Stat_t).Ino != n.inode {
			t.Errorf("the proxy is not in the network namespace of the node: %v", err)
		}
	}
	check(t)
	entries, err := os.ReadDir(n.run())
	if err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Type() == os.ModeSocket {
			sockets++
		}
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", e.Name(), info.Mode())
		}
	}
	if sockets != 3 {
		t.Errorf("there are %d sockets in the run directory: %v", sockets, entries)
	}
	if info, err := os.Stat(n.state()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the state directory: %v, %v", info.Mode(), err)
	}
	old := n.proxyPID(t)
	n.killAgent()
	n.startAgent(t)
	if now := n.proxyPID(t); now != old {
		t.Errorf("the proxy is %d after the agent was replaced, and was %d", now, old)
	}
	check(t)
}

// processStatus is /proc/PID/status.
func processStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	facts := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		facts[name] = strings.TrimSpace(value)
	}
	return facts
}
