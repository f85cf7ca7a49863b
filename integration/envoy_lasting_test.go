package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

// envoyBackend is a stock Envoy with one worker.
func envoyBackend(t *testing.T) backend {
	t.Helper()
	return backend{name: "envoy", bound: true, flags: envoyFlags(t)}
}

// TestEnvoyEndsStreams: streams that last end when policy forbids them, with the
// connection that they are on; no other connection loses anything.
func TestEnvoyEndsStreams(t *testing.T) {
	t.Parallel()
	n := startNode(t, envoyBackend(t).flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	l := &lasting{node: n, server: server, client: client, calls: server.serveCalls(t, 50051)}
	server.serveHTTP2(t, 80)
	t.Run("calls", l.callsEnd)
	t.Run("after an agent", l.anotherAgentEndsCalls)
	t.Run("by headers", l.judgedByHeaders)
}

// lasting is a node with streams that do not end by themselves.
type lasting struct {
	*node
	server, client *workload
	calls          *callServer
}

func (l *lasting) applyCalls(t *testing.T, rules string) {
	l.apply(t, allowCalls("calls", 50051, rules, "{path: /none}"))
}

const healthAndSlow, healthOnly = "{service: grpc.health.v1.Health}, {service: slow.Svc}", "{service: grpc.health.v1.Health}"

// begin opens a call that lasts, and waits until the server has it.
func (l *lasting) begin(ctx context.Context, t *testing.T, c *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/slow.Svc/Wait")
	if err == nil {
		err = s.SendMsg(&healthpb.HealthCheckRequest{})
	}
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-l.calls.begun:
	case <-ctx.Done():
		t.Fatal("the call did not come to the server")
	}
	return s
}

// ends waits for the end of such a call, at both ends.
func (l *lasting) ends(t *testing.T, s grpc.ClientStream) {
	t.Helper()
	if err := s.RecvMsg(&healthpb.HealthCheckResponse{}); err == nil || status.Code(err) == codes.DeadlineExceeded {
		t.Errorf("a call that is forbidden now goes on: %v", err)
	}
	select {
	case err := <-l.calls.ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("the server saw %v", err)
		}
	case <-time.After(6 * patience):
		t.Error("the server still has a call that is forbidden now")
	}
}

func (l *lasting) callsEnd(t *testing.T) {
	l.applyCalls(t, healthAndSlow)
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	mixed, young, other := l.client.dialCalls(t, l.server.at(4, 50051)), l.client.dialCalls(t, l.server.at(6, 50051)), l.client.dialCalls(t, l.server.at(4, 50051))
	watch, err := healthpb.NewHealthClient(other).Watch(ctx, &healthpb.HealthCheckRequest{})
	if err == nil {
		_, err = watch.Recv()
	}
	if err != nil {
		t.Fatal(err)
	}
	old := l.begin(ctx, t, mixed)
	// Requests without pause on a connection that has nothing forbidden.
	stop := make(chan struct{})
	var load sync.WaitGroup
	count := 0
	load.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := healthpb.NewHealthClient(other).Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
				t.Errorf("a connection that it is not about: %v", err)
				return
			}
			count++
		}
	})
	time.Sleep(1500 * time.Millisecond) // Envoy has told of the old one; of the next it has not
	fresh := l.begin(ctx, t, young)
	l.applyCalls(t, healthOnly)
	l.ends(t, old)
	l.ends(t, fresh)
	if _, err := healthpb.NewHealthClient(mixed).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Errorf("a call that is allowed, after that: %v", err)
	}
	l.calls.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if r, err := watch.Recv(); err != nil || r.Status != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("a stream that is allowed still: %v %v", r, err)
	}
	close(stop)
	load.Wait()
	if count == 0 {
		t.Error("there was no load")
	}
	l.awaitFlow(t, "the end of the call", []string{"--type", "l7", "--verdict", "DROPPED", "--http-path", "/slow.Svc/Wait"}, func(f *flowpb.Flow) bool {
		return f.GetIP().GetSource() == l.client.addr(4).String()
	})
}

// anotherAgentEndsCalls: Envoy tells the next agent too of what lasts.
func (l *lasting) anotherAgentEndsCalls(t *testing.T) {
	l.applyCalls(t, healthAndSlow)
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	s := l.begin(ctx, t, l.client.dialCalls(t, l.server.at(6, 50051)))
	l.killAgent()
	l.startAgent(t)
	l.applyCalls(t, healthOnly)
	l.ends(t, s)
}

// judgedByHeaders: a change that allows a request still does not end it, whichever header
// allows it; one that asks for a header when the request is under way does.
func (l *lasting) judgedByHeaders(t *testing.T) {
	rule := func(http ...string) string {
		text := allow("web", "server", fromApp("client"), 80) + "      rules:\n        http:\n"
		for _, h := range http {
			text += "        - " + h + "\n"
		}
		return text
	}
	const byTeam, byPath = `{path: /up, headers: ["X-Team: a"]}`, `{path: /plain}`
	l.apply(t, rule(byTeam, byPath))
	upload := func(path string) (*io.PipeWriter, chan error) {
		body, w := io.Pipe()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+l.server.at(4, 80).String()+path, body)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Team", "a")
		done := make(chan error, 1)
		c := l.client.http2Client(t)
		go func() {
			answer, err := c.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, answer.Body)
				answer.Body.Close()
			}
			if err == nil && answer.StatusCode != http.StatusOK {
				err = errors.New(answer.Status)
			}
			done <- err
		}()
		if _, err := io.WriteString(w, "begun"); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		return w, done
	}
	goesOn := func(what string, w *io.PipeWriter, done chan error) {
		select {
		case err := <-done:
			t.Errorf("%s: it ended: %v", what, err)
		case <-time.After(3 * time.Second): // Envoy has told of it, and it has been judged again
			if _, err := io.WriteString(w, "more"); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	ended := func(what string, done chan error) {
		select {
		case err := <-done:
			if err == nil || strings.HasPrefix(err.Error(), "200") {
				t.Errorf("%s: it had its answer", what)
			}
		case <-time.After(6 * patience):
			t.Errorf("%s: it goes on", what)
		}
	}
	team, teamDone := upload("/up")
	l.apply(t, rule(byTeam, byPath, `{path: /other}`))
	goesOn("a change elsewhere in the rules", team, teamDone)
	l.apply(t, rule(byPath))
	ended("the rule by a header is gone", teamDone)

	plain, plainDone := upload("/plain")
	l.apply(t, rule(byPath, `{path: /other, headers: ["X-Team: b"]}`))
	goesOn("a rule by a header that it is not about", plain, plainDone)
	l.apply(t, rule(fmt.Sprintf(`{path: /plain, headers: [%q]}`, "X-Team: a")))
	ended("a rule asks for a header that nobody kept", plainDone)
}
