package xds

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/redirect"
)

// An Envoy that lives and cannot be told of a change goes on by the rules of before, on
// connections that are open too. That is what it is for while the agent is away, and it
// may be a moment's work; but not for longer than hungAfter without a word. Then it is
// ended, whoever runs it: its ports are closed with it, and whoever runs it starts another.
// That one may only be slow: it gets twice the time, up to hungMost.
const (
	hungAfter = 10 * time.Second
	hungMost  = 2 * time.Minute
	forgiven  = 10 * time.Minute // after which all begins anew
)

const guardEvery = 500 * time.Millisecond

// guard knows which process enforces, and since when it has owed an answer.
type guard struct {
	log *slog.Logger

	mu    sync.Mutex
	pid   int
	pidfd int       // -1: none
	owes  time.Time // zero: nothing
	heard time.Time

	patience time.Duration
	ended    time.Time // the last one that was
}

func newGuard(log *slog.Logger) *guard { return &guard{log: log, pidfd: -1, patience: hungAfter} }

// connected takes hold of the process that enforces from now on.
func (g *guard) connected(pid int) {
	fd := -1
	if pid > 0 {
		if opened, err := unix.PidfdOpen(pid, 0); err == nil {
			fd = opened
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.letGo()
	g.pid, g.pidfd, g.owes, g.heard = pid, fd, time.Time{}, time.Now()
}

func (g *guard) letGo() {
	if g.pidfd >= 0 {
		unix.Close(g.pidfd)
	}
	g.pidfd = -1
}

// hears notes that Envoy says something: it is at work.
func (g *guard) hears() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.heard, g.owes = time.Now(), time.Time{}
}

// waited notes how it ended to wait for Envoy, which began at a time.
func (g *guard) waited(began time.Time, err error) {
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, redirect.ErrNotReady) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.owes.IsZero() && g.heard.Before(began) {
		g.owes = began
	}
}

// watch ends an Envoy that does not take what it is told, until the context ends.
func (g *guard) watch(ctx context.Context) {
	t := time.NewTicker(guardEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			g.mu.Lock()
			g.letGo()
			g.mu.Unlock()
			return
		case <-t.C:
		}
		if pid, err := g.endHung(time.Now()); pid != 0 {
			g.log.Error("Envoy did not take a change in time and is ended: it would go on by the rules of before", "pid", pid, "error", err)
		}
	}
}

// endHung ends the process if it has owed an answer for too long. It says which it was.
func (g *guard) endHung(now time.Time) (pid int, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pidfd < 0 || g.owes.IsZero() {
		return 0, nil
	}
	if now.Sub(g.ended) > forgiven {
		g.patience = hungAfter
	}
	if now.Sub(g.owes) < g.patience || now.Sub(g.heard) < g.patience {
		return 0, nil
	}
	if err = unix.PidfdSendSignal(g.pidfd, unix.SIGKILL, nil, 0); err != nil {
		if errors.Is(err, unix.ESRCH) { // it is gone already
			g.letGo()
			return 0, nil
		}
		err = fmt.Errorf("end Envoy %d: %w", g.pid, err)
	}
	g.ended, g.patience = now, min(2*g.patience, hungMost)
	g.letGo()
	return g.pid, err
}

// process is who enforces; 0: it is gone, or was never there.
func (g *guard) process() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.pidfd < 0 {
		return 0
	}
	fds := []unix.PollFd{{Fd: int32(g.pidfd), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err == nil && n > 0 {
		return 0
	}
	return g.pid
}
