package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
)

// copyProgram puts a copy of a program where another may run from.
func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	writeProgram(t, to, in)
}

func writeProgram(t *testing.T, to string, in io.Reader) {
	t.Helper()
	out, err := os.OpenFile(to+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.Copy(out, in); err == nil {
		err = out.Close()
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestEnvoyHandsOver: an agent that finds another program in the place of Envoy's has it
// take over from the one that runs, and no request is lost. What lasts goes on with the one
// before, until a rule changes; one that does not take over does not keep old rules in force.
func TestEnvoyHandsOver(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "envoy")
	copyProgram(t, envoyBinary(t), path)
	n := startNode(t, "--backend", "envoy", "--envoy-path", path, "--envoy-workers", "2")
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	server.serveHTTP2(t, 80)
	server.serveHTTP2(t, 82)
	calls := server.serveCalls(t, 50051)
	n.apply(t, allow("http", "server", fromApp("client"), 80, httpRule{"GET", "/allowed"}), allowCalls("calls", 50051, healthOnly, "{path: /none}"))

	l := newLoad()
	for _, v := range []ipVersion{4, 6} {
		c := clientOf(client, server, v)
		for _, keep := range []bool{true, false} {
			l.asks(c, "/allowed", http.StatusOK, keep)
			l.asks(c, "/denied", http.StatusForbidden, keep)
		}
	}
	second := client.http2Client(t)
	url := "http://" + server.at(4, 80).String() + "/allowed"
	l.repeat("HTTP/2", func() error {
		r, err := second.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		if _, err := io.Copy(io.Discard, r.Body); err != nil || r.StatusCode != http.StatusOK {
			return fmt.Errorf("%s, %w", r.Status, err)
		}
		return nil
	})
	ctx, cancel := context.WithTimeout(t.Context(), 10*patience)
	defer cancel()
	watch, err := grpc_health_v1.NewHealthClient(client.dialCalls(t, server.at(6, 50051))).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	first := n.status(t).Backend.PID

	// Another agent, and the same Envoy: nothing happens to it.
	n.stopAgent(t)
	n.startAgent(t)
	if pid := n.status(t).Backend.PID; pid != first {
		t.Errorf("Envoy is process %d after a restart of the agent, it was %d", pid, first)
	}

	n.stopAgent(t)
	copyProgram(t, envoyBinary(t), path)
	n.startAgent(t)
	next := n.status(t).Backend.PID
	if next == first || next == 0 {
		t.Fatalf("Envoy is process %d, it was %d", next, first)
	}
	if !running(first) {
		t.Error("the one before does not drain")
	}
	calls.SetServingStatus("", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	if r, err := watch.Recv(); err != nil || r.Status != grpc_health_v1.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a stream that lasts: %v %v", r, err)
	}
	client.mustAsk(t, server.at(4, 80), "GET", "/allowed", 200)

	// What is not about its connections leaves it alone; a change of their rules ends these.
	n.apply(t, allow("other", "server", fromApp("client"), 81, httpRule{"GET", "/other"}))
	if !running(first) {
		t.Error("the one before was ended for a rule that it does not know")
	}
	// Each kept connection was told to end with its next answer: so no request is under way
	// there that a change could cut, but the stream that lasts.
	eventually(t, patience, "the connections moved", func() error { return n.onlyLasting(t, first) })
	n.apply(t, allow("http", "server", fromApp("client"), 80, httpRule{"GET", "/allowed"}, httpRule{"GET", "/more"}))
	if _, err := watch.Recv(); err == nil || ctx.Err() != nil {
		t.Errorf("a stream of the one before goes on: %v", err)
	}
	client.mustAsk(t, server.at(6, 80), "GET", "/more", 200)
	l.end(t)

	// It lives on, with nothing: the next one asks it for each socket that it is to listen
	// on, and would end if nobody answered.
	if out := n.command(t, "ss", "-tanpH"); strings.Contains(out, fmt.Sprintf("pid=%d,", first)) {
		t.Errorf("the one before still has connections, or accepts some:\n%s", out)
	}
	time.Sleep(20 * time.Second)
	n.apply(t, allow("late", "server", fromApp("client"), 82, httpRule{"GET", "/late"}))
	client.mustAsk(t, server.at(4, 82), "GET", "/late", 200)
	client.mustAsk(t, server.at(6, 82), "GET", "/denied", 403)
	if pid := n.status(t).Backend.PID; pid != next || !running(first) {
		t.Errorf("Envoy is process %d, it was %d; the one before lives: %t", pid, next, running(first))
	}

	// Another upgrade while it drains begins anew.
	n.stopAgent(t)
	copyProgram(t, envoyBinary(t), path)
	n.startAgent(t)
	third := n.status(t).Backend.PID
	if third == next || third == 0 || running(first) || running(next) {
		t.Errorf("Envoy is process %d, it was %d and %d, of which live %t and %t", third, next, first, running(next), running(first))
	}
	client.mustAsk(t, server.at(4, 80), "GET", "/more", 200)

	// One that does not take over: the one before does not go on by rules that have changed.
	n.stopAgent(t)
	writeProgram(t, path, strings.NewReader("#!/bin/sh\nexec /bin/sleep 1000\n"))
	n.launchAgent(t)
	eventually(t, patience, "a change is taken", func() error {
		o := n.try(t, allow("http", "server", fromApp("client"), 80, httpRule{"GET", "/more"}), "policy", "apply", "--wait=false", "-f", "-")
		if o.code != 0 {
			return fmt.Errorf("exit code %d: %s", o.code, o.stderr)
		}
		return nil
	})
	eventually(t, patience, "what is forbidden is closed", func() error {
		if code := client.askOnce(t, server.at(4, 80), "/allowed"); code != "" {
			return fmt.Errorf("it is answered %s", code)
		}
		return nil
	})
	eventually(t, 2*patience, "the one before does not go on by rules that have changed", func() error {
		if running(third) {
			return fmt.Errorf("process %d does", third)
		}
		return nil
	})
	n.stopAgent(t)
	copyProgram(t, envoyBinary(t), path)
	n.startAgent(t)
	client.mustAsk(t, server.at(4, 80), "GET", "/more", 200)
	client.mustAsk(t, server.at(6, 80), "GET", "/allowed", 403)
}

func clientOf(from, to *workload, v ipVersion) client {
	return client{from.name + " " + v.String(), from.namespace, to.at(v, 80)}
}

// onlyLasting says which connections to port 80 a process still has.
func (n *node) onlyLasting(t *testing.T, pid int) error {
	t.Helper()
	out := n.command(t, "ss", "-tnpH", "state", "established", "( sport = :80 )")
	var left []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, fmt.Sprintf("pid=%d,", pid)) {
			left = append(left, strings.TrimSpace(line))
		}
	}
	if len(left) > 0 {
		return fmt.Errorf("it still has %s", strings.Join(slices.Compact(left), "; "))
	}
	return nil
}
