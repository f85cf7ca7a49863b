package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// Clients that send a byte now and then, and such that do not read what they asked
// for, take nothing from others.
func TestSlowClients(t *testing.T) {
	r := web(t, http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/public/large" {
			_, _ = io.CopyN(w, zeros{}, 8<<20)
			return
		}
		hello(w, q)
	}), nil)
	for i := range 400 {
		c := r.dial()
		if i%2 == 0 {
			_, _ = io.WriteString(c, "GET /public HTT")
		} else {
			_, _ = io.WriteString(c, "GET /public/large HTTP/1.1\r\nHost: web\r\n\r\n")
		}
	}
	a := r.asker()
	began := time.Now()
	for i := range 200 {
		path := fmt.Sprintf("/public/%d", i)
		a.send("GET " + path)
		a.want(200, "hello "+path)
	}
	t.Log("200 requests beside 400 slow clients took", time.Since(began))
}

// What a connection costs that is open and says nothing, in a process of its own.
func TestIdleConnectionMemory(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(hello))
	defer s.Close()
	dir := t.TempDir()
	t.Cleanup(func() { _ = Terminate(context.Background(), dir) }) // after the agent's side has stopped
	b := supervise(t, dir, "v1", s.Listener.Addr().String(), nil)
	port := b.port()
	b.allowPublic(1)
	pid := b.Status().PID
	open := func(n int) {
		for range n {
			c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			must(t, err)
			t.Cleanup(func() { _ = c.Close() })
			_, err = io.WriteString(c, "GET /public HTTP/1.1\r\nHost: web\r\n\r\n")
			must(t, err)
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if n, err := c.Read(make([]byte, 1000)); n == 0 {
				t.Fatal(err)
			}
		}
	}
	open(200)
	before := resident(t, pid)
	const n = 1500
	open(n)
	each := (resident(t, pid) - before) / n
	t.Logf("an idle connection takes %d bytes of the process's memory, both sides", each)
	if each > 64<<10 && !raced {
		t.Errorf("an idle connection takes %d bytes", each)
	}
}

// resident is the memory of a process, in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	kb := 0
	if _, err := fmt.Sscan(rest, &kb); err != nil {
		t.Fatal(err)
	}
	return kb << 10
}
