package epoll

import (
	"time"

	"golang.org/x/sys/unix"
)

// Much of what comes to be spliced comes in pieces, one as soon as the last was taken:
// each costs words with two schedulers. So a splice that has to wait, and knows that more
// is to come, waits for enough of it, but not for long: what comes slowly is not held up.
// Of what was tried (128 to 512 KiB) this carried most of a broker's answers.
const (
	enough     = 256 << 10
	gatherWait = 5 * time.Millisecond
)

// gathering is how a socket waits for enough. It belongs to the socket's reader.
type gathering struct {
	on    bool
	least int // bytes before epoll says that there is input; 0: any
	slow  bool
	timer *time.Timer
	over  bool // the time has passed, and nobody was woken. Guarded by the socket's mu
}

// awaitMuch waits until there is something to read: of n bytes that are sure to come,
// enough, or what there is after a while.
func (s *Socket) awaitMuch(n int64) error {
	g := &s.gathering
	if least := int(min(n, enough)); !g.slow && least != g.least {
		s.readableFrom(least)
	}
	if g.least == 0 {
		return s.AwaitInput()
	}
	if g.timer == nil {
		g.timer = time.AfterFunc(gatherWait, s.wakeReader)
	} else {
		g.timer.Reset(gatherWait)
	}
	err := s.AwaitInput()
	if !g.timer.Stop() {
		g.slow = true
		s.readableFrom(0)
	}
	return err
}

// wakeReader wakes who waits for input, or is about to, whether there is some or not.
func (s *Socket) wakeReader() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gathering.over = !s.in.signal()
}

// readableFrom has epoll tell of input only if there is so much of it, or no more can
// come.
func (s *Socket) readableFrom(least int) {
	err := s.Control(func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVLOWAT, max(least, 1)) })
	if s.gathering.least = least; err != nil {
		s.gathering.least = 0
	}
}

// Gather has splices wait for enough, until Gathered.
func (s *Socket) Gather() { s.gathering.on = true }

// Gathered ends that: input is told of again, however little.
func (s *Socket) Gathered() {
	s.gathering.on, s.gathering.slow = false, false
	if s.gathering.least != 0 {
		s.readableFrom(0)
	}
}
