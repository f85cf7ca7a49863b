package integration

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// story is the demo's: an imperial server, a friend and a stranger.
type story struct {
	*node
	backend                  backend
	server, friend, stranger *workload
	web                      *webServer
}

// TestStory goes from no policy by L3/L4 to L7, and looks at verdicts, at flows,
// and at what the server sees of its clients.
func TestStory(t *testing.T) { eachBackend(t, tellStory) }

func tellStory(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	s := &story{
		node: n, backend: b,
		server:   n.workload(t, "deathstar", "org=empire", "class=deathstar"),
		friend:   n.workload(t, "tiefighter", "org=empire", "class=tiefighter"),
		stranger: n.workload(t, "xwing", "org=alliance", "class=xwing"),
	}
	s.web = s.server.serveWeb(t, 80)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		t.Run("without policy", func(t *testing.T) { s.withoutPolicy(t, v) })
		t.Run("L3 and L4", func(t *testing.T) { s.withL4(t, v) })
		t.Run("L7", func(t *testing.T) { s.withL7(t, v) })
		t.Run("withdrawn", func(t *testing.T) { s.withdrawn(t, v) })
	})
}

// demoPolicy is one of those that the demo applies.
func demoPolicy(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "examples", "starwars", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// from matches the flows of one connection, by the client's end.
func from(client netip.AddrPort, more func(*flowpb.Flow) bool) func(*flowpb.Flow) bool {
	return func(f *flowpb.Flow) bool {
		return f.GetIP().GetSource() == client.Addr().String() && int(f.GetL4().GetTCP().GetSourcePort()) == int(client.Port()) && more(f)
	}
}

func (s *story) withoutPolicy(t *testing.T, v ipVersion) {
	for _, w := range []*workload{s.friend, s.stranger} {
		c := w.mustOpen(t, s.server.at(v, 80))
		c.mustAsk(t, "PUT", "/v1/exhaust-port", 200)
		f := s.awaitFlow(t, "a connection without policy", nil, from(endOf(c.LocalAddr()), func(f *flowpb.Flow) bool {
			return f.GetType() == flowpb.FlowType_L3_L4
		}))
		if f.GetVerdict() != flowpb.Verdict_FORWARDED {
			t.Errorf("verdict %s without policy", f.GetVerdict())
		}
		s.checkParties(t, f, w)
	}
}

// checkParties looks at who a flow is said to be between.
func (s *story) checkParties(t *testing.T, f *flowpb.Flow, client *workload) {
	t.Helper()
	for _, end := range []struct {
		is   *flowpb.Endpoint
		want *workload
	}{{f.GetSource(), client}, {f.GetDestination(), s.server}} {
		if end.is.GetIdentity() != end.want.Identity || end.is.GetPodName() != end.want.name || end.is.GetNamespace() != "default" {
			t.Errorf("flow names %v, want endpoint %s with identity %d", end.is, end.want.name, end.want.Identity)
		}
		for k, v := range end.want.Labels {
			if !slices.Contains(end.is.GetLabels(), "k8s:"+k+"="+v) {
				t.Errorf("flow gives %s the labels %v, without %s=%s", end.want.name, end.is.GetLabels(), k, v)
			}
		}
	}
	if f.GetNodeName() != "node1" {
		t.Errorf("flow of node %q", f.GetNodeName())
	}
}

func (s *story) withL4(t *testing.T, v ipVersion) {
	s.apply(t, demoPolicy(t, "l3-l4.yaml"))
	s.web.forget()
	c := s.friend.mustOpen(t, s.server.at(v, 80))
	c.mustAsk(t, "PUT", "/v1/exhaust-port", 200)
	s.stranger.mustNotConnect(t, s.server.at(v, 80))
	s.friend.mustNotConnect(t, s.server.at(v, 81))
	if seen := s.web.requests(); len(seen) != 1 || seen[0].from != endOf(c.LocalAddr()) {
		t.Errorf("the server saw %v, want one request from %s", seen, c.LocalAddr())
	}
	f := s.awaitFlow(t, "a connection that a rule allows", nil, from(endOf(c.LocalAddr()), func(f *flowpb.Flow) bool {
		return f.GetTrafficDirection() == flowpb.TrafficDirection_INGRESS
	}))
	if allowed := f.GetIngressAllowedBy(); len(allowed) != 1 || allowed[0].GetName() != "rule1" || allowed[0].GetNamespace() != "default" {
		t.Errorf("flow is allowed by %v, want default/rule1", allowed)
	}
	f = s.awaitFlow(t, "the stranger's packet", []string{"--verdict", "DROPPED"}, func(f *flowpb.Flow) bool {
		return f.GetIP().GetSource() == s.stranger.addr(v).String() && f.GetL4().GetTCP().GetDestinationPort() == 80
	})
	if f.GetDropReasonDesc() != flowpb.DropReason_POLICY_DENIED || f.GetTrafficDirection() != flowpb.TrafficDirection_INGRESS {
		t.Errorf("dropped for %s, %s", f.GetDropReasonDesc(), f.GetTrafficDirection())
	}
	s.checkParties(t, f, s.stranger)
}

func (s *story) withL7(t *testing.T, v ipVersion) {
	s.apply(t, demoPolicy(t, "l7.yaml"))
	s.web.forget()
	c := s.friend.mustOpen(t, s.server.at(v, 80))
	landing := c.mustAsk(t, "POST", "/v1/request-landing", 200)
	c.mustAsk(t, "PUT", "/v1/exhaust-port", 403)
	c.mustAsk(t, "POST", "/v1/request-landing", 200) // a denied request does not end the connection
	s.stranger.mustNotConnect(t, s.server.at(v, 80))
	client := endOf(c.LocalAddr())
	if got := landing.header.Get("X-From"); !s.backend.same(got, client) {
		t.Errorf("the server sees %s, and the client is %s", got, client)
	}
	for _, r := range s.web.requests() {
		if r.path != "/v1/request-landing" || !s.backend.same(r.from.String(), client) {
			t.Errorf("the server saw %v", r)
		}
	}
	s.awaitFlow(t, "a redirected connection", []string{"--verdict", "REDIRECTED"}, from(client, func(*flowpb.Flow) bool { return true }))
	s.requestFlows(t, client, "POST", "/v1/request-landing", flowpb.Verdict_FORWARDED, 200)
	s.requestFlows(t, client, "PUT", "/v1/exhaust-port", flowpb.Verdict_DROPPED, 403)
	s.curl(t, v)
}

// requestFlows looks for a request and its answer.
func (s *story) requestFlows(t *testing.T, client netip.AddrPort, method, path string, verdict flowpb.Verdict, status uint32) {
	t.Helper()
	filter := []string{"--type", "l7", "--http-method", method, "--http-path", path, "--port", strconv.Itoa(int(client.Port()))}
	f := s.awaitFlow(t, method+" "+path, filter, from(client, func(f *flowpb.Flow) bool {
		return f.GetL7().GetType() == flowpb.L7FlowType_REQUEST
	}))
	h := f.GetL7().GetHttp()
	if f.GetVerdict() != verdict || h.GetMethod() != method || !strings.HasSuffix(h.GetUrl(), path) || h.GetProtocol() != "HTTP/1.1" {
		t.Errorf("request in flow: %s %v, want %s %s %s", f.GetVerdict(), h, verdict, method, path)
	}
	s.checkParties(t, f, s.friend)
	answer := s.awaitFlow(t, "the answer to "+method+" "+path, filter, func(f *flowpb.Flow) bool {
		return f.GetL7().GetType() == flowpb.L7FlowType_RESPONSE && f.GetL4().GetTCP().GetDestinationPort() == uint32(client.Port())
	})
	if answer.GetL7().GetHttp().GetCode() != status || answer.GetL7().GetLatencyNs() == 0 || !answer.GetIsReply().GetValue() {
		t.Errorf("answer in flow: %v, reply %v, want status %d and a latency", answer.GetL7(), answer.GetIsReply(), status)
	}
}

// curl is a client that was not written for this test.
func (s *story) curl(t *testing.T, v ipVersion) {
	program := needProgram(t, "curl")
	for _, c := range []struct {
		method, path string
		status       int
		body         string
	}{
		{"POST", "/v1/request-landing", http.StatusOK, "/v1/request-landing \n"},
		{"PUT", "/v1/exhaust-port", http.StatusForbidden, deniedBody},
		{"GET", "/v1/request-landing", http.StatusForbidden, deniedBody},
		{"POST", "/v1/%72equest-landing/../request-landing", http.StatusOK, "/v1/request-landing \n"},
		{"POST", "/v1/request-landing/../exhaust-port", http.StatusForbidden, deniedBody},
	} {
		url := fmt.Sprintf("http://%s%s", s.server.at(v, 80), c.path)
		var out strings.Builder
		cmd := exec.Command(program, "-q", "-sS", "--path-as-is", "-X", c.method, "--max-time", "120", "-w", "%{http_code}", url)
		cmd.Stdout, cmd.Stderr = &out, &out
		p, err := s.friend.start(cmd)
		if err != nil {
			t.Fatal(err)
		}
		<-p.done
		if want := c.body + strconv.Itoa(c.status); out.String() != want {
			t.Errorf("curl -X %s %s printed %q, want %q (%v)", c.method, c.path, out.String(), want, p.err)
		}
	}
}

func (s *story) withdrawn(t *testing.T, v ipVersion) {
	s.withdraw(t, demoPolicy(t, "l7.yaml"))
	s.stranger.mustAsk(t, s.server.at(v, 80), "PUT", "/v1/exhaust-port", 200)
	if st := s.status(t); st.Policies != 0 || !st.OK {
		t.Errorf("after the policy was withdrawn: %+v", st)
	}
}
