package xds

import (
	"bufio"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// severed makes the test's own program have connections: see TestMain.
const severed = "severed"

// haveConnections listens, connects to itself and to another, and says so. A line: it
// listens no more.
func haveConnections(to []string) error {
	var listeners []net.Listener
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		listeners = append(listeners, l)
	}
	var all []net.Conn // so that none is collected
	for _, addr := range to {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		all = append(all, c)
	}
	words := bufio.NewReader(os.Stdin)
	if _, err := os.Stdout.WriteString("ready\n"); err != nil {
		return err
	}
	if _, err := words.ReadString('\n'); err != nil {
		return err
	}
	for _, l := range listeners {
		_ = l.Close()
	}
	if _, err := os.Stdout.WriteString("closed\n"); err != nil {
		return err
	}
	_, err := words.ReadString('\n')
	_ = all
	return err
}

// TestSever: all connections of a process end, those of others stay; not while it accepts.
func TestSever(t *testing.T) {
	newHolding(t) // root
	var addrs []string
	var accepted []net.Conn
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", "[::]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		at := l.Addr().String()
		if addr == "[::]:0" { // by IPv4, to a socket of IPv6
			_, port, _ := net.SplitHostPort(at)
			at = "127.0.0.1:" + port
		}
		addrs = append(addrs, at)
		other, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		mine, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer mine.Close()
		accepted = append(accepted, mine)
		go func() {
			for {
				if c, err := l.Accept(); err != nil {
					return
				} else {
					defer c.Close()
				}
			}
		}()
	}
	cmd := exec.Command("/proc/self/exe", append([]string{severed}, addrs...)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = cmd.Wait() })
	said := bufio.NewReader(out)
	says := func(want string) {
		t.Helper()
		if text, err := said.ReadString('\n'); err != nil || strings.TrimSpace(text) != want {
			t.Fatalf("it says %q, %v", text, err)
		}
	}
	says("ready")
	p := &process{PID: cmd.Process.Pid}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if listens, err := p.listens(); err != nil || !listens {
		t.Errorf("it listens: %v, %v", listens, err)
	}
	if err := sever(ctx, p); !errors.Is(err, errListens) {
		t.Errorf("while it listens: %v", err)
	}
	if _, err := in.Write([]byte("\n")); err != nil {
		t.Fatal(err)
	}
	says("closed")
	if _, open, err := socketsOf(p.PID); err != nil || len(open) != len(addrs) {
		t.Errorf("it has %v, %v", open, err)
	}
	if err := sever(ctx, p); err != nil {
		t.Fatal(err)
	}
	if listens, open, err := socketsOf(p.PID); err != nil || listens || len(open) > 0 {
		t.Errorf("it still has %v, %v", open, err)
	}
	if !p.alive() {
		t.Error("it was ended")
	}
	for _, c := range accepted {
		if _, err := c.Write([]byte("x")); err != nil {
			t.Errorf("a connection of another was closed: %v", err)
		}
	}
}
