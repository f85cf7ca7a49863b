package integration

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// request is what a server saw.
type request struct {
	method, path, token string
	from                netip.AddrPort
}

// webServer answers every request and remembers it. With ?bytes=N it answers with
// that many of pattern.
type webServer struct {
	mu   sync.Mutex
	seen []request

	port int
	open atomic.Int64 // connections
}

// serveWeb starts a server in the namespace.
func (n *namespace) serveWeb(t *testing.T, port int) *webServer {
	t.Helper()
	s := &webServer{port: port}
	l := n.listen(t, port)
	h := &http.Server{Handler: s, ErrorLog: log.New(io.Discard, "", 0), ConnState: s.count}
	go func() { _ = h.Serve(l) }()
	t.Cleanup(func() { h.Close() })
	return s
}

func (s *webServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	sum := sha256.New()
	_, err := io.Copy(sum, r.Body)
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	s.mu.Lock()
	s.seen = append(s.seen, request{r.Method, r.URL.Path, r.Header.Get("X-Token"), from})
	s.mu.Unlock()
	if err != nil {
		return
	}
	w.Header().Set("X-From", from.String())
	w.Header().Set("X-Token", r.Header.Get("X-Token"))
	w.Header().Set("X-Sum", hex.EncodeToString(sum.Sum(nil)))
	if size, err := strconv.ParseInt(r.URL.Query().Get("bytes"), 10, 64); err == nil {
		w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
		_, _ = io.CopyN(w, newPattern(), size)
		return
	}
	fmt.Fprintf(w, "%s %s\n", r.URL.Path, r.Header.Get("X-Token"))
}

// requests are those seen so far.
func (s *webServer) requests() []request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]request(nil), s.seen...)
}

func (s *webServer) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Add(-1)
	}
}

// hearOut waits, when nobody can reach the server any more, until it has dealt with
// all that came before: it accepts in order, so a request of its own namespace is the
// last.
func (s *webServer) hearOut(t *testing.T, server *workload) {
	t.Helper()
	own := server.mustOpen(t, server.at(4, s.port))
	own.mustAsk(t, "GET", "/allowed", 200)
	own.Close()
	eventually(t, patience, "the server's connections ended", func() error {
		if n := s.open.Load(); n > 0 {
			return fmt.Errorf("%d are open", n)
		}
		return nil
	})
}

// forget begins anew.
func (s *webServer) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = nil
}

// pattern is bytes without end, of which any piece says where it belongs.
type pattern struct {
	block [sha256.Size]byte
	used  int
}

func newPattern() *pattern { return &pattern{used: sha256.Size} }

func (p *pattern) Read(b []byte) (int, error) {
	n := 0
	for n < len(b) {
		if p.used == len(p.block) {
			p.block, p.used = sha256.Sum256(p.block[:]), 0
		}
		m := copy(b[n:], p.block[p.used:])
		n, p.used = n+m, p.used+m
	}
	return n, nil
}

// patternSum is the checksum of its first bytes.
func patternSum(size int64) string {
	h := sha256.New()
	_, _ = io.CopyN(h, newPattern(), size)
	return hex.EncodeToString(h.Sum(nil))
}

// session is a client's connection that is kept.
type session struct {
	net.Conn
	read *bufio.Reader
}

func (n *namespace) open(to netip.AddrPort, within time.Duration) (*session, error) {
	c, err := n.dial(to, within)
	if err != nil {
		return nil, err
	}
	return &session{c, bufio.NewReader(c)}, nil
}

// reply is what a client got.
type reply struct {
	status int
	header http.Header
	body   string
	last   bool // of its connection
}

// ask sends a request and reads the answer.
func (s *session) ask(method, path, token string) (*reply, error) {
	_ = s.SetDeadline(time.Now().Add(patience))
	length := ""
	if method == http.MethodPost || method == http.MethodPut {
		length = "Content-Length: 0\r\n"
	}
	if _, err := fmt.Fprintf(s, "%s %s HTTP/1.1\r\nHost: server\r\nX-Token: %s\r\n%s\r\n", method, path, token, length); err != nil {
		return nil, err
	}
	r, err := http.ReadResponse(s.read, &http.Request{Method: method})
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	return &reply{r.StatusCode, r.Header, string(body), r.Close}, nil
}
