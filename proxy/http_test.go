package proxy

import (
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// web is a proxy with the project's own parser and judge before a web server.
func web(t *testing.T, handler http.Handler, change func(*Config)) *running {
	t.Helper()
	s := httptest.NewServer(handler)
	t.Cleanup(s.Close)
	r := startProxy(t, s.Listener.Addr().String(), func(c *Config) {
		c.Compile = nil
		if change != nil {
			change(c)
		}
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public.*"), allow("POST", "/.*")}})
	return r
}

func allow(method, path string) policy.HTTPRule {
	return policy.HTTPRule{Method: method, Path: path, Ref: policy.Ref{Policy: "default/web", Path: method + path}}
}

func (r *running) rules(sets map[redirect.SetNumber][]policy.HTTPRule) *proxyv1.EnforceResponse {
	r.t.Helper()
	s := redirect.Snapshot{Revision: 7, Sets: map[policy.SetID]redirect.NumberedSet{}}
	for n, rules := range sets {
		sum := sha256.Sum256(fmt.Append(nil, n, rules))
		id := policy.SetID(sum[:16])
		set := &policy.L7Set{ID: id, Protocol: n.Protocol(), HTTP: rules}
		s.Sets[id] = redirect.NumberedSet{Number: n, Set: set}
	}
	answer, err := r.client.Enforce(r.t.Context(), snapshotToProto(s))
	must(r.t, err)
	return answer
}

func hello(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello "+r.URL.Path) }

// asker asks on one connection.
type asker struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func (r *running) asker() *asker {
	c := r.dial()
	return &asker{r.t, c, bufio.NewReader(c)}
}

func (a *asker) send(requests ...string) {
	a.t.Helper()
	for i, r := range requests {
		requests[i] = r + " HTTP/1.1\r\nHost: web\r\n\r\n"
	}
	_, err := io.WriteString(a.c, strings.Join(requests, ""))
	must(a.t, err)
}

func (a *asker) want(status int, body string) {
	a.t.Helper()
	answer, err := http.ReadResponse(a.r, nil)
	must(a.t, err)
	got, err := io.ReadAll(answer.Body)
	must(a.t, err)
	if answer.StatusCode != status || string(got) != body {
		a.t.Fatalf("got %d %q, want %d %q", answer.StatusCode, got, status, body)
	}
}

const denied = "Access denied\r\n"

func TestHTTPKeepsAlive(t *testing.T) {
	var reached atomic.Int32
	r := web(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		reached.Add(1)
		hello(w, q)
	}), nil)
	a := r.asker()
	for i := range 20 {
		path := fmt.Sprintf("/public/%d", i)
		a.send("GET " + path)
		a.want(200, "hello "+path)
		a.send("GET /secret")
		a.want(403, denied)
	}
	if n := reached.Load(); n != 20 {
		t.Errorf("%d requests reached the server", n)
	}
	if s := r.status(); s.Accepted != 1 || s.Requests != 40 || s.Denied != 20 {
		t.Error(s)
	}
}

func TestHTTPPipelines(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	a := r.asker()
	var requests []string
	for i := range 45 {
		requests = append(requests, fmt.Sprintf("GET /public/%d", i))
		if i%3 == 0 {
			requests = append(requests, "GET /secret")
		}
	}
	a.send(requests...)
	for i := range 45 {
		a.want(200, fmt.Sprintf("hello /public/%d", i))
		if i%3 == 0 {
			a.want(403, denied)
		}
	}
}

// A denied request does not even make a connection to the server.
func TestHTTPDialsLate(t *testing.T) {
	var dials atomic.Int32
	r := web(t, http.HandlerFunc(hello), func(c *Config) {
		dial := c.Dial
		c.Dial = func(local, remote netip.AddrPort) (int, error) {
			if dials.Add(1) == 1 && local.Port() != 0 {
				return -1, fmt.Errorf("dial: %w", unix.EADDRNOTAVAIL)
			}
			if local.Port() != 0 || !local.Addr().IsLoopback() {
				return -1, fmt.Errorf("dial from %s", local)
			}
			return dial(local, remote)
		}
		c.IsPortTaken = func(err error) bool { return errors.Is(err, unix.EADDRNOTAVAIL) }
	})
	a := r.asker()
	a.send("GET /secret")
	a.want(403, denied)
	if dials.Load() != 0 {
		t.Fatal("dialled for a denied request")
	}
	a.send("GET /public")
	a.want(200, "hello /public") // from another port
	if dials.Load() != 2 {
		t.Fatal(dials.Load(), "dials")
	}
}

func TestHTTPServerUnreachable(t *testing.T) {
	r := web(t, nil, func(c *Config) {
		c.Dial = func(netip.AddrPort, netip.AddrPort) (int, error) {
			return -1, unix.ECONNREFUSED
		}
	})
	records := r.records()
	a := r.asker()
	a.send("GET /public")
	a.want(502, "Upstream connection failed\r\n")
	if _, err := a.r.ReadByte(); err != io.EOF {
		t.Error(err)
	}
	<-records
	if e := <-records; e.Word != observe.Errored || !e.Reply || e.HTTP.Status != 502 || !strings.Contains(e.Detail, "refused") {
		t.Errorf("%+v", e)
	}
}

// 100 MB each way, with the memory of a few buffers.
func TestHTTPLargeBodies(t *testing.T) {
	const size = 100 << 20
	r := web(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		n, err := io.Copy(io.Discard, q.Body)
		if n != size || err != nil {
			t.Error(n, err)
		}
		w.Header().Set("Content-Length", fmt.Sprint(size))
		_, _ = io.CopyN(w, zeros{}, size)
	}), nil)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	request, err := http.NewRequest("POST", "http://"+r.addr+"/up", io.LimitReader(zeros{}, size))
	must(t, err)
	request.ContentLength = size
	answer, err := http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	n, err := io.Copy(io.Discard, answer.Body)
	if n != size || err != nil {
		t.Fatal(n, err)
	}
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 16<<20 {
		t.Errorf("the heap grew by %d MB", grown>>20)
	}
	// Chunked: the session sees every chunk.
	request, _ = http.NewRequest("POST", "http://"+r.addr+"/up", io.LimitReader(zeros{}, size))
	answer, err = http.DefaultClient.Do(request)
	must(t, err)
	defer answer.Body.Close()
	if n, err := io.Copy(io.Discard, answer.Body); n != size || err != nil {
		t.Fatal(n, err)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// 1,000 connections at once, each gets its own answers.
func TestHTTPManyConnections(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	var group sync.WaitGroup
	for i := range 1000 {
		c := r.dial()
		group.Go(func() {
			in := bufio.NewReader(c)
			for k := range 5 {
				path := fmt.Sprintf("/public/%d/%d", i, k)
				_, _ = fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web\r\n\r\n", path)
				answer, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(answer.Body)
				if err != nil || string(body) != "hello "+path {
					t.Errorf("%q for %s: %v", body, path, err)
					return
				}
			}
		})
	}
	group.Wait()
	r.t.Log(r.status())
}

// Whatever changes binds the next request of an open connection.
func TestHTTPPolicyChanges(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	a := r.asker()
	get := func(status int, body string) {
		t.Helper()
		a.send("GET /public")
		a.want(status, body)
	}
	get(200, "hello /public")
	// Other rules under the same number.
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/other")}, setB: {allow("GET", "/public")}})
	get(403, denied)
	// Another set for the connection.
	r.connections.set(Connection{Egress: setB}, false)
	get(200, "hello /public")
	// Both directions must allow.
	r.connections.set(Connection{Egress: setB, Ingress: setA}, false)
	get(403, denied)
	// No rules any more.
	r.connections.set(Connection{}, false)
	get(200, "hello /public")
	// A set that is not here.
	r.connections.set(Connection{Ingress: setA + 7}, false)
	get(403, denied)
	r.connections.set(Connection{Egress: setB}, false)
	get(200, "hello /public")
	lookups := r.connections.lookups.Load()
	get(200, "hello /public")
	if r.connections.lookups.Load() != lookups {
		t.Error("looked up although nothing changed")
	}
	// The datapath has a new revision, but judges the connection only later: what it
	// says then binds the next request, though the revision is the same.
	r.connections.behind()
	get(200, "hello /public")
	r.connections.late(Connection{Egress: setA})
	get(403, denied)
	r.connections.set(Connection{Egress: setB}, false)
	get(200, "hello /public")
	// The connection itself is denied: told, then closed.
	r.connections.set(Connection{Egress: setB, Denied: true}, false)
	get(403, denied)
	if _, err := a.r.ReadByte(); err != io.EOF {
		t.Error(err)
	}
}

// A set that cannot be compiled denies, and takes no other with it.
func TestHTTPBadSet(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	answer := r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public(")}, setB: {allow("GET", "/public")}})
	if len(answer.Failed) != 1 || answer.Failed[0].Number != uint32(setA) {
		t.Fatal(answer)
	}
	a := r.asker()
	a.send("GET /public")
	a.want(403, denied)
	r.connections.set(Connection{Egress: setB}, false)
	a.send("GET /public")
	a.want(200, "hello /public")
}

func TestHTTPSlowHead(t *testing.T) {
	t.Parallel()
	const most = 2 * time.Second
	r := web(t, http.HandlerFunc(hello), func(c *Config) { c.Limits.Head = most })
	a := r.asker()
	a.send("GET /public")
	a.want(200, "hello /public")
	began := time.Now()
	for {
		if _, err := io.WriteString(a.c, "G"); err != nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
		if time.Since(began) > patience {
			t.Fatal("a head may take for ever")
		}
	}
	if took := time.Since(began); took < most {
		t.Error("closed after", took)
	}
	idle := r.asker()
	idle.send("GET /public")
	idle.want(200, "hello /public")
	time.Sleep(most + most/2)
	idle.send("GET /public") // between requests the time is another one
	idle.want(200, "hello /public")
}

func TestHTTPMalformed(t *testing.T) {
	r := web(t, http.HandlerFunc(hello), nil)
	records := r.records()
	a := r.asker()
	_, _ = io.WriteString(a.c, "GET /public HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
	answer, err := http.ReadResponse(a.r, nil)
	if err != nil || answer.StatusCode != 400 {
		t.Fatal(answer, err)
	}
	if e := <-records; e.Word != observe.Errored || e.Detail == "" {
		t.Errorf("%+v", e)
	}
	if s := r.status(); s.Malformed != 1 {
		t.Error(s)
	}
}

// The real sockets: the client's own port is taken on this machine, so another is
// used from the client's address.
func TestTransparentSockets(t *testing.T) {
	var from atomic.Value
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		from.Store(q.RemoteAddr)
		hello(w, q)
	}))
	defer s.Close()
	if l, err := redirect.ListenTransparent(t.Context(), netip.MustParseAddrPort("127.0.0.1:0")); err != nil {
		needed(t, err.Error())
	} else {
		_ = l.Close()
	}
	r := startProxy(t, "", func(c *Config) {
		c.Listen, c.Compile = nil, nil
		c.Dial = func(local, _ netip.AddrPort) (int, error) {
			return redirect.DialTransparent(local, netip.MustParseAddrPort(s.Listener.Addr().String()))
		}
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {allow("GET", "/public")}})
	for _, host := range []string{"127.0.0.1", "::1"} {
		c, err := net.Dial("tcp", net.JoinHostPort(host, fmt.Sprint(r.link.hello.Port)))
		must(t, err)
		defer c.Close()
		a := &asker{t, c, bufio.NewReader(c)}
		a.send("GET /public")
		if host == "::1" { // a server of the other family
			a.want(502, "Upstream connection failed\r\n")
			continue
		}
		a.want(200, "hello /public")
		if got := netip.MustParseAddrPort(from.Load().(string)); got.Addr().String() != host {
			t.Errorf("the server saw %s", got)
		}
	}
}
