package integration

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// echoServer speaks no protocol: it sends every line back. It keeps its ends of
// the connections, so that a test can see what becomes of them.
type echoServer struct {
	mu   sync.Mutex
	ends map[netip.AddrPort]*echoEnd // by the client's address
}

// echoEnd is the server's end of a connection.
type echoEnd struct {
	net.Conn
	done chan struct{}
	err  error // how it ended, once done
}

func (n *namespace) serveEcho(t *testing.T, port int) *echoServer {
	t.Helper()
	s := &echoServer{ends: map[netip.AddrPort]*echoEnd{}}
	l := n.listen(t, port)
	t.Cleanup(func() {
		l.Close()
		s.closeAll()
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e := &echoEnd{Conn: c, done: make(chan struct{})}
			s.mu.Lock()
			s.ends[endOf(c.RemoteAddr())] = e
			s.mu.Unlock()
			go e.serve()
		}
	}()
	return s
}

func (e *echoEnd) serve() {
	defer close(e.done)
	r := bufio.NewReader(e)
	for {
		line, err := r.ReadBytes('\n')
		if err == nil {
			_, err = e.Write(line)
		}
		if err != nil {
			e.err = err
			return
		}
	}
}

func (s *echoServer) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.ends {
		e.Close()
	}
}

// end is the server's end of a client's connection.
func (s *echoServer) end(client net.Addr) *echoEnd {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends[endOf(client)]
}

// isReset wants a reset once the server has something to say.
func (e *echoEnd) isReset(t *testing.T) {
	t.Helper()
	for range patience / refusalTime {
		_, _ = e.Write([]byte("anybody there?\n"))
		select {
		case <-e.done:
			if !errors.Is(e.err, unix.ECONNRESET) {
				t.Errorf("the server's connection to %s ended with %v, want a reset", e.RemoteAddr(), e.err)
			}
			return
		case <-time.After(refusalTime):
		}
	}
	t.Errorf("the server's connection to %s was not reset", e.RemoteAddr())
}

// exchange sends a line and reads it back.
func (s *session) exchange(within time.Duration) (string, error) {
	want := fmt.Sprintf("from %s at %d\n", s.LocalAddr(), time.Now().UnixNano())
	_ = s.SetDeadline(time.Now().Add(within))
	if _, err := s.Write([]byte(want)); err != nil {
		return "", err
	}
	got, err := s.read.ReadString('\n')
	if err == nil && got != want {
		err = fmt.Errorf("sent %q", want)
	}
	return got, err
}

// echoes wants a line to come back.
func (s *session) echoes(t *testing.T) {
	t.Helper()
	if line, err := s.exchange(patience); err != nil {
		t.Errorf("connection of %s: got %q, %v", s.LocalAddr(), line, err)
	}
}

// staysSilent wants no line to come back.
func (s *session) staysSilent(t *testing.T) {
	t.Helper()
	if line, err := s.exchange(refusalTime); !isTimeout(err) {
		t.Errorf("connection of %s, which was revoked: got %q, %v", s.LocalAddr(), line, err)
	}
}

// isReset wants a reset once something is written.
func (s *session) isReset(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		_ = s.SetDeadline(time.Now().Add(refusalTime))
		_, err := s.Write([]byte("anybody there?\n"))
		if err == nil {
			_, err = s.read.ReadByte()
		}
		switch {
		case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
			return
		case err != nil && !isTimeout(err):
			t.Errorf("connection of %s ended with %v, want a reset", s.LocalAddr(), err)
			return
		}
	}
	t.Errorf("connection of %s was not reset", s.LocalAddr())
}
