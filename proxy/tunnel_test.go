package proxy

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// sets puts whole sets in force.
func (r *running) sets(sets map[redirect.SetNumber]*policy.L7Set, change func(*redirect.Snapshot)) {
	r.t.Helper()
	s := redirect.Snapshot{Revision: 7, Sets: map[policy.SetID]redirect.NumberedSet{}}
	for n, set := range sets {
		sum := sha256.Sum256(fmt.Appendf(nil, "%d %+v %+v %+v", n, *set, set.Deny, set.Audit))
		set.ID = policy.SetID(sum[:16])
		s.Sets[set.ID] = redirect.NumberedSet{Number: n, Set: set}
	}
	if change != nil {
		change(&s)
	}
	answer, err := r.client.Enforce(r.t.Context(), snapshotToProto(s))
	must(r.t, err)
	if len(answer.Failed) > 0 {
		r.t.Fatal(answer)
	}
}

func httpSet(rules ...policy.HTTPRule) *policy.L7Set {
	return &policy.L7Set{Protocol: policy.ProtocolHTTP, HTTP: rules}
}

const (
	openWebSocket = "GET /public/ws HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	openConnect   = "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"
)

// echoing answers upgrades and CONNECT with a tunnel that repeats what it gets.
func echoing(w http.ResponseWriter, q *http.Request) {
	if q.Method != http.MethodConnect && q.Header.Get("Upgrade") == "" {
		hello(w, q)
		return
	}
	c, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	answer := "HTTP/1.1 200 OK\r\n\r\n"
	if q.Method != http.MethodConnect {
		answer = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	}
	_, _ = io.WriteString(c, answer)
	_, _ = io.Copy(c, in)
	_ = c.(*net.TCPConn).CloseWrite()
}

// tunnel opens one and tries it.
func (a *asker) tunnel(request string, status int) {
	a.t.Helper()
	_, err := io.WriteString(a.c, request)
	must(a.t, err)
	answer, err := http.ReadResponse(a.r, nil)
	if err != nil || answer.StatusCode != status {
		a.t.Fatal(answer, err)
	}
	a.echo("GET /secret HTTP/1.1\r\n\r\n") // is not a request any more
}

func (a *asker) echo(text string) {
	a.t.Helper()
	_, err := io.WriteString(a.c, text)
	must(a.t, err)
	got := make([]byte, len(text))
	if _, err := io.ReadFull(a.r, got); err != nil || string(got) != text {
		a.t.Fatalf("the tunnel returned %q, %v", got, err)
	}
}

func TestTunnels(t *testing.T) {
	r := web(t, http.HandlerFunc(echoing), nil)
	records := r.records()
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public.*"), {Method: "CONNECT", Host: "db:5432"}}})
	for name, tt := range map[string]struct {
		request, detail string
		status          int
	}{
		"WebSocket": {openWebSocket, "GET http://web/public/ws", 101},
		"CONNECT":   {openConnect, "CONNECT http://db:5432", 200},
	} {
		t.Run(name, func(t *testing.T) {
			a := r.asker()
			a.send("GET /public")
			a.want(200, "hello /public")
			a.tunnel(tt.request, tt.status)
			big := strings.Repeat("x", 1<<20)
			go func() { _, _ = io.WriteString(a.c, big); _ = a.c.(*net.TCPConn).CloseWrite() }()
			if n, err := io.Copy(io.Discard, a.r); n != 1<<20 || err != nil {
				t.Fatal(n, err)
			}
			_ = a.c.Close()
			for e := range records {
				if e.HTTP != nil || !strings.Contains(e.Detail, "tunnel ended") {
					continue
				}
				want := fmt.Sprintf("%d bytes from the client, %d from the server, opened by %s", 1<<20+24, 1<<20+24, tt.detail)
				if e.Word != observe.Forwarded || !strings.Contains(e.Detail, want) {
					t.Errorf("%+v", e)
				}
				return
			}
		})
	}
	a := r.asker()
	_, _ = io.WriteString(a.c, strings.ReplaceAll(openConnect, "db", "db2"))
	a.want(403, denied)
	// A rule that does not name CONNECT allows none.
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {{}}})
	a = r.asker()
	_, _ = io.WriteString(a.c, openConnect)
	a.want(403, denied)
}

