package integration

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that go on asking while a test does something to headgate. Each
// answer must be the one that policy wants.
type load struct {
	stop  chan struct{}
	wg    sync.WaitGroup
	conns sync.Map // every *session, to be closed

	// interruptible: connections may fail, which denied ones and allowed ones do
	// alike. What is answered must still be right.
	interruptible bool
	interrupted   atomic.Uint64

	mu      sync.Mutex
	wrong   []string
	answers map[string]int // by what asks
}

func newLoad() *load { return &load{stop: make(chan struct{}), answers: map[string]int{}} }

// pause between requests leaves the machine time for what is under test.
const pause = 5 * time.Millisecond

// client is where requests come from and go to.
type client struct {
	name string
	from *namespace
	to   netip.AddrPort
}

// asks has a client ask for a path, on one connection if it is to be kept.
func (l *load) asks(c client, path string, status int, keep bool) {
	what := fmt.Sprintf("%s GET %s (kept: %v)", c.name, path, keep)
	var s *session
	l.repeat(what, func() error {
		var err error
		if s == nil {
			if s, err = l.open(c); err != nil {
				return err
			}
		}
		r, err := s.ask("GET", path, c.name)
		if err != nil || !keep || r.last {
			l.close(s)
			s = nil
		}
		if err == nil && r.status != status {
			err = wrongAnswer{fmt.Errorf("status %d, want %d", r.status, status)}
		}
		return err
	})
}

// echoes has a client exchange lines on one connection without L7 rules.
func (l *load) echoes(c client) {
	var s *session
	l.repeat(c.name+" lines", func() (err error) {
		if s == nil {
			if s, err = l.open(c); err != nil {
				return err
			}
		}
		if _, err = s.exchange(patience); err != nil {
			l.close(s)
			s = nil
		}
		return err
	})
}

// open connects, or returns nil and why not.
func (l *load) open(c client) (*session, error) {
	s, err := c.from.open(c.to, l.timeout())
	if err != nil {
		return nil, err
	}
	l.conns.Store(s, nil)
	return s, nil
}

func (l *load) close(s *session) {
	l.conns.Delete(s)
	s.Close()
}

// isRefused has a client try to connect, which it may not.
func (l *load) isRefused(c client) {
	l.repeat(c.name+" refused", func() error {
		conn, err := c.from.dial(c.to, 100*time.Millisecond)
		if err == nil {
			conn.Close()
			return wrongAnswer{errors.New("a connection was made that policy denies")}
		}
		if !isTimeout(err) {
			return wrongAnswer{fmt.Errorf("a packet was not dropped: %w", err)}
		}
		return nil
	})
}

// unanswered reports whether somebody got no answer yet.
func (l *load) unanswered() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, n := range l.answers {
		if n == 0 {
			return true
		}
	}
	return false
}

// wrongAnswer is never excused.
type wrongAnswer struct{ error }

func (l *load) timeout() time.Duration {
	if l.interruptible {
		return 100 * time.Millisecond // a lost SYN is sent again after a second only
	}
	return patience
}

func (l *load) repeat(what string, f func() error) {
	l.mu.Lock()
	l.answers[what] = 0
	l.mu.Unlock()
	l.wg.Go(func() {
		for n := 0; ; {
			select {
			case <-l.stop:
				return
			case <-time.After(pause):
			}
			switch err := f(); {
			case err == nil:
				n++
				l.mu.Lock()
				l.answers[what] = n
				l.mu.Unlock()
			case l.interruptible && !errors.As(err, new(wrongAnswer)):
				l.interrupted.Add(1)
			default:
				l.mu.Lock()
				l.wrong = append(l.wrong, fmt.Sprintf("%s %s: after %d answers: %v", time.Now().UTC().Format("15:04:05.000"), what, n, err))
				l.mu.Unlock()
			}
		}
	})
}

// end ends the load, once everybody was answered, and judges it.
func (l *load) end(t *testing.T) {
	t.Helper()
	for deadline := time.Now().Add(patience); l.unanswered() && time.Now().Before(deadline); {
		time.Sleep(pause)
	}
	close(l.stop)
	l.wg.Wait()
	l.conns.Range(func(s, _ any) bool {
		s.(*session).Close()
		return true
	})
	for i, w := range l.wrong {
		if i == 10 {
			t.Errorf("and %d more", len(l.wrong)-i)
			break
		}
		t.Error(w)
	}
	for what, n := range l.answers {
		if n == 0 {
			t.Errorf("%s: nothing was answered", what)
		}
	}
	t.Logf("answered: %v, interrupted: %d", l.answers, l.interrupted.Load())
}
