package epoll

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	batch = 128 // events at once
	// yieldEvery is after how many batches without a pause others get the processor.
	yieldEvery = 8
	// sparePipes are kept for splices to come.
	sparePipes = 16
)

// Loops are event loops, as many as there are processors.
type Loops struct {
	all   []*Loop
	next  atomic.Uint32
	pipes chan pipe
	done  sync.WaitGroup
}

// Loop is one thread of events.
type Loop struct {
	loops *Loops
	fd    int
	stop  int // eventfd

	mu      sync.Mutex
	sockets map[int32]*Socket // by descriptor

	events [batch]unix.EpollEvent
	ready  [batch]*Socket
}

// Start starts n loops.
func Start(n int) (*Loops, error) {
	ls := &Loops{pipes: make(chan pipe, sparePipes)}
	for range n {
		l, err := newLoop(ls)
		if err != nil {
			ls.Stop()
			return nil, fmt.Errorf("start an event loop: %w", err)
		}
		ls.all = append(ls.all, l)
		ls.done.Go(l.run)
	}
	return ls, nil
}

func newLoop(ls *Loops) (*Loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err == nil {
		err = unix.EpollCtl(fd, unix.EPOLL_CTL_ADD, stop, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(stop)})
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	l := &Loop{loops: ls, fd: fd, stop: stop, sockets: map[int32]*Socket{}}
	// Sockets refer to their loop, so none is left when this is called.
	runtime.AddCleanup(l, func(fds [2]int) { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) }, [2]int{fd, stop})
	return l, nil
}

// Stop ends the loops. Sockets of theirs can still be closed, and nothing else.
func (ls *Loops) Stop() {
	for _, l := range ls.all {
		_, _ = unix.Write(l.stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
	ls.done.Wait()
	for {
		select {
		case p := <-ls.pipes:
			p.close()
		default:
			return
		}
	}
}

// Pick chooses the loop of a new connection. Two loops on one processor would wait for
// each other, so there may be some that are never chosen.
func (ls *Loops) Pick() *Loop {
	n := min(len(ls.all), runtime.GOMAXPROCS(0))
	return ls.all[int(ls.next.Add(1))%n]
}

// Add takes a socket that does not block into this loop, which calls ready whenever
// there is something to read and the socket is parked. It says whether it started a
// goroutine, which then gets the processor. The descriptor is the loop's.
func (l *Loop) Add(fd int, ready func() (woken bool)) *Socket {
	s := &Socket{fd: fd, loop: l, ready: ready}
	s.users.Store(1)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sockets[int32(fd)] = s
	return s
}

// Adopt adds a copy of what Go's own poller has, which knows nothing of the copy.
func (l *Loop) Adopt(c syscall.Conn, ready func() (woken bool)) (*Socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("adopt a socket: %w", err)
	}
	own := -1
	var dup error
	err = raw.Control(func(fd uintptr) { own, dup = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dup); err != nil {
		return nil, fmt.Errorf("adopt a socket: %w", err)
	}
	return l.Add(own, ready), nil
}

func (l *Loop) forget(s *Socket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sockets[int32(s.fd)] == s {
		delete(l.sockets, int32(s.fd))
	}
}

func (l *Loop) run() {
	for batches := 0; ; batches++ {
		n := l.poll()
		if n == 0 {
			runtime.Gosched() // a processor that blocks in a system call is lent late
			var err error
			if n, err = unix.EpollWait(l.fd, l.events[:], -1); err != nil {
				continue // interrupted
			}
		}
		woken, stopped := l.deal(n)
		if stopped {
			return
		}
		if woken || batches%yieldEvery == 0 {
			runtime.Gosched()
		}
	}
}

// poll returns how many events there are now.
func (l *Loop) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(l.fd), uintptr(unsafe.Pointer(&l.events[0])), batch, 0, 0, 0)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// deal hands out n events. It says whether goroutines were woken, which want the
// processor, and whether the loop is to end.
func (l *Loop) deal(n int) (woken, stopped bool) {
	l.mu.Lock()
	for i := range l.events[:n] {
		l.ready[i] = l.sockets[l.events[i].Fd]
	}
	l.mu.Unlock()
	for i := range l.events[:n] {
		if s := l.ready[i]; s != nil {
			// The descriptor may be another socket's by now: every reader and writer
			// is prepared to find nothing.
			woken = s.event(l.events[i].Events) || woken
			l.ready[i] = nil
			continue
		}
		stopped = stopped || l.events[i].Fd == int32(l.stop)
	}
	return woken, stopped
}
