package epoll

import (
	"errors"
	"fmt"
	"io"
	"net"

	"golang.org/x/sys/unix"
)

// pipeSize is asked for; pipes keep their first size where a user's share is used up.
const pipeSize = 512 << 10

type pipe struct{ r, w, size int }

func (ls *Loops) pipe() (pipe, error) {
	select {
	case p := <-ls.pipes:
		return p, nil
	default:
	}
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return pipe{}, fmt.Errorf("%w: %w", ErrPipe, err)
	}
	p := pipe{fds[0], fds[1], 64 << 10}
	if size, err := unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize); err == nil {
		p.size = size
	}
	return p, nil
}

func (p pipe) close() { _, _ = unix.Close(p.r), unix.Close(p.w) }

// giveBack keeps an empty pipe for later.
func (ls *Loops) giveBack(p pipe) {
	select {
	case ls.pipes <- p:
	default:
		p.close()
	}
}

// ErrPipe says that there is no pipe to splice with, as when the process has as many
// descriptors as it may. Nothing was moved, and copying goes on.
var ErrPipe = errors.New("make a pipe")

// WriteError is of the socket that a splice writes to.
type WriteError struct{ Err error }

func (e *WriteError) Error() string { return "splice: " + e.Err.Error() }

func (e *WriteError) Unwrap() error { return e.Err }

// Splice waits for something to read and moves up to n bytes of it to another socket
// inside the kernel: as much as there is, but not more than a pipe holds. more says that
// the rest of n follows, at once as long as there is as much as was asked for.
func (s *Socket) Splice(to *Socket, n int64, more bool) (int64, error) {
	for {
		p, err := s.loop.loops.pipe()
		if err != nil {
			return 0, err
		}
		want := int(min(n, int64(p.size)))
		got, err := s.fill(p, want)
		switch {
		case err == unix.EINTR:
			s.loop.loops.giveBack(p)
			continue
		case err == unix.EAGAIN: // no pipe is held by who waits
			s.loop.loops.giveBack(p)
			if more && s.gathering.on {
				err = s.awaitMuch(n)
			} else {
				err = s.AwaitInput()
			}
			if err != nil {
				return 0, err
			}
			continue
		case err == nil && got == 0:
			err = io.EOF
		}
		if err != nil {
			s.loop.loops.giveBack(p)
			return 0, err
		}
		// The kernel keeps back part of a segment for what follows, so there must be more now.
		if err := to.pour(p, got, more && got == want && int64(got) < n); err != nil {
			p.close() // what is left in it is nobody's
			return 0, &WriteError{err}
		}
		s.loop.loops.giveBack(p)
		return int64(got), nil
	}
}

func (s *Socket) fill(p pipe, n int) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.done()
	got, err := unix.Splice(s.fd, nil, p.w, nil, n, unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
	return int(got), err
}

// pour writes n bytes that are in a pipe.
func (s *Socket) pour(p pipe, n int, more bool) error {
	flags := unix.SPLICE_F_NONBLOCK | unix.SPLICE_F_MOVE
	if more {
		flags |= unix.SPLICE_F_MORE
	}
	for n > 0 {
		if !s.use() {
			return net.ErrClosed
		}
		out, err := unix.Splice(p.r, nil, s.fd, nil, n, flags)
		s.done()
		switch {
		case err == unix.EAGAIN:
			if err := s.AwaitRoom(); err != nil {
				return err
			}
		case err == unix.EINTR:
		case err != nil:
			return err
		default:
			n -= int(out)
		}
	}
	return nil
}
