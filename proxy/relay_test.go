package proxy

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
)

func echo(c *net.TCPConn) { _, _ = io.Copy(c, c) }

func framed(t *testing.T, handle func(*net.TCPConn), change func(*Config)) *running {
	t.Helper()
	r := startProxy(t, server(t, handle), func(c *Config) {
		c.NewSession = newFrames
		if change != nil {
			change(c)
		}
	})
	r.enforce(setA)
	return r
}

// Frames of all kinds and sizes, torn at random: what is forwarded comes back
// from the server in order, what is dropped is answered in order, and no answer
// stands inside another's payload.
func TestRelayFrames(t *testing.T) {
	r := framed(t, echo, nil)
	var group sync.WaitGroup
	for seed := range uint64(4) {
		group.Go(func() { exchangeFrames(t, r, rand.New(rand.NewPCG(seed, 1))) })
	}
	group.Wait()
}

func exchangeFrames(t *testing.T, r *running, rnd *rand.Rand) {
	var sent, forwarded, denied bytes.Buffer
	for range 200 {
		size := rnd.IntN(300)
		if rnd.IntN(20) == 0 {
			size = rnd.IntN(1 << 20)
		}
		payload := bytes.Repeat([]byte{byte('a' + rnd.IntN(26))}, size)
		letter := "FDM"[rnd.IntN(3)]
		sent.Write(frame(letter, payload))
		switch letter {
		case 'D':
			denied.Write(frame('D', payload)[1:5])
		case 'M':
			forwarded.Write(frame('m', payload))
		default:
			forwarded.Write(frame('F', payload))
		}
	}
	c := r.dial()
	go func() {
		for sent.Len() > 0 {
			n := 1 + rnd.IntN(40)
			if rnd.IntN(3) == 0 {
				n = rnd.IntN(200_000)
			}
			if _, err := c.Write(sent.Next(n)); err != nil {
				t.Error(err)
				return
			}
		}
		_ = c.CloseWrite()
	}()
	var gotForwarded, gotDenied bytes.Buffer
	for {
		letter, payload, err := readFrame(c)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Error(err)
			return
		}
		if letter == 'X' {
			gotDenied.Write(payload)
		} else {
			gotForwarded.Write(frame(letter, payload))
		}
	}
	if !bytes.Equal(gotDenied.Bytes(), denied.Bytes()) {
		t.Error("denials differ")
	}
	if !bytes.Equal(gotForwarded.Bytes(), forwarded.Bytes()) {
		t.Error("forwarded frames differ")
	}
}

func TestRelayEndsCleanly(t *testing.T) {
	r := framed(t, echo, nil)
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("hello")))
	if _, p, err := readFrame(c); err != nil || string(p) != "hello" {
		t.Fatal(string(p), err)
	}
	// A close is flushed first, and the client's late bytes do not reset it away.
	_, _ = c.Write(frame('K', nil))
	_, _ = c.Write(make([]byte, 100_000))
	rest, err := io.ReadAll(c)
	if err != nil || string(rest) != "Xbye." {
		t.Fatalf("%q %v", rest, err)
	}
	_ = c.Close()
	eventually(t, "the connection is forgotten", func() bool { return r.status().Connections == 0 })
}

// The client's FIN arrives at the server behind its bytes, and the server may go
// on answering.
func TestHalfClose(t *testing.T) {
	r := framed(t, func(c *net.TCPConn) {
		all, _ := io.ReadAll(c)
		time.Sleep(50 * time.Millisecond)
		_, _ = c.Write(frame('F', all))
	}, nil)
	c := r.dial()
	want := frame('F', bytes.Repeat([]byte("x"), 400_000))
	_, _ = c.Write(want)
	_ = c.CloseWrite()
	_, got, err := readFrame(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatal(len(got), err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatal(n, err)
	}
	eventually(t, "the connection is forgotten", func() bool { return r.status().Connections == 0 })
}

func TestReset(t *testing.T) {
	reached, gone := make(chan struct{}), make(chan error, 1)
	r := framed(t, func(c *net.TCPConn) {
		_, _, _ = readFrame(c)
		close(reached)
		_, err := c.Read(make([]byte, 1))
		gone <- err
	}, nil)
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("hello")))
	<-reached
	_ = c.SetLinger(0)
	_ = c.Close()
	select {
	case err := <-gone:
		if !errors.Is(err, unix.ECONNRESET) {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Fatal("the server was not told")
	}
}

