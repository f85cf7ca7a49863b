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

// startConnected starts a process that listens and connects to addresses.
func startConnected(t *testing.T, to ...string) (p *process, stopListening func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", append([]string{severed}, to...)...)
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
	done := make(chan struct{})
	said := bufio.NewReader(out)
	says := func(want string) {
		t.Helper()
		if text, err := said.ReadString('\n'); err != nil || strings.TrimSpace(text) != want {
			t.Fatalf("it says %q, %v", text, err)
		}
	}
	p = &process{PID: cmd.Process.Pid}
	if err := p.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		<-done
		p.close()
	})
	go func() { // a process that nobody waits for has not ended
		defer close(done)
		_, _ = cmd.Process.Wait()
	}()
	says("ready")
	return p, func() {
		t.Helper()
		if _, err := in.Write([]byte("\n")); err != nil {
			t.Fatal(err)
		}
		says("closed")
	}
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
	p, stopListening := startConnected(t, addrs...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if listens, err := p.listens(); err != nil || !listens {
		t.Errorf("it listens: %v, %v", listens, err)
	}
	if err := sever(ctx, p); !errors.Is(err, errListens) {
		t.Errorf("while it listens: %v", err)
	}
	stopListening()
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

// TestHandingOver: rules of before hold for a bounded time, whoever hangs.
func TestHandingOver(t *testing.T) {
	b := newHolding(t)
	b.guard = newGuard(b.log)
	told := make(chan struct{}, 1)
	b.config.OnStream = func() { told <- struct{}{} }
	now := time.Now()
	soon, late := now.Add(-hungAfter/2), now.Add(-hungAfter-time.Second)
	next, err := b.startProcess(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer next.close()
	t.Cleanup(func() { _ = next.endOther() })
	check := func(what string, h *handing, at time.Time, owed *time.Time, ends bool) {
		t.Helper()
		b.owed.Store(owed)
		if err := b.watchHanding(next, h, at); (err != nil) != ends {
			t.Errorf("%s: %v", what, err)
		}
	}
	check("nothing has changed", handingOf(next, true), now, nil, false)
	check("it may come back", handingOf(next, true), now, &soon, false)
	check("it does not come back", handingOf(next, true), now, &late, true)
	check("it carries nothing", handingOf(next, false), now, &late, false)
	b.guard.connected(next.PID)
	check("the guard has it", handingOf(next, true), now, &late, false)

	old, stopListening := startConnected(t)
	next.Before = old
	check("it takes over", handingOf(next, false), now, &soon, false)
	check("it does not take over, and something has changed", handingOf(next, false), now, &late, true)
	check("it does not take over", handingOf(next, false), now.Add(startWithin+time.Minute), nil, true)
	if err := b.watchDraining(next); err != nil || next.Before == nil || old.Until != 0 {
		t.Errorf("what drains has begun to: %v", err)
	}
	stopListening()
	h := handingOf(next, false)
	check("it has taken over", h, now, &soon, false)
	select {
	case <-told:
	case <-time.After(time.Minute):
		t.Error("who waits is not told")
	}
	until := old.Until
	if until == 0 || h.severed {
		t.Errorf("it drains until %d, %+v", until, h)
	}
	check("an agent after that", handingOf(next, true), now.Add(time.Hour), nil, false)
	if old.Until != until {
		t.Error("it drains for longer with another agent")
	}
	check("the next one hangs", h, now, &late, false)
	if !h.severed || !old.alive() {
		t.Errorf("its connections were not ended, or it was: %+v", h)
	}
	// All of both ends; the next attempt starts anew.
	if err := b.endBoth(next); err != nil || old.alive() || !next.ended(0) {
		t.Errorf("something is left: %v", err)
	}
}
