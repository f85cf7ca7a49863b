package integration

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// forServer is a policy for the server, whose ingress of app=client at port 80 is
// given, with annotations.
func forServer(name, annotations, section, rules string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata:
  name: %s
  annotations: {%s}
spec:
  endpointSelector: {matchLabels: {app: server}}
  %s:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}]
      rules:
        http: %s
`, name, annotations, section, rules)
}

// shop is a node with a web server and a client.
type shop struct {
	*node
	server, client *workload
	web            *webServer
}

func newShop(t *testing.T, flags ...string) *shop {
	n := startNode(t, flags...)
	s := &shop{node: n, server: n.workload(t, "server", "app=server"), client: n.workload(t, "client", "app=client")}
	s.web = s.server.serveWeb(t, 80)
	return s
}

// TestSecretsReachTheServer: a header that the client cannot know is put in on its
// way, follows the file that holds it, and shows nowhere.
func TestSecretsReachTheServer(t *testing.T) {
	t.Parallel()
	eachBackend(t, secretsReachTheServer)
}

func secretsReachTheServer(t *testing.T, b backend) {
	dir := filepath.Join(t.TempDir(), "secrets")
	file := filepath.Join(dir, "default", "token")
	put := func(value string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file+".new", []byte(value+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	put("hunter2-first")
	s := newShop(t, append([]string{"--secrets-dir", dir}, b.flags...)...)
	s.apply(t, forServer("token", "", "ingress", `[{path: "/in.*", headerMatches: [{name: X-Token, secret: {name: token}, mismatch: REPLACE}]}, {path: /asked, headerMatches: [{name: X-Token, secret: {name: token}}]}]`))
	c := s.client.mustOpen(t, s.server.at(4, 80))
	ask := func(path, token, want string) error {
		r, err := c.ask("GET", path, token)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(r.status, " ", r.header.Get("X-Token")); got != want {
			return fmt.Errorf("%s with %q: got %q, want %q", path, token, got, want)
		}
		return nil
	}
	must := func(path, token, want string) {
		t.Helper()
		if err := ask(path, token, want); err != nil {
			t.Error(err)
		}
	}
	must("/in", "guess", "200 hunter2-first")
	must("/in", "hunter2-first", "200 hunter2-first")
	must("/asked", "hunter2-first", "200 hunter2-first")
	must("/asked", "guess", "403 ")
	put("hunter2-second")
	eventually(t, patience, "the new secret is in force", func() error { return ask("/in", "guess", "200 hunter2-second") })
	must("/asked", "hunter2-first", "403 ")
	s.killAgent()
	must("/in", "guess", "200 hunter2-second")
	s.startAgent(t)
	must("/in", "guess", "200 hunter2-second")
	f := s.awaitFlow(t, "an edited request", []string{"--type", "l7", "--http-path", "/in"}, func(f *flowpb.Flow) bool { return !f.GetIsReply().GetValue() })
	if !strings.Contains(f.String(), "has another value: replaced") {
		t.Errorf("the flow does not tell of the edit: %v", f)
	}
	if shown := s.headgate(t, "observe", "-o", "json", "--last", "1000") + s.headgate(t, "status", "-o", "json") + s.headgate(t, "policy", "get", "-o", "json"); strings.Contains(shown, "hunter2") {
		t.Error("the secret shows")
	}
	_ = filepath.WalkDir(s.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), "hunter2") {
			t.Errorf("the secret is in %s", path)
		}
		return nil
	})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "without the secret the rule matches nothing", func() error { return ask("/in", "guess", "403 ") })
}

// TestDenyRulesAndResponses: a request is denied by a rule that names it, with the
// answer that its policy has.
func TestDenyRulesAndResponses(t *testing.T) {
	t.Parallel()
	eachBackend(t, denyRulesAndResponses)
}

func denyRulesAndResponses(t *testing.T, b backend) {
	s := newShop(t, b.flags...)
	s.apply(t,
		allow("open", "server", fromApp("client"), 80),
		forServer("closed", `headgate.dev/deny-response: "451 Not for you"`, "ingressDeny", `[{path: "/admin/.*"}, {host: "evil\\.example"}, {headers: ["X-Token: bad"]}]`))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, tt := range []struct {
			path, host, fields string
			status             int
		}{
			{"/public", "server", "", 200},
			{"/admin/x", "server", "", 451},
			{"//admin;a=b/%78", "server", "", 451},
			{"/x", "EVIL.example.:8080", "", 451},
			{"/x", "evilexample", "", 200},
			{"/x", "server", "X-Token: good\r\nx_token: bad\r\n", 451},
			{"/x", "server", "X-Token: good, bad\r\n", 451},
			{"/x", "server", "X-Token: good\r\n", 200},
		} {
			c := s.client.mustOpen(t, s.server.at(v, 80))
			_ = c.SetDeadline(time.Now().Add(patience))
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", tt.path, tt.host, tt.fields)
			r, err := http.ReadResponse(c.read, nil)
			if err != nil {
				t.Fatal(err)
			}
			body := make([]byte, 100)
			n, _ := r.Body.Read(body)
			if r.StatusCode != tt.status || r.StatusCode == 451 && string(body[:n]) != "Not for you\r\n" {
				t.Errorf("%+v: status %d, body %q", tt, r.StatusCode, body[:n])
			}
		}
	})
	f := s.awaitFlow(t, "a denied request", []string{"--type", "l7", "--verdict", "DROPPED", "--http-path", "/admin/x"}, func(*flowpb.Flow) bool { return true })
	if !strings.Contains(f.String(), "closed") {
		t.Errorf("the flow does not name the policy: %v", f)
	}
}

// TestAuditAndObserve: such policies deny nothing, of whatever is spoken, and show
// what they are about; the same policy that enforces does.
func TestAuditAndObserve(t *testing.T) {
	t.Parallel()
	eachBackend(t, auditAndObserve)
}

func auditAndObserve(t *testing.T, b backend) {
	s := newShop(t, b.flags...)
	banner := s.server.listen(t, 81)
	t.Cleanup(func() { banner.Close() })
	go func() {
		for {
			c, err := banner.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprint(c, "220 welcome\r\n")
				line, _ := bufio.NewReader(c).ReadString('\n')
				fmt.Fprint(c, "250 "+line)
			}()
		}
	}()
	mode := func(mode string) string {
		p := forServer("web", "headgate.dev/mode: "+mode, "ingress", "[{path: /public}]")
		return strings.Replace(p, `[{port: "80", protocol: TCP}]`, `[{port: "80", protocol: TCP}, {port: "81", protocol: TCP}]`, 1)
	}
	speak := func() error {
		c, err := s.client.dial(s.server.at(4, 81), patience)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(c, "HELO x\r\n")
		in := bufio.NewReader(c)
		for _, want := range []string{"220 welcome\r\n", "250 HELO x\r\n"} {
			if got, err := in.ReadString('\n'); got != want {
				return fmt.Errorf("got %q, %v, want %q", got, err, want)
			}
		}
		return nil
	}
	for _, m := range []struct {
		name    string
		verdict flowpb.Verdict
	}{{"observe", flowpb.Verdict_FORWARDED}, {"audit", flowpb.Verdict_AUDIT}} {
		t.Run(m.name, func(t *testing.T) {
			s.apply(t, mode(m.name))
			path := "/secret/" + m.name
			s.client.mustAsk(t, s.server.at(4, 80), "GET", "/public", 200)
			s.client.mustAsk(t, s.server.at(6, 80), "GET", path, 200)
			request := func(f *flowpb.Flow) bool { return f.GetL7().GetType() == flowpb.L7FlowType_REQUEST }
			f := s.awaitFlow(t, path, []string{"--type", "l7", "--http-path", path}, request)
			if f.GetVerdict() != m.verdict {
				t.Errorf("verdict %s, want %s", f.GetVerdict(), m.verdict)
			}
			if m.name == "audit" && !strings.Contains(f.String(), "http[0]") {
				t.Errorf("the flow does not say what would have denied it: %v", f)
			}
			if err := speak(); err != nil {
				t.Error(err)
			}
			s.awaitFlow(t, "what is no HTTP", []string{"--type", "l7", "--verdict", m.verdict.String()}, func(f *flowpb.Flow) bool {
				return strings.Contains(f.GetSummary(), "passed on unread")
			})
		})
	}
	s.apply(t, mode("enforce"))
	s.client.mustAsk(t, s.server.at(4, 80), "GET", "/public", 200)
	s.client.mustAsk(t, s.server.at(4, 80), "GET", "/secret", 403)
	if err := speak(); err == nil {
		t.Error("a policy that enforces lets through what is no HTTP")
	}
	s.config(t, "audit=on")
	s.client.mustAsk(t, s.server.at(6, 80), "GET", "/secret/node", 200)
	f := s.awaitFlow(t, "what the node audits", []string{"--type", "l7", "--verdict", "AUDIT", "--http-path", "/secret/node"}, func(*flowpb.Flow) bool { return true })
	if !strings.Contains(f.String(), "http[0]") {
		t.Errorf("the flow does not say what would have denied it: %v", f)
	}
	if err := speak(); err != nil {
		t.Error(err)
	}
	s.config(t, "audit=off")
	s.client.mustAsk(t, s.server.at(6, 80), "GET", "/secret", 403)
}