// What the server sent before it reset the connection arrives.
func TestResetBehindAnswer(t *testing.T) {
	r := framed(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = c.Write(frame('F', []byte("too large")))
		_ = c.SetLinger(0)
	}, nil)
	c := r.dial()
	_, _ = c.Write(frame('F', bytes.Repeat([]byte("x"), 8<<20)))
	_, p, err := readFrame(c)
	if string(p) != "too large" {
		t.Fatalf("%q %v", p, err)
	}
	eventually(t, "the connection is forgotten", func() bool { return r.status().Connections == 0 })
}

// A body that ends early ends everything: what was queued behind it must not be
// taken for its rest.
func TestTruncated(t *testing.T) {
	denied := make(chan struct{})
	r := framed(t, func(c *net.TCPConn) {
		_, _, _ = readFrame(c)
		_, _ = c.Write(frame('F', make([]byte, 1000))[:500])
		<-denied
	}, nil)
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("go")))
	if _, err := io.ReadFull(c, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	_, _ = c.Write(frame('D', []byte("denied")))
	time.Sleep(100 * time.Millisecond) // its answer is queued, most likely
	close(denied)
	if rest, _ := io.ReadAll(c); len(rest) > 0 {
		t.Fatalf("%q behind a body that was cut short", rest)
	}
}

// Whoever does not read is not read for either.
func TestBackPressure(t *testing.T) {
	var taken atomic.Int64
	r := framed(t, func(c *net.TCPConn) {
		_, _, _ = readFrame(c)
		_, _ = c.Write(frame('F', make([]byte, 80<<20))[:5])
		block := make([]byte, 64<<10)
		for taken.Load() < 80<<20 {
			n, err := c.Write(block)
			taken.Add(int64(n))
			if err != nil {
				return
			}
		}
	}, nil)
	c := r.dial()
	_, _ = c.Write(frame('F', []byte("go")))
	last := int64(-1)
	eventually(t, "the server stalls", func() bool {
		time.Sleep(100 * time.Millisecond)
		now := taken.Load()
		stalled := now > 0 && now == last
		last = now
		return stalled
	})
	if last > 40<<20 {
		t.Errorf("the server got rid of %d MB", last>>20)
	}
	_, p, err := readFrame(c)
	if err != nil || len(p) != 80<<20 {
		t.Fatal(len(p), err)
	}
}

// Denials that the client does not read stop it from being read.
func TestBackPressureOfDenials(t *testing.T) {
	r := framed(t, echo, func(c *Config) { c.Limits.Pending = 1 << 10 })
	c := r.dial()
	denied := bytes.Repeat(frame('D', nil), 10_000)
	sent := 0
	for {
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := c.Write(denied)
		sent += n
		if err != nil {
			break
		}
		if sent > 100<<20 {
			t.Fatal("the client is read without end")
		}
	}
	whole := sent / 5
	answers := bufio.NewReader(c)
	for range whole {
		if _, _, err := readFrame(answers); err != nil {
			t.Fatal(err)
		}
	}
}

func TestUnknownIsRefused(t *testing.T) {
	r := startProxy(t, server(t, echo), func(c *Config) { c.NewSession = newFrames })
	refused := func(why string) {
		t.Helper()
		before := r.status().Refused
		if c, err := net.Dial("tcp", r.addr); err == nil {
			_, _ = c.Write(frame('F', nil))
			if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
				t.Error(why, n, err)
			}
			_ = c.Close()
		}
		eventually(t, why+": counted", func() bool { return r.status().Refused == before+1 })
	}
	refused("no snapshot yet")
	r.enforce(setB)
	refused("set not in force")
	r.enforce(setA)
	r.connections.set(Connection{Egress: setA}, true)
	refused("not in conntrack")
	r.connections.set(Connection{Egress: setA, Denied: true}, false)
	refused("denied")
	r.connections.set(Connection{Egress: setA, Ingress: 4<<24 | 1}, false)
	refused("two protocols")
}

func TestConnectionLimits(t *testing.T) {
	r := framed(t, echo, func(c *Config) { c.Limits.PerSource = 2 })
	// A refused connection may be reset before the client knows that it is open.
	open := func() (net.Conn, error) {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = c.Write(frame('F', []byte("x")))
		_, _, err = readFrame(c)
		return c, err
	}
	a, err := open()
	must(t, err)
	_, err = open()
	must(t, err)
	if _, err := open(); err == nil {
		t.Fatal("a third connection was taken")
	}
	_ = a.Close()
	eventually(t, "there is room again", func() bool { _, err := open(); return err == nil })
}

