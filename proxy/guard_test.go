package proxy

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// faulty is a session that fails at a certain call, once it was told to by a frame;
// otherwise it is one of frames.
type faulty struct {
	frames
	hooks parsers.Hooks
	fails string
}

func (f *faulty) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	if eof && f.fails == "the end" {
		panic("at the end")
	}
	if from == parsers.Server || len(data) == 0 || data[0] != '!' {
		return f.frames.Feed(from, data, eof)
	}
	switch f.fails {
	case "Feed":
		panic("at Feed")
	case "Release":
		return []parsers.Step{{Op: parsers.Hold, Token: 1, Wait: time.Millisecond}}, nil
	case "Recheck":
		f.hooks.(*conn).choose(f, "frames")
		f.hooks.(*conn).p.lookAtTunnels()
	}
	return []parsers.Step{{Op: parsers.Discard, N: int64(len(data))}}, nil
}

func (f *faulty) Release(uint64) { panic("at Release") }

func (f *faulty) Recheck(func(uint64, policy.Request) bool) []parsers.Step { panic("at Recheck") }

// lines is a log that can be read while it is written.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// A session that fails, whoever calls it, costs its connection and no other; it is
// counted, and the log says where.
func TestFailuresCostOneConnection(t *testing.T) {
	for _, at := range []string{"Feed", "Release", "Recheck", "NewSession"} {
		t.Run(at, func(t *testing.T) {
			var log lines
			var made atomic.Int32
			r := framed(t, echo, func(c *Config) {
				c.Logger = slog.New(slog.NewTextHandler(&log, nil))
				c.NewSession = func(_ policy.Protocol, h parsers.Hooks) parsers.Session {
					if made.Add(1) == 2 && at == "NewSession" {
						panic("at NewSession")
					}
					return &faulty{hooks: h, fails: at}
				}
			})
			other := r.dial()
			speaks(t, other)
			if c, err := net.Dial("tcp", r.addr); err == nil { // else it was reset at once
				_, _ = c.Write([]byte("!"))
				if rest, err := io.ReadAll(c); len(rest) > 0 {
					t.Errorf("the connection that failed: %q, %v", rest, err)
				}
				_ = c.Close()
			}
			eventually(t, "the connection is forgotten and counted", func() bool {
				s := r.status()
				return s.Connections == 1 && s.Malformed == 1
			})
			if got := log.String(); !strings.Contains(got, "at "+at) || !strings.Contains(got, "guard_test.go") {
				t.Errorf("the log has no panic with its stack:\n%s", got)
			}
			speaks(t, other)
		})
	}
}

func speaks(t *testing.T, other *net.TCPConn) {
	t.Helper()
	_, _ = other.Write(frame('F', []byte("hello")))
	if _, p, err := readFrame(other); err != nil || string(p) != "hello" {
		t.Fatalf("another connection: %q, %v", p, err)
	}
}

func onEveryLoop(r *running) []*net.TCPConn {
	all := make([]*net.TCPConn, 2*runtime.GOMAXPROCS(0))
	for i := range all {
		all[i] = r.dial()
	}
	return all
}

// talker echoes frames; after one that says so, it talks for as long as it is heard.
func talker(c *net.TCPConn) {
	for {
		_, p, err := readFrame(c)
		for err == nil {
			if _, err = c.Write(frame('F', p)); string(p) != "talk" {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if err != nil {
			return
		}
	}
}

// A session that fails in the goroutine of a side, here at its end, leaves nothing locked:
// what the other side sends then holds up neither the loop nor other connections.
func TestFailureAtTheEndHoldsUpNobody(t *testing.T) {
	r := framed(t, talker, func(c *Config) {
		c.NewSession = func(_ policy.Protocol, h parsers.Hooks) parsers.Session {
			return &faulty{hooks: h, fails: "the end"}
		}
	})
	others := onEveryLoop(r)
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("talk")))
	if _, p, err := readFrame(c); err != nil || string(p) != "talk" {
		t.Fatalf("before the end: %q, %v", p, err)
	}
	must(t, c.CloseWrite())
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the connection that failed stays open")
	}
	for _, other := range others {
		speaks(t, other)
	}
	eventually(t, "the connection is forgotten and counted", func() bool {
		s := r.status()
		return s.Connections == uint64(len(others)) && s.Malformed == 1
	})
}

// slow is a session that takes its time for what is longer than a common buffer.
type slow struct {
	frames
	begun, end chan struct{}
}

func (s *slow) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	if from == parsers.Server || len(data) == 0 || data[0] != 'W' {
		return s.frames.Feed(from, data, eof)
	}
	if len(data) > bufferSize {
		select {
		case s.begun <- struct{}{}:
		default:
		}
		<-s.end
	}
	return nil, nil
}

// A session that is busy with much input holds up its own connection only, whoever
// sends more on that.
func TestMuchInputHoldsUpNobody(t *testing.T) {
	begun, end := make(chan struct{}, 1), make(chan struct{})
	r := framed(t, talker, func(c *Config) {
		c.NewSession = func(policy.Protocol, parsers.Hooks) parsers.Session {
			return &slow{begun: begun, end: end}
		}
	})
	t.Cleanup(func() { close(end) }) // before the proxy is stopped
	others := onEveryLoop(r)
	for _, other := range others {
		speaks(t, other)
	}
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("talk")))
	if _, p, err := readFrame(c); err != nil || string(p) != "talk" {
		t.Fatalf("before: %q, %v", p, err)
	}
	_, _ = c.Write(append([]byte{'W'}, make([]byte, bufferSize+bufferSize/2)...))
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatal("the session got no more than a common buffer holds")
	}
	time.Sleep(50 * time.Millisecond) // for the server to talk
	for range 3 {
		for _, other := range others {
			speaks(t, other)
		}
	}
}
