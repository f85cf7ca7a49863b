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
			speaks := func() {
				t.Helper()
				_, _ = other.Write(frame('F', []byte("hello")))
				if _, p, err := readFrame(other); err != nil || string(p) != "hello" {
					t.Fatalf("the other connection: %q, %v", p, err)
				}
			}
			speaks()
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
			speaks()
		})
	}
}

// A session that fails in the goroutine of a side, here at its end, leaves nothing locked:
// what the other side sends then holds up neither the loop nor other connections.
func TestFailureAtTheEndHoldsUpNobody(t *testing.T) {
	r := framed(t, func(c *net.TCPConn) {
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
	}, func(c *Config) {
		c.NewSession = func(_ policy.Protocol, h parsers.Hooks) parsers.Session {
			return &faulty{hooks: h, fails: "the end"}
		}
	})
	others := make([]*net.TCPConn, 2*runtime.GOMAXPROCS(0)) // of every loop
	for i := range others {
		others[i] = r.dial()
	}
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
		_, _ = other.Write(frame('F', []byte("hello")))
		if _, p, err := readFrame(other); err != nil || string(p) != "hello" {
			t.Fatalf("another connection: %q, %v", p, err)
		}
	}
	eventually(t, "the connection is forgotten and counted", func() bool {
		s := r.status()
		return s.Connections == uint64(len(others)) && s.Malformed == 1
	})
}
