package xds

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"testing"
	"time"

	"github.com/headgate/headgate/redirect"
)

// TestGuardEndsWhatHangs has a process owe an answer: it is ended when it has said nothing
// for long enough, and only then.
func TestGuardEndsWhatHangs(t *testing.T) {
	start := func(g *guard) (*exec.Cmd, chan error) {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		g.connected(cmd.Process.Pid)
		return cmd, done
	}
	ends := func(g *guard, in time.Duration) bool {
		pid, err := g.endHung(time.Now().Add(in))
		if err != nil {
			t.Fatal(err)
		}
		return pid != 0
	}
	late := fmt.Errorf("wait: %w", context.DeadlineExceeded)
	g := newGuard(slog.New(slog.DiscardHandler))
	_, done := start(g)
	if g.process() == 0 {
		t.Error("nobody enforces")
	}
	if ends(g, time.Hour) {
		t.Error("one that owes nothing was ended")
	}
	g.waited(time.Now(), late)
	if ends(g, hungAfter/2) {
		t.Error("it was ended before its time")
	}
	g.hears()
	if ends(g, time.Hour) {
		t.Error("one that works was ended")
	}
	g.waited(time.Now(), nil)
	g.waited(time.Now(), &RefusedError{})
	if ends(g, time.Hour) {
		t.Error("one that answered was ended")
	}
	g.waited(time.Now(), redirect.ErrNotReady)
	if !ends(g, hungAfter+time.Second) {
		t.Fatal("one that hangs was left alone")
	}
	<-done
	if g.process() != 0 || ends(g, time.Hour) {
		t.Error("one that is gone enforces")
	}
	_, done = start(g)
	g.waited(time.Now(), late)
	if ends(g, hungAfter+time.Second) {
		t.Error("the next one did not get more time")
	}
	if !ends(g, 2*hungAfter+time.Second) {
		t.Error("the next one was left alone")
	}
	<-done
}
