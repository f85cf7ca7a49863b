package integration

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/parsers/parsertest"
)

// matrixPolicies has a kind of rules a port.
const matrixPolicies = `apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: in}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8001", protocol: TCP}]
      rules:
        http:
        - path: "/e/.*"
          headerMatches:
          - {name: X-A, value: a, mismatch: REPLACE}
          - {name: X-B, value: b, mismatch: ADD}
          - {name: X-C, value: keep, mismatch: DELETE}
          - {name: X-D, value: d, mismatch: LOG}
        - path: "/e/2.*"
          headerMatches: [{name: X-A, value: "2", mismatch: ADD}]
    - ports: [{port: "8002", protocol: TCP}]
      rules: {http: [{method: GET, host: "web\\.example(:80)?", headers: ["X-Token: a,b"]}]}
    - ports: [{port: "8003", protocol: TCP}]
    - ports: [{port: "8004", protocol: TCP}]
      rules: {http: [{path: "/both|/ingress", headers: ["X-E: 1"]}]}
    - ports: [{port: "8005", protocol: TCP}]
      rules: {http: [{headers: ["X-Forwarded-Proto: https"]}]}
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8006", protocol: TCP}]
      rules: {grpc: [{service: a.B, method: "Get*"}]}
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8006", protocol: TCP}]
      rules: {http: [{path: /plain}]}
  ingressDeny:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "8003", protocol: TCP}]
      rules: {http: [{path: "/admin/.*"}, {method: DELETE}, {host: "evil", path: /x}, {headers: ["X-Bad"]}]}
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: out}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: "8001", endPort: 8003, protocol: TCP}, {port: "8005", endPort: 8006, protocol: TCP}]
    - ports: [{port: "8004", protocol: TCP}]
      rules: {http: [{path: "/both|/egress", headerMatches: [{name: X-E, value: "1", mismatch: REPLACE}]}]}
`

// matrixCase is a request, what it is answered and, if it is let through, which of the
// fields that matter here the server sees.
type matrixCase struct {
	port         int
	method, path string
	host         string
	fields       string // "Name: value" on lines
	status       int
	seen         string
}

var matrix = []matrixCase{
	{port: 8001, path: "/e/1", status: 200, seen: "X-A: a, X-B: b"},
	{port: 8001, path: "/e/1", fields: "X-A: z\nx_a: y\nX-B: c\nX-C: drop\nX-D: e", status: 200, seen: "X-A: a, X-B: c|b, X-D: e"},
	{port: 8001, path: "/e/1", fields: "X-A: a\nX-B: b\nX-C: keep\nX-D: d", status: 200, seen: "X-A: a, X-B: b, X-C: keep, X-D: d"},
	{port: 8001, path: "/e/1", fields: "X-C: keep\nX_C: keep", status: 200, seen: "X-A: a, X-B: b"},
	{port: 8001, path: "/e/2", status: 200, seen: "X-A: a|2, X-B: b"},
	{port: 8001, path: "/x/../e/2?q=1", fields: "X-A: 2", status: 200, seen: "X-A: a|2, X-B: b"},
	{port: 8001, path: "/f", status: 403},
	{port: 8002, path: "/", host: "web.example", fields: "X-Token: a\nX-Token: b", status: 200, seen: "X-Token: a|b"},
	{port: 8002, path: "/", host: "web.example:80", fields: "X-Token: a,b", status: 200, seen: "X-Token: a,b"},
	{port: 8002, path: "/", host: "web.example", fields: "X-Token: a", status: 403},
	{port: 8002, path: "/", host: "web.example", fields: "X-Token: a,b\nX-Token: c", status: 403},
	{port: 8002, path: "/", host: "web.example", fields: "X-Token: b\nX-Token: a", status: 403},
	{port: 8002, path: "/", host: "web.example", fields: "X-Token: a, b", status: 403},
	{port: 8002, path: "/", host: "WEB.example", fields: "X-Token: a,b", status: 403},
	{port: 8002, path: "/", host: "web.example.", fields: "X-Token: a,b", status: 403},
	{port: 8002, path: "/", host: "web.example:8080", fields: "X-Token: a,b", status: 403},
	{port: 8002, method: "POST", path: "/", host: "web.example", fields: "X-Token: a,b", status: 403},
	{port: 8003, path: "/x", status: 200},
	{port: 8003, path: "/admin/x", status: 403},
	{port: 8003, path: "/admin;v=1/x", status: 403},
	{port: 8003, path: "/.//admin/%78", status: 403},
	{port: 8003, method: "DELETE", path: "/x", status: 403},
	{port: 8003, path: "/x", host: "EVIL.:81", status: 403},
	{port: 8003, path: "/y", host: "evil", status: 200},
	{port: 8003, path: "/x", fields: "x_bad: 1", status: 403},
	{port: 8004, path: "/both", status: 200, seen: "X-E: 1"},
	{port: 8004, path: "/both", fields: "X-E: 2\nX-E: 1", status: 200, seen: "X-E: 1"},
	{port: 8004, path: "/egress", status: 403},
	{port: 8004, path: "/ingress", fields: "X-E: 1", status: 403},
	{port: 8005, path: "/", status: 403},
	{port: 8005, path: "/", fields: "X-Forwarded-Proto: http", status: 403},
	{port: 8005, path: "/", fields: "X-Forwarded-Proto: https", status: 200, seen: "X-Forwarded-Proto: https"},
	{port: 8006, path: "/plain", status: 200},
	{port: 8006, method: "POST", path: "/a.B/GetX", status: 403},
	{port: 8006, method: "POST", path: "/a.B/GetX", fields: "Content-Type: application/grpc+proto", status: 200},
	{port: 8006, method: "GET", path: "/a.B/GetX", fields: "Content-Type: application/grpcx", status: 403},
}

