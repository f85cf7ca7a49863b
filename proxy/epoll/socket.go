package epoll

import (
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Socket is a TCP socket in a loop. At any time it has at most one reader, which is
// parked or a goroutine, and at most one writer. Close may come from anywhere.
type Socket struct {
	fd    int
	loop  *Loop
	ready func() (woken bool)

	parked  atomic.Bool
	watched atomic.Bool  // for input
	users   atomic.Int32 // of the descriptor; 0: it is closed

	mu       sync.Mutex
	closed   bool
	interest uint32 // what epoll was asked for; 0: it does not know the socket
	in, out  waiter

	gathering gathering
}

// waiter is a goroutine that waits for one direction.
type waiter struct {
	waits bool
	wake  chan struct{}
}

func (w *waiter) signal() bool {
	if !w.waits {
		return false
	}
	w.waits = false
	w.wake <- struct{}{}
	return true
}

// Park lets the loop call ready, once, when there is something to read. Who parks gives
// the reading away: to ready, or to whoever unparks.
func (s *Socket) Park() {
	s.parked.Store(true)
	if s.watched.Load() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.watch(s.interest | unix.EPOLLIN); err != nil && s.parked.CompareAndSwap(true, false) {
		go s.ready() // which finds out by reading
	}
}

// Unpark takes the reading back. False: the socket was not parked.
func (s *Socket) Unpark() bool { return s.parked.CompareAndSwap(true, false) }

// watch asks epoll for events, with mu held.
func (s *Socket) watch(events uint32) error {
	if s.closed {
		return net.ErrClosed
	}
	if events == s.interest {
		return nil
	}
	op := unix.EPOLL_CTL_MOD
	switch {
	case s.interest == 0:
		op = unix.EPOLL_CTL_ADD
	case events == 0:
		op = unix.EPOLL_CTL_DEL
	}
	s.watched.Store(events&unix.EPOLLIN != 0)
	if err := unix.EpollCtl(s.loop.fd, op, s.fd, &unix.EpollEvent{Events: events, Fd: int32(s.fd)}); err != nil {
		s.watched.Store(false)
		return fmt.Errorf("watch a socket: %w", err)
	}
	s.interest = events
	return nil
}

// event deals with what epoll says. It reports whether a goroutine was woken.
func (s *Socket) event(events uint32) (woken bool) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 { // both will find out
		events |= unix.EPOLLIN | unix.EPOLLOUT
	}
	if events&unix.EPOLLIN != 0 && s.parked.CompareAndSwap(true, false) {
		woken = s.ready()
		if events &^= unix.EPOLLIN; events == 0 {
			return woken
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return woken
	}
	interest := s.interest
	if events&unix.EPOLLIN != 0 {
		if s.in.signal() {
			woken = true
		} else {
			interest &^= unix.EPOLLIN
		}
	}
	if events&unix.EPOLLOUT != 0 {
		woken = s.out.signal() || woken
		interest &^= unix.EPOLLOUT // there mostly is room, so nobody wants to know
	}
	_ = s.watch(interest)
	if s.parked.Load() { // meanwhile
		if err := s.watch(interest | unix.EPOLLIN); err != nil && s.parked.CompareAndSwap(true, false) {
			go s.ready() // as in Park
			woken = true
		}
	}
	return woken
}

// wait waits for one direction.
func (s *Socket) wait(w *waiter, event uint32) error {
	s.mu.Lock()
	if w == &s.in && s.gathering.over {
		s.gathering.over = false
		s.mu.Unlock()
		return nil
	}
	if w.wake == nil {
		w.wake = make(chan struct{}, 1)
	}
	err := s.watch(s.interest | event)
	w.waits = err == nil
	s.mu.Unlock()
	if err != nil {
		return err
	}
	<-w.wake
	return nil
}

// AwaitInput waits until there is something to read, or the socket is closed. Now and then
// it returns for nothing.
func (s *Socket) AwaitInput() error { return s.wait(&s.in, unix.EPOLLIN) }

// AwaitRoom waits until there is room to write, or the socket is closed; of one that
// connects, until it has.
func (s *Socket) AwaitRoom() error { return s.wait(&s.out, unix.EPOLLOUT) }

// use keeps the descriptor open until done is called.
func (s *Socket) use() bool {
	for {
		n := s.users.Load()
		if n == 0 {
			return false
		}
		if s.users.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *Socket) done() {
	if s.users.Add(-1) == 0 {
		_ = unix.Close(s.fd)
	}
}

// Close closes the socket and wakes who waits at it. What was written is still sent.
func (s *Socket) Close() { s.end(false) }

// Reset closes the socket so that its other end sees a reset.
func (s *Socket) Reset() { s.end(true) }

func (s *Socket) end(reset bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	if reset {
		_ = unix.SetsockoptLinger(s.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	_ = s.watch(0)
	s.closed = true
	s.loop.forget(s)
	s.in.signal()
	s.out.signal()
	s.done()
}

// CloseWrite sends the end of what is written.
func (s *Socket) CloseWrite() error {
	return s.Control(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) })
}

// Control lends the descriptor.
func (s *Socket) Control(f func(fd int) error) error {
	if !s.use() {
		return net.ErrClosed
	}
	defer s.done()
	return f(s.fd)
}

// TryRead reads what there is. EAGAIN: nothing.
func (s *Socket) TryRead(b []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.done()
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), 0, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		case n == 0:
			return 0, io.EOF
		default:
			return int(n), nil
		}
	}
}

// TryWrite writes what there is room for. EAGAIN: nothing.
func (s *Socket) TryWrite(b []byte) (int, error) {
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.done()
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}

// together is how many slices are written by one system call.
const together = 16

// TryWriteAll writes what there is room for of several slices.
func (s *Socket) TryWriteAll(slices [][]byte) (int, error) {
	if len(slices) == 1 {
		return s.TryWrite(slices[0])
	}
	if !s.use() {
		return 0, net.ErrClosed
	}
	defer s.done()
	var parts [together]unix.Iovec
	n := 0
	for _, b := range slices[:min(len(slices), together)] {
		if len(b) > 0 {
			parts[n].Base = &b[0]
			parts[n].SetLen(len(b))
			n++
		}
	}
	m := unix.Msghdr{Iov: &parts[0]}
	m.SetIovlen(n)
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(s.fd), uintptr(unsafe.Pointer(&m)), unix.MSG_NOSIGNAL)
		switch {
		case errno == unix.EINTR:
		case errno != 0:
			return 0, errno
		default:
			return int(n), nil
		}
	}
}

// WriteAll writes slices, and waits for room. It uses the slices up.
func (s *Socket) WriteAll(slices [][]byte) error {
	for {
		for len(slices) > 0 && len(slices[0]) == 0 {
			slices = slices[1:]
		}
		if len(slices) == 0 {
			return nil
		}
		n, err := s.TryWriteAll(slices)
		if err == unix.EAGAIN {
			if err = s.AwaitRoom(); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		slices = Skip(slices, n)
	}
}

// Skip takes n bytes from the beginning of slices.
func Skip(slices [][]byte, n int) [][]byte {
	for n > 0 && len(slices) > 0 {
		k := min(n, len(slices[0]))
		slices[0] = slices[0][k:]
		if n -= k; len(slices[0]) == 0 {
			slices = slices[1:]
		}
	}
	return slices
}
