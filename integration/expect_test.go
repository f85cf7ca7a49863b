package integration

import (
	"net/http"
	"net/netip"
	"testing"
	"time"
)

// deniedBody is what the contract promises a denied HTTP client.
const deniedBody = "Access denied\r\n"

// mustOpen connects, which policy allows.
func (n *namespace) mustOpen(t *testing.T, to netip.AddrPort) *session {
	t.Helper()
	s, err := n.open(to, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// mustAsk asks on a new connection and wants this status.
func (n *namespace) mustAsk(t *testing.T, to netip.AddrPort, method, path string, status int) *reply {
	t.Helper()
	return n.mustOpen(t, to).mustAsk(t, method, path, status)
}

// mustAsk asks on this connection and wants this status.
func (s *session) mustAsk(t *testing.T, method, path string, status int) *reply {
	t.Helper()
	r, err := s.ask(method, path, "")
	if err != nil {
		t.Fatalf("%s %s from %s: %v", method, path, s.LocalAddr(), err)
	}
	if r.status != status {
		t.Fatalf("%s %s from %s: status %d, want %d", method, path, s.LocalAddr(), r.status, status)
	}
	if status == http.StatusForbidden && r.body != deniedBody {
		t.Fatalf("%s %s: body %q, want %q", method, path, r.body, deniedBody)
	}
	return r
}

// mustNotConnect tries to connect, which must be met with silence.
func (n *namespace) mustNotConnect(t *testing.T, to netip.AddrPort) {
	t.Helper()
	c, err := n.dial(to, refusalTime)
	if err == nil {
		c.Close()
		t.Fatalf("a connection to %s was made, and must not be", to)
	}
	if !isTimeout(err) {
		t.Fatalf("a connection to %s was not dropped but refused: %v", to, err)
	}
}

// mustEnd reads to the end of a connection that has nothing more to say.
func (s *session) mustEnd(t *testing.T) {
	t.Helper()
	_ = s.SetReadDeadline(time.Now().Add(patience))
	b, err := s.read.ReadByte()
	if err == nil {
		t.Fatalf("got byte %#x, want the end of the connection", b)
	}
	if isTimeout(err) {
		t.Fatal("the connection is still open")
	}
}