// TestMatrix asks the same of both backends, in both versions of HTTP, over both of IP.
func TestMatrix(t *testing.T) {
	t.Parallel()
	eachBackend(t, askMatrix)
}

func askMatrix(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	for port := 8001; port <= 8006; port++ {
		server.serveMirror(t, port)
	}
	n.apply(t, matrixPolicies)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for _, second := range []bool{false, true} {
			t.Run(map[bool]string{false: "HTTP/1.1", true: "HTTP/2"}[second], func(t *testing.T) {
				clients := map[int]*http.Client{}
				for _, tt := range matrix {
					if clients[tt.port] == nil {
						clients[tt.port] = client.clientOf(t, server.at(v, tt.port), second)
					}
					tt.ask(t, clients[tt.port], server.at(v, tt.port))
				}
			})
		}
	})
	// A call that is denied ends as calls do.
	c := client.http2Client(t)
	r, err := c.Post("http://"+server.at(4, 8006).String()+"/a.B/Set", "application/grpc", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	r.Body.Close()
	if r.StatusCode != 200 || r.Header.Get("Grpc-Status") != "7" || r.Header.Get("Grpc-Message") != "Access denied" {
		t.Errorf("a call that is denied: %s %v", r.Status, r.Header)
	}
	// A body that is longer than any window, of a request that is denied.
	if r, err := c.Post("http://"+server.at(6, 8006).String()+"/x", "text/plain", bytes.NewReader(make([]byte, 8<<20))); err != nil || r.StatusCode != 403 {
		t.Errorf("a long request that is denied: %v, %v", r, err)
	}
	for path, want := range map[string]string{"/admin/x": "ingressDeny", "/f": "ingress[0]"} {
		f := n.awaitFlow(t, path, []string{"--type", "l7", "--verdict", "DROPPED", "--http-path", path}, func(*flowpb.Flow) bool { return true })
		if !strings.Contains(f.String(), want) {
			t.Errorf("the flow of %s does not name %s: %v", path, want, f)
		}
	}
	f := n.awaitFlow(t, "an edited request", []string{"--type", "l7", "--http-path", "/e/1"}, func(f *flowpb.Flow) bool {
		return strings.Contains(f.String(), "X-A is missing: replaced")
	})
	if !strings.Contains(f.String(), "header X-D is missing") {
		t.Errorf("the flow does not tell of all edits: %v", f)
	}
}

func (tt matrixCase) ask(t *testing.T, c *http.Client, to netip.AddrPort) {
	t.Helper()
	host := cmp.Or(tt.host, to.String())
	r, err := http.NewRequestWithContext(t.Context(), tt.method, "http://"+host, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if r.URL.Opaque = tt.path; c.Transport.(*http.Transport).Protocols.UnencryptedHTTP2() {
		r.URL.Opaque = "//" + host + tt.path // as it is, too
	}
	for line := range strings.SplitSeq(tt.fields, "\n") {
		if name, value, ok := strings.Cut(line, ": "); ok {
			r.Header[name] = append(r.Header[name], value)
		}
	}
	answer, err := c.Do(r)
	if err != nil {
		t.Errorf("%+v: %v", tt, err)
		return
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	switch {
	case err != nil || answer.StatusCode != tt.status:
		t.Errorf("%+v: status %d, %q, %v", tt, answer.StatusCode, body, err)
	case tt.status == 403 && string(body) != deniedBody, tt.status == 200 && string(body) != tt.seen:
		t.Errorf("%+v: got %q", tt, body)
	}
}

// clientOf speaks one version of HTTP with one server, whatever it calls that.
func (n *namespace) clientOf(t *testing.T, to netip.AddrPort, second bool) *http.Client {
	t.Helper()
	var p http.Protocols
	p.SetHTTP1(!second)
	p.SetUnencryptedHTTP2(second)
	transport := &http.Transport{Protocols: &p, DialContext: func(context.Context, string, string) (net.Conn, error) { return n.dial(to, patience) }}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 6 * patience}
}

// serveMirror answers with the fields of a request that begin with X.
func (n *namespace) serveMirror(t *testing.T, port int) {
	t.Helper()
	l := n.listen(t, port)
	h := &http.Server{Protocols: bothVersions(), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var fields []string
		for _, name := range slices.Sorted(maps.Keys(r.Header)) {
			if strings.HasPrefix(name, "X") {
				fields = append(fields, name+": "+strings.Join(r.Header[name], "|"))
			}
		}
		_, _ = io.WriteString(w, strings.Join(fields, ", "))
	})}
	go func() { _ = h.Serve(l) }()
	t.Cleanup(func() { h.Close() })
}