// Without L7 rules left, bytes pass, and the server may speak first.
func TestOpaque(t *testing.T) {
	r := framed(t, func(c *net.TCPConn) {
		_, _ = c.Write([]byte("220 ready\n"))
		echo(c)
	}, nil)
	r.connections.set(Connection{}, false)
	c := r.dial()
	got := make([]byte, 10)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "220 ready\n" {
		t.Fatalf("%q %v", got, err)
	}
	_, _ = c.Write([]byte("anything"))
	if _, err := io.ReadFull(c, got[:8]); err != nil || string(got[:8]) != "anything" {
		t.Fatalf("%q %v", got, err)
	}
	// Denied now: a tunnel does not wait for a next request.
	r.connections.set(Connection{Denied: true}, false)
	if _, err := c.Read(got); err == nil {
		t.Fatal("the tunnel stays open")
	}
}

// upgrader judges one request and then tunnels.
type upgrader struct {
	hooks  parsers.Hooks
	judged bool
}

func (u *upgrader) Phase() parsers.Phase { return parsers.Response }

func (u *upgrader) Feed(from parsers.Side, _ []byte, eof bool) ([]parsers.Step, error) {
	if !u.judged {
		u.judged = true
		d := u.hooks.Request(1, &policy.HTTPRequest{
			Method: []byte("GET"), Path: []byte("/"), Headers: []policy.HTTPHeader{{Name: []byte("UPGRADE"), Value: []byte("websocket")}},
		})
		if d.Verdict != policy.Allow {
			return nil, errors.New("denied")
		}
	}
	return (&opaque{}).Feed(from, nil, eof)
}

// A tunnel is judged again, by the request that opened it, when rules change.
func TestTunnelIsRechecked(t *testing.T) {
	var deny atomic.Bool
	r := framed(t, echo, func(c *Config) {
		c.NewSession = func(_ policy.Protocol, h parsers.Hooks) parsers.Session { return &upgrader{hooks: h} }
		c.Compile = func(*policy.L7Set) (Judge, error) {
			return judgeFunc(func(q policy.Request) policy.Decision {
				if deny.Load() || len(q.(*policy.HTTPRequest).Headers) != 1 {
					return policy.Decision{Reason: "changed"}
				}
				return policy.Decision{Verdict: policy.Allow}
			}), nil
		}
	})
	c := r.dial()
	got := make([]byte, 8)
	say := func() {
		t.Helper()
		_, _ = c.Write([]byte("anything"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "anything" {
			t.Fatalf("%q %v", got, err)
		}
	}
	say()
	r.enforce(setA)
	r.connections.set(Connection{Egress: setA, Ingress: setA}, false)
	time.Sleep(2 * recheckEvery)
	say()
	deny.Store(true)
	r.enforce(setA)
	if _, err := c.Read(got); err == nil {
		t.Fatal("the tunnel stays open")
	}
	if s := r.status(); s.Denied != 1 {
		t.Error(s)
	}
}

// A transfer for which no pipe can be made goes on by copying.
func TestTransfersWithoutPipes(t *testing.T) {
	r := framed(t, echo, nil)
	c := r.dial()
	speaks(t, c) // the server is dialled
	var limit unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &limit))
	none := limit
	none.Cur = 1 // what is open stays so
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	defer func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)) }()
	sent := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	go func() { _, _ = c.Write(frame('F', sent)) }()
	if _, got, err := readFrame(c); err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d came back, %v", len(got), len(sent), err)
	}
}

// What the peer did between the last Feed of a side that ended and its wait wakes
// nobody: the side must not begin to wait.
func TestEndHearsOfEarlierSteps(t *testing.T) {
	c := &conn{}
	c.cond.L = &c.mu
	c.ends[parsers.Client].eof = true
	c.ends[parsers.Server].sock = &epoll.Socket{}
	c.ends[parsers.Server].steps = 1
	c.mu.Lock()
	waited := time.AfterFunc(patience, func() { c.mu.Lock(); defer c.mu.Unlock(); c.closing = true; c.cond.Broadcast() })
	defer waited.Stop()
	c.rest(parsers.Client)
	if e := &c.ends[parsers.Client]; !e.again || e.parked || c.closing {
		t.Errorf("to be fed again: %v, waits: %v, given up: %v", e.again, e.parked, c.closing)
	}
}

// A socket that the connection's own end closed under its reader has not failed.
func TestOwnCloseIsNoFailure(t *testing.T) {
	for _, closing := range []bool{false, true} {
		c := &conn{closing: closing}
		c.cond.L = &c.mu
		if on := c.readFailed(parsers.Client, net.ErrClosed); on != closing || c.dead == closing {
			t.Errorf("closing: %v, goes on: %v, dead: %v", closing, on, c.dead)
		}
	}
}
