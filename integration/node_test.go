package integration

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// node is a machine of its own as far as networks go, with headgate on it.
type node struct {
	*namespace
	dir       string
	binary    string
	flags     []string
	agent     *child // nil: none was started
	workloads []*workload
	links     []string // interfaces of the test's own
}

// startNode starts an agent in a new namespace and waits until all is well.
func startNode(t *testing.T, flags ...string) *node {
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
	n := &node{namespace: ns, dir: dir, binary: headgateBinary(t), flags: flags, links: slices.Clone(ns.born)}
	t.Cleanup(func() { n.remove(t) })
	n.startAgent(t)
	return n
}

func (n *node) run() string   { return filepath.Join(n.dir, "run") }
func (n *node) state() string { return filepath.Join(n.dir, "state") }
func (n *node) dirs() []string {
	return []string{"--run-dir", n.run(), "--state-dir", n.state()}
}

// startAgent starts an agent and waits until all is well.
func (n *node) startAgent(t *testing.T) {
	t.Helper()
	n.launchAgent(t)
	n.waitUntilWell(t)
}

// launchAgent starts an agent.
func (n *node) launchAgent(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(n.agentLog(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	args := append([]string{"agent", "--node-name", "node1"}, n.dirs()...)
	cmd := exec.Command(n.binary, append(args, n.flags...)...)
	cmd.Stdout, cmd.Stderr = log, log
	if n.agent, err = n.start(cmd); err != nil {
		t.Fatal("start the agent:", err)
	}
}

func (n *node) waitUntilWell(t *testing.T) {
	t.Helper()
	n.headgate(t, "status", "--wait", "--wait-duration", (2 * patience).String())
}

// stopAgent stops the agent alone, as a service manager would.
func (n *node) stopAgent(t *testing.T) {
	t.Helper()
	if !n.agent.end(syscall.SIGTERM, patience) {
		t.Errorf("the agent did not end within %s after SIGTERM", patience)
	} else if n.agent.err != nil {
		t.Errorf("the agent, stopped by SIGTERM: %v", n.agent.err)
	}
}

// killAgent ends the agent without a warning.
func (n *node) killAgent() { n.agent.end(syscall.SIGKILL, patience) }

func (n *node) agentLog() string { return filepath.Join(n.dir, "agent.log") }

// outcome is what a command did.
type outcome struct {
	stdout, stderr string
	code           int
}

// try runs a command of headgate on the node, with input.
func (n *node) try(t *testing.T, input string, args ...string) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.binary, args...)
	cmd.Env = append(os.Environ(), "HEADGATE_SOCKET="+filepath.Join(n.run(), "headgate.sock"))
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(input), &stdout, &stderr
	c, err := n.start(cmd)
	if err != nil {
		t.Fatalf("headgate %s: %v", strings.Join(args, " "), err)
	}
	<-c.done
	var exit *exec.ExitError
	if c.err != nil && (!errors.As(c.err, &exit) || exit.ExitCode() < 0) {
		t.Fatalf("headgate %s: %v\n%s", strings.Join(args, " "), c.err, stderr.String())
	}
	return outcome{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// headgate runs a command that must succeed and returns what it printed.
func (n *node) headgate(t *testing.T, args ...string) string {
	t.Helper()
	return n.mustRun(t, "", args...)
}

func (n *node) mustRun(t *testing.T, input string, args ...string) string {
	t.Helper()
	o := n.try(t, input, args...)
	if o.code != 0 {
		t.Fatalf("headgate %s: exit code %d\n%s%s", strings.Join(args, " "), o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// apply puts policies in force. They stay so until withdraw.
func (n *node) apply(t *testing.T, policies ...string) {
	t.Helper()
	documents := strings.Join(policies, "\n---\n")
	n.mustRun(t, documents, "policy", "apply", "-f", "-")
}

// withdraw takes policies back that apply put in force.
func (n *node) withdraw(t *testing.T, policies ...string) {
	t.Helper()
	n.mustRun(t, strings.Join(policies, "\n---\n"), "policy", "delete", "-f", "-")
}

// remove ends everything and sees to it that headgate leaves nothing behind.
func (n *node) remove(t *testing.T) {
	if t.Failed() {
		n.showLogs(t)
	}
	if n.agent != nil && !n.agent.ended() {
		n.stopAgent(t)
	}
	o := n.try(t, "", append([]string{"cleanup"}, n.dirs()...)...)
	if o.code != 0 {
		t.Errorf("headgate cleanup: exit code %d: %s", o.code, o.stderr)
	}
	n.checkNothingLeft(t)
	for _, w := range n.workloads {
		w.close()
	}
	n.close()
	if err := os.RemoveAll(n.dir); err != nil {
		t.Error(err)
	}
}

// logShown is how much of the end of a log is shown.
const logShown = 16 << 10

func (n *node) showLogs(t *testing.T) {
	for _, path := range []string{n.agentLog(), filepath.Join(n.run(), "proxy.log"), filepath.Join(n.run(), "envoy", "envoy.log")} {
		text, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Log(err)
			continue
		}
		t.Logf("%s:\n%s", filepath.Base(path), text[max(0, len(text)-logShown):])
	}
}