// TestHostileRequests sends what two readers could take for different things to a server
// that takes everything: whatever of it arrives there was judged, and allowed.
func TestHostileRequests(t *testing.T) {
	t.Parallel()
	eachBackend(t, hostileRequests)
}

func hostileRequests(t *testing.T, b backend) {
	n := startNode(t, b.flags...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	careless := server.serveCareless(t, 80)
	n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{"GET|POST|PRI", "(/p|/q).*"}))
	inputs := parsertest.AmbiguousHTTP()
	maps.Copy(inputs, parsertest.HostileChunks())
	eachVersion(t, func(t *testing.T, v ipVersion) {
		var wg sync.WaitGroup
		turns := make(chan struct{}, 32)
		for name, input := range inputs {
			turns <- struct{}{}
			wg.Go(func() {
				defer func() { <-turns }()
				c, err := client.dial(server.at(v, 80), patience)
				if err != nil {
					t.Errorf("%s: %v", name, err)
					return
				}
				defer c.Close()
				_, _ = io.WriteString(c, input)
				_ = c.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
				_, _ = io.Copy(io.Discard, c) // it may wait for more, and so may we
			})
		}
		wg.Wait()
	})
	arrived := careless.all()
	for _, text := range arrived {
		for _, r := range parsertest.Lenient(text) {
			if strings.Contains(r.URI, "smuggled") || !strings.HasPrefix(r.URI, "/p") && !strings.HasPrefix(r.URI, "/q") && r.URI != "cut" {
				t.Errorf("the server takes %q for %+v, which is not allowed", text, r)
			}
		}
	}
	if !b.bound && len(arrived) > 0 {
		t.Errorf("the server got %q, want not a byte", arrived)
	}
	t.Logf("%d connections with %d bytes arrived, of %d", len(arrived), len(strings.Join(arrived, "")), 2*len(inputs))
	for _, path := range []string{"/p%2fq", "/p%00"} {
		c := client.mustOpen(t, server.at(6, 80))
		if r, err := c.ask("GET", path, ""); err != nil || r.status != 400 {
			t.Errorf("%s: %v, %v, want status 400", path, r, err)
		}
		if _, err := c.read.ReadByte(); err == nil || isTimeout(err) {
			t.Errorf("%s: the connection goes on: %v", path, err)
		}
		local := endOf(c.LocalAddr())
		n.awaitFlow(t, "what is malformed", []string{"--type", "l7", "--verdict", "ERROR"}, from(local, func(*flowpb.Flow) bool { return true }))
	}
	// The node lives, and carries what is sound.
	client.mustAsk(t, server.at(4, 80), "GET", "/p", 200)
}

// carelessServer remembers what came, a string a connection, and answers all of it.
type carelessServer struct {
	mu   sync.Mutex
	seen map[net.Conn]*strings.Builder
}

func (n *namespace) serveCareless(t *testing.T, port int) *carelessServer {
	t.Helper()
	s := &carelessServer{seen: map[net.Conn]*strings.Builder{}}
	l := n.listen(t, port)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	t.Cleanup(func() { l.Close() })
	return s
}

func (s *carelessServer) serve(c net.Conn) {
	defer c.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := c.Read(buffer)
		if err != nil {
			return
		}
		s.mu.Lock()
		if s.seen[c] == nil {
			s.seen[c] = &strings.Builder{}
		}
		s.seen[c].Write(buffer[:n])
		s.mu.Unlock()
		fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}
}

func (s *carelessServer) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, b := range s.seen {
		out = append(out, b.String())
	}
	return out
}
