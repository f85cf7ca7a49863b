package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// refusedExpression is one that policy takes and Envoy does not: its RE2 knows no such class.
// What would be too large for Envoy is too large for policy.
const refusedExpression, refusedWords = `/\p{Letter}+`, "invalid character class"

// TestEnvoyHostileRules: a rule that Envoy refuses, next to good ones of the same and of
// other policies, takes none with it; status and metrics have Envoy's words.
func TestEnvoyHostileRules(t *testing.T) {
	t.Parallel()
	n := startNode(t, envoyFlags(t, "--metrics-listen", "127.0.0.1:9964")...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	web := server.serveWeb(t, 80)
	good := allow("good", "server", fromApp("client"), 80, httpRule{"GET", "/good"})
	other := allow("other", "server", fromApp("client"), 81, httpRule{"GET", "/other"})
	hostile := allow("hostile", "server", fromApp("client"), 80, httpRule{"GET", "/first"}, httpRule{"GET", refusedExpression}, httpRule{"GET", "/last"})
	server.serveWeb(t, 81)
	n.apply(t, good, other)
	open := client.mustOpen(t, server.at(4, 80))
	open.mustAsk(t, "GET", "/good", 200)

	n.apply(t, hostile)
	judged := func() {
		t.Helper()
		for _, s := range []*session{open, client.mustOpen(t, server.at(6, 80))} {
			for path, want := range map[string]int{"/good": 200, "/first": 200, "/last": 200, "/abc": 403, "/none": 403} {
				s.mustAsk(t, "GET", path, want)
			}
		}
		client.mustAsk(t, server.at(4, 81), "GET", "/other", 200)
	}
	judged()
	large := allow("large", "server", fromApp("client"), 80, httpRule{"GET", "/large"}, httpRule{"GET", strings.Repeat(`/\pL{1000}`, 40)})
	if o := n.try(t, large, "policy", "apply", "-f", "-"); o.code != 1 || !strings.Contains(o.stderr, "too large") {
		t.Errorf("a rule whose program is too large: exit code %d, %s", o.code, o.stderr)
	}
	judged()
	open.mustAsk(t, "GET", "/large", 403)
	o := n.try(t, "", "status")
	if !strings.Contains(o.stdout+o.stderr, "default/hostile") || !strings.Contains(o.stdout+o.stderr, refusedWords) {
		t.Errorf("status does not tell of the rule in Envoy's words: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	measured := func() bool {
		return strings.Contains(n.scrape(t), `headgate_envoy_refused{rule="default/hostile ingress[0].toPorts[0].http[1]",why=`)
	}
	if text := n.scrape(t); !measured() || !strings.Contains(text, refusedWords) {
		t.Errorf("metrics do not tell of the rule in Envoy's words:\n%s", text)
	}
	// It is not offered again with every change, nor to the next Envoy.
	n.apply(t, allow("more", "server", fromApp("client"), 80, httpRule{"GET", "/more"}))
	open.mustAsk(t, "GET", "/more", 200)
	kill(t, n.status(t).Backend.PID)
	eventually(t, 2*patience, "another Envoy", func() error {
		if s := n.status(t); s.Backend.PID == 0 || s.Backend.State != "ready" {
			return fmt.Errorf("%+v", s.Backend)
		}
		return nil
	})
	open = client.mustOpen(t, server.at(4, 80))
	judged()
	n.withdraw(t, hostile)
	open.mustAsk(t, "GET", "/first", 403)
	open.mustAsk(t, "GET", "/good", 200)
	if measured() {
		t.Error("metrics tell of a rule that is gone")
	}
	n.waitUntilWell(t)
	for _, r := range web.requests() {
		if r.path == "/none" || r.path == "/abc" || r.path == "/large" {
			t.Errorf("the server saw %s", r.path)
		}
	}
	t.Run("CONNECT with edits", func(t *testing.T) { n.connectIsEdited(t, client, server) })
}

// connectIsEdited: what a rule says of headers holds for the request that opens a tunnel.
func (n *node) connectIsEdited(t *testing.T, client, server *workload) {
	l := server.listen(t, 3128)
	var mu sync.Mutex
	var seen []http.Header
	proxy := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Clone())
		mu.Unlock()
		c, in, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(c, in)
	})}
	go func() { _ = proxy.Serve(l) }()
	t.Cleanup(func() { proxy.Close() })
	n.apply(t, allow("proxy", "server", fromApp("client"), 3128)+`      rules:
        http:
        - {method: CONNECT, host: "a:1", headerMatches: [{name: X-Via, value: gate, mismatch: REPLACE}, {name: X-Hop, value: "1", mismatch: ADD}, {name: X-Out, mismatch: DELETE, value: "-"}]}
        - {method: GET, headerMatches: [{name: X-Other, value: "1", mismatch: ADD}]}
`)
	ask := func(host, fields string) (net.Conn, *bufio.Reader, int) {
		t.Helper()
		c, err := client.dial(server.at(4, 3128), patience)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetDeadline(time.Now().Add(2 * patience))
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", host, host, fields)
		r := bufio.NewReader(c)
		answer, err := http.ReadResponse(r, &http.Request{Method: "CONNECT"})
		if err != nil {
			t.Fatal(err)
		}
		return c, r, answer.StatusCode
	}
	if _, _, status := ask("b:1", "X-Via: gate\r\n"); status != 403 {
		t.Errorf("CONNECT to where no rule leads: %d", status)
	}
	for _, fields := range []string{"", "X-Via: client\r\nX-Out: secret\r\n"} {
		c, r, status := ask("a:1", fields)
		if status != 200 {
			t.Errorf("CONNECT with %q: %d", fields, status)
			continue
		}
		fmt.Fprintln(c, "through")
		if line, err := r.ReadString('\n'); err != nil || line != "through\n" {
			t.Errorf("the tunnel carries %q, %v", line, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 2 {
		t.Fatalf("the server saw %v, want two requests", seen)
	}
	for _, h := range seen {
		if h.Get("X-Via") != "gate" || len(h["X-Via"]) != 1 || h.Get("X-Hop") != "1" || h.Get("X-Out") != "" || h.Get("X-Other") != "" {
			t.Errorf("the server saw %v", h)
		}
	}
}

// TestEnvoyAndAgentKilled kills both at once, under load: nothing passes that is denied,
// and nothing at all until there is an Envoy again.
func TestEnvoyAndAgentKilled(t *testing.T) {
	t.Parallel()
	p := newProxied(t, envoyBackend(t))
	l := newLoad()
	l.interruptible = true
	p.mix(l)
	for range 2 {
		for range 10 { // the load is under way
			p.serves(4)
		}
		old := p.proxyPID(t)
		var both sync.WaitGroup
		both.Go(func() { kill(t, old) })
		both.Go(p.killAgent)
		both.Wait()
		p.web.hearOut(t, p.server)
		p.web.forget()
		for range 5 {
			if p.serves(4) || p.serves(6) {
				t.Error("a request was served without Envoy")
			}
		}
		if seen := p.web.requests(); len(seen) > 0 {
			t.Errorf("the server saw %v while there was no Envoy", seen)
		}
		p.startAgent(t)
		eventually(t, 2*patience, "serving again", func() error {
			if !p.serves(4) || !p.serves(6) {
				return fmt.Errorf("an allowed request is not answered")
			}
			return nil
		})
	}
	l.end(t)
	p.onlyAllowed(t)
}
