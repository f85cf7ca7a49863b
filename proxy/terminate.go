package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// killAfter is how long a proxy may take to end by itself: its grace and a bit.
const killAfter = 8 * time.Second

// goneWithin is how long a process may take to go that was killed: the kernel closes
// all its connections before.
const goneWithin = 10 * time.Second

// Terminate ends every proxy of a run directory, draining and half started ones
// included, and removes their sockets. It needs no agent. No proxy there is no
// error.
func Terminate(ctx context.Context, runDir string) error {
	return errors.Join(terminateAll(ctx, runDir, strayGlob), terminateAll(ctx, runDir, drainedGlob),
		terminate(ctx, filepath.Join(runDir, socketName)))
}

func terminateAll(ctx context.Context, runDir, glob string) error {
	paths, err := filepath.Glob(filepath.Join(runDir, glob))
	if err != nil {
		return fmt.Errorf("end proxy: %w", err)
	}
	var failed error
	for _, path := range paths {
		failed = errors.Join(failed, terminate(ctx, path))
	}
	return failed
}

func terminate(ctx context.Context, path string) error {
	greet, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	l, err := connect(greet, path, "")
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil
	case errors.Is(err, unix.ECONNREFUSED):
		return remove(path)
	case err != nil:
		return endSilent(ctx, path)
	}
	defer l.close()
	if err := l.signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("end proxy: %w", err)
	}
	if !l.ended(ctx, killAfter) {
		if err := l.signal(unix.SIGKILL); err != nil {
			return fmt.Errorf("end proxy: %w", err)
		}
		if !l.ended(context.WithoutCancel(ctx), goneWithin) {
			return fmt.Errorf("end proxy: process %d is still there after SIGKILL", l.peer.Pid)
		}
	}
	return remove(path)
}

// endSilent kills the process behind a socket on which nobody answers: one that is
// stopped or stuck cannot be asked to end.
func endSilent(ctx context.Context, path string) error {
	c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", path)
	if err != nil {
		return fmt.Errorf("end proxy: %w", err)
	}
	defer c.Close()
	l := &link{path: path, pidfd: -1}
	if l.peer, err = peerOf(c.(*net.UnixConn)); err != nil {
		return fmt.Errorf("end proxy: %w", err)
	}
	if int(l.peer.Pid) == os.Getpid() || l.peer.Pid <= 1 {
		return fmt.Errorf("end proxy: nobody answers on %s, and who listens there is not known: remove it", path)
	}
	defer l.close()
	if l.pidfd, err = unix.PidfdOpen(int(l.peer.Pid), 0); err != nil {
		return fmt.Errorf("end proxy: %w", err)
	}
	if err := unix.PidfdSendSignal(l.pidfd, unix.SIGKILL, nil, 0); err != nil {
		return fmt.Errorf("end proxy %d, which does not answer: %w", l.peer.Pid, err)
	}
	if !l.ended(context.WithoutCancel(ctx), goneWithin) {
		return fmt.Errorf("end proxy: process %d is still there after SIGKILL", l.peer.Pid)
	}
	return remove(path)
}

func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the socket of the proxy: %w", err)
	}
	return nil
}

// ended waits for the end of the process.
func (l *link) ended(ctx context.Context, within time.Duration) bool {
	until := time.Now().Add(within)
	for ctx.Err() == nil && time.Now().Before(until) {
		fds := []unix.PollFd{{Fd: int32(l.pidfd), Events: unix.POLLIN}}
		if n, err := unix.Poll(fds, 50); n > 0 && err == nil {
			return true
		}
	}
	return false
}