// A tunnel that policy no longer allows ends, another goes on.
func TestTunnelsEnd(t *testing.T) {
	r := web(t, http.HandlerFunc(echoing), nil)
	rules := []policy.HTTPRule{allow("GET", "/public.*"), {Method: "CONNECT", Host: "db:5432"}}
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: rules})
	socket, connect := r.asker(), r.asker()
	socket.tunnel(openWebSocket, 101)
	connect.tunnel(openConnect, 200)
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: rules[1:]})
	if _, err := socket.r.ReadByte(); err == nil {
		t.Fatal("the tunnel goes on")
	}
	connect.echo("still here")
	r.connections.set(Connection{Egress: setA, Denied: true}, false)
	if _, err := connect.r.ReadByte(); err == nil {
		t.Fatal("the tunnel goes on")
	}
}

// A tunnel that is silent for long when the datapath has judged it again ends too: what the
// ends' stacks say to each other moves nothing here.
func TestSilentTunnelEnds(t *testing.T) {
	t.Parallel()
	r := web(t, http.HandlerFunc(echoing), nil)
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public.*")}})
	socket := r.asker()
	socket.tunnel(openWebSocket, 101)
	r.connections.behind()
	time.Sleep(hurryFor + lookAfter)
	r.connections.late(Connection{Egress: setA, Denied: true})
	_ = socket.c.SetReadDeadline(time.Now().Add(patience))
	if _, err := socket.r.ReadByte(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal("the tunnel goes on:", err)
	}
}

// Where policies only observe, what is no HTTP is carried all the same, whoever
// speaks first, until a policy that enforces has a say.
func TestObserved(t *testing.T) {
	addr := server(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 hi\r\n")
		_, _ = io.Copy(c, c)
	})
	r := startProxy(t, addr, func(c *Config) { c.Compile = nil })
	records := r.records()
	observed := httpSet(policy.HTTPRule{}, policy.HTTPRule{Method: "CONNECT"})
	observed.Observed = true
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: observed}, nil)
	a := r.asker()
	line, err := a.r.ReadString('\n')
	if err != nil || line != "220 hi\r\n" {
		t.Fatal(line, err)
	}
	a.echo("HELO x\r\n")
	if e := <-records; e.Word != observe.Forwarded || !strings.Contains(e.Detail, "passed on unread") {
		t.Errorf("%+v", e)
	}
	enforced := httpSet(policy.HTTPRule{})
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: enforced}, nil)
	if _, err := a.r.ReadByte(); err == nil {
		t.Fatal("goes on although a policy enforces")
	}
	// With --audit it would have been refused, and is not.
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: enforced}, func(s *redirect.Snapshot) { s.Audit = true })
	a = r.asker()
	_, _ = a.r.ReadString('\n')
	a.echo("HELO x\r\n")
	for e := range records {
		if strings.Contains(e.Detail, "passed on unread") {
			if e.Word != observe.Audited {
				t.Errorf("%+v", e)
			}
			return
		}
	}
}

// seen answers with the fields that it got, in order.
func seen(w http.ResponseWriter, q *http.Request) {
	_ = q.Header.WriteSubset(w, map[string]bool{"Host": true, "User-Agent": true})
}

func (a *asker) ask(fields string) string {
	a.t.Helper()
	_, err := io.WriteString(a.c, "GET /public HTTP/1.1\r\nHost: web\r\n"+fields+"\r\n")
	must(a.t, err)
	answer, err := http.ReadResponse(a.r, nil)
	must(a.t, err)
	body, err := io.ReadAll(answer.Body)
	must(a.t, err)
	return fmt.Sprint(answer.StatusCode, " ", strings.ReplaceAll(string(body), "\r\n", "|"))
}

