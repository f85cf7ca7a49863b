package integration

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// soakEnv is how long policy is changed under load; 'make soak-envoy' sets it. Without it
// a short time, and no measurement of memory.
const soakEnv = "HEADGATE_SOAK"

const churnRate = 10 // changes a second

// TestEnvoyChurn changes policies that are not about some open connections, ten a second:
// no request on these is lost or judged otherwise.
func TestEnvoyChurn(t *testing.T) {
	t.Parallel()
	lasts, soak := 10*time.Second, os.Getenv(soakEnv)
	if soak != "" {
		var err error
		if lasts, err = time.ParseDuration(soak); err != nil {
			t.Fatal(err)
		}
	}
	n := startNode(t, envoyFlags(t)...)
	client, server, other := n.workload(t, "client", "app=client"), n.workload(t, "server", "app=server"), n.workload(t, "other", "app=other")
	server.serveWeb(t, 8080)
	other.serveWeb(t, 8080)
	n.apply(t, allow("steady", "server", fromApp("client"), 8080, httpRule{"GET", "/yes"}))

	stop, done := make(chan struct{}), make(chan string, 4)
	var asked atomic.Int64
	for range cap(done) {
		go func() { done <- askUntil(client, server.at(4, 8080), stop, &asked) }()
	}
	api := n.api(t)
	before, began := cpuTime(t, n.agent.Process.Pid), time.Now()
	changes, slowest := 0, time.Duration(0)
	tick := time.NewTicker(time.Second / churnRate)
	defer tick.Stop()
	for time.Since(began) < lasts {
		<-tick.C
		at := time.Now()
		document := allow(fmt.Sprintf("churn%d", changes%5), "other", fromApp("client"), 8080, httpRule{"GET", fmt.Sprintf("/%d", changes)})
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		_, err := api.ApplyPolicies(ctx, &agentv1.ApplyPoliciesRequest{Files: []*agentv1.PolicyFile{{Name: "churn", Data: []byte(document)}}, Wait: true})
		cancel()
		if err != nil {
			t.Fatalf("change %d: %v", changes, err)
		}
		changes++
		slowest = max(slowest, time.Since(at))
	}
	took := time.Since(began)
	spent := cpuTime(t, n.agent.Process.Pid) - before
	close(stop)
	for range cap(done) {
		if wrong := <-done; wrong != "" {
			t.Error(wrong)
		}
	}
	if asked.Load() < 100 {
		t.Errorf("%d requests were asked, which is too few to say anything", asked.Load())
	}
	t.Logf("%d changes in %s (%.1f/s, slowest %s), %d requests on connections that they are not about; the agent took %s of processor time, %s a change",
		changes, took.Round(time.Second), float64(changes)/took.Seconds(), slowest.Round(time.Millisecond), asked.Load(), spent, (spent / time.Duration(max(changes, 1))).Round(100*time.Microsecond))
	if soak != "" {
		n.memoryAtTheCap(t)
	}
}

// askUntil asks on one connection until it is stopped; what goes wrong is returned.
func askUntil(from *workload, to netip.AddrPort, stop <-chan struct{}, asked *atomic.Int64) string {
	dialled := 0
	c := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{MaxConnsPerHost: 1, DialContext: func(context.Context, string, string) (net.Conn, error) {
		dialled++
		return from.dial(to, patience)
	}}}
	defer c.CloseIdleConnections()
	for {
		select {
		case <-stop:
			if dialled != 1 {
				return fmt.Sprintf("%d connections were needed, want one", dialled)
			}
			return ""
		case <-time.After(5 * time.Millisecond):
		}
		path, want := "/yes", http.StatusOK
		if asked.Add(1)%4 == 0 {
			path, want = "/no", http.StatusForbidden
		}
		resp, err := c.Get("http://" + to.String() + path)
		if err != nil {
			return fmt.Sprintf("GET %s: %v", path, err)
		}
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != want {
			return fmt.Sprintf("GET %s: %s, %v, want %d", path, resp.Status, err, want)
		}
	}
}

// memoryAtTheCap reports what Envoy takes with as many listeners as there may be.
func (n *node) memoryAtTheCap(t *testing.T) {
	t.Helper()
	const listeners = 1000 // beside those of the test
	pid := n.status(t).Backend.PID
	before := resident(t, pid)
	var text strings.Builder
	text.WriteString("apiVersion: cilium.io/v2\nkind: CiliumNetworkPolicy\nmetadata: {name: many}\nspec:\n  endpointSelector: {matchLabels: {app: other}}\n  ingress:\n  - fromEndpoints: [{matchLabels: {app: client}}]\n    toPorts:\n")
	for i := range listeners {
		fmt.Fprintf(&text, "    - ports: [{port: %q, protocol: TCP}]\n      rules: {http: [{method: GET, path: \"/%d\"}]}\n", strconv.Itoa(20000+i), i)
	}
	began := time.Now()
	n.mustRun(t, text.String(), "policy", "apply", "--timeout", "50s", "--wait=false", "-f", "-")
	n.waitFor(t, began.Add(3*time.Minute))
	took := time.Since(began)
	after := resident(t, pid)
	t.Logf("%d listeners: served within %s; Envoy's resident memory went from %d to %d MiB, %d KiB each", listeners, took.Round(100*time.Millisecond), before>>20, after>>20, (after-before)>>10/listeners)
	more := allow("more", "other", fromApp("client"), 9000, httpRule{"GET", "/"})
	for i := range 30 {
		more += "\n---\n" + allow(fmt.Sprintf("more%d", i), "other", fromApp("client"), 9001+i, httpRule{"GET", fmt.Sprintf("/more/%d", i)})
	}
	if o := n.try(t, more, "policy", "apply", "-f", "-"); o.code != 1 || !strings.Contains(o.stderr, "--envoy-max-listeners") {
		t.Errorf("more than there may be: exit code %d, %s", o.code, o.stderr)
	}
}

// waitFor waits until all is in force.
func (n *node) waitFor(t *testing.T, deadline time.Time) {
	t.Helper()
	for {
		s := n.status(t)
		if s.PolicyEnforced >= s.PolicyRevision {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("revision %d is not in force in time", s.PolicyRevision)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// api connects to the agent.
func (n *node) api(t *testing.T) agentv1.AgentClient {
	t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(n.run(), "headgate.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return agentv1.NewAgentClient(conn)
}

// cpuTime is what a process has spent.
func cpuTime(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	user, err1 := strconv.Atoi(fields[11])
	system, err2 := strconv.Atoi(fields[12])
	if err1 != nil || err2 != nil {
		t.Fatalf("read the time of process %d: %v, %v", pid, err1, err2)
	}
	return time.Duration(user+system) * 10 * time.Millisecond
}

// resident is a process's resident memory.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}