func TestHeaderEdits(t *testing.T) {
	edit := func(name, value string, action policy.HeaderAction) policy.HeaderEdit {
		return policy.HeaderEdit{HeaderRule: policy.HeaderRule{Name: name, Value: value}, Action: action}
	}
	secret := policy.SecretRef{Namespace: "a", Name: "token"}
	token := policy.HeaderEdit{HeaderRule: policy.HeaderRule{Name: "X-Token"}, Action: policy.HeaderReplace, Secret: &secret}
	r := web(t, http.HandlerFunc(seen), nil)
	records := r.records()
	egress := httpSet(policy.HTTPRule{Edits: []policy.HeaderEdit{token, edit("X-Team", "blue", policy.HeaderAdd)}})
	// The destination asks for what the source adds.
	ingress := httpSet(policy.HTTPRule{
		Headers: []policy.HeaderRule{{Name: "x-token", Value: "s3cret"}},
		Edits:   []policy.HeaderEdit{edit("X-Role", "user", policy.HeaderDelete), edit("X-Log", "yes", policy.HeaderLog)},
	})
	r.connections.set(Connection{Egress: setA, Ingress: setB}, false)
	both := map[redirect.SetNumber]*policy.L7Set{setA: egress, setB: ingress}
	with := func(value string) func(*redirect.Snapshot) {
		return func(s *redirect.Snapshot) { s.Secrets = map[policy.SecretRef]string{secret: value} }
	}
	r.sets(both, nil)
	a := r.asker()
	for _, tt := range []struct {
		value, fields, want string
	}{
		{"s3cret", "", "200 X-Team: blue|X-Token: s3cret|"},
		{"s3cret", "X-Token: guess\r\nX-Team: red\r\nx_token: guess\r\n", "200 X-Team: red|X-Team: blue|X-Token: s3cret|"},
		{"s3cret", "X-Role: admin\r\nx-team: blue\r\n", "200 X-Team: blue|X-Token: s3cret|"},
		{"s3cret", "X-Role: user\r\nX_Role: admin\r\n", "200 X-Team: blue|X-Token: s3cret|"},
		{"s3cret", "X-Role: user\r\nX-Log: yes\r\n", "200 X-Log: yes|X-Role: user|X-Team: blue|X-Token: s3cret|"},
		{"changed", "X-Token: s3cret\r\n", "403 Access denied|"}, // replaced by what the destination does not want
		{"bad\nvalue", "X-Token: s3cret\r\n", "403 Access denied|"},
	} {
		r.sets(both, with(tt.value))
		if got := a.ask(tt.fields); got != tt.want {
			t.Errorf("%q: got %q\nwant %q", tt.fields, got, tt.want)
		}
	}
	// No value ever shows.
	r.sets(both, nil)
	if got := a.ask(""); got != "403 Access denied|" {
		t.Error(got)
	}
	for range 16 {
		if e := <-records; strings.Contains(fmt.Sprintf("%+v %+v", e, e.HTTP), "s3cret") {
			t.Errorf("%+v", e)
		}
	}
}

// What policies that audit would have denied goes on, and is reported.
func TestAudit(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	records := r.records()
	all := httpSet(policy.HTTPRule{})
	all.Audit = httpSet(allow("GET", "/public"))
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: all}, nil)
	a := r.asker()
	word := func(want observe.Word, nearest string) {
		t.Helper()
		if e := <-records; e.Word != want || e.Nearest.Path != nearest || e.Reply {
			t.Errorf("%+v", e)
		}
		if e := <-records; !e.Reply || e.HTTP.Status != 200 {
			t.Errorf("%+v", e)
		}
	}
	a.send("GET /public")
	a.want(200, "hello /public")
	word(observe.Forwarded, "")
	a.send("GET /secret")
	a.want(200, "hello /secret")
	word(observe.Audited, "GET/public")
	// The whole node audits.
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: httpSet(allow("GET", "/public"))}, func(s *redirect.Snapshot) { s.Audit = true })
	a.send("GET /secret")
	a.want(200, "hello /secret")
	word(observe.Audited, "GET/public")
}

func TestDenies(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	set := httpSet(policy.HTTPRule{})
	set.Deny = &policy.L7Rules{Protocol: policy.ProtocolHTTP, HTTP: []policy.HTTPRule{allow("GET", "/secret.*")}}
	set.DenyResponse = &policy.DenyResponse{Status: 404, Body: "nothing here"}
	r.sets(map[redirect.SetNumber]*policy.L7Set{setA: set}, nil)
	a := r.asker()
	a.send("GET /public")
	a.want(200, "hello /public")
	a.send("GET /secret/a")
	a.want(404, "nothing here\r\n")
	a.send("GET //x/..;/secret/a")
	a.want(404, "nothing here\r\n")
	a.send("POST /secret/a")
	a.want(200, "hello /secret/a")
}
