package fqdn

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Maps are the kernel's maps of names: *bpf.Names.
type Maps interface {
	// Put writes addresses and says how many of them.
	Put([]policy.NameKey, []policy.Identity) (int, error)
	Delete([]policy.NameKey) error
	All(func(policy.NameKey, policy.Identity) bool) error
	SyncRules(k policy.NameRulesKey, old, want policy.NameRules) error
	Rules() (map[policy.NameRulesKey]policy.NameRules, error)
	Room() int
}

// Connections tells which addresses are connected: *bpf.Conntrack.
type Connections interface {
	// Pairs calls f for who opened each connection, and to whom.
	Pairs(ctx context.Context, f func(opener, other netip.Addr)) error
}

// Disk keeps what was learnt. A nil Disk keeps nothing.
type Disk interface {
	Load() ([]byte, error) // nil: there is nothing yet
	Save([]byte) error
}

// Answer is what one answer says of the name that was asked.
type Answer struct {
	Client    netip.Addr
	Name      string
	Addresses []Address
	At        time.Time
	Came      time.Time // to this process; zero: now
}

// Address is one of a name's.
type Address struct {
	Addr netip.Addr
	TTL  time.Duration
}

// Why an answer is not done.
var (
	ErrBusy    = errors.New("too many answers wait for the datapath")
	ErrFull    = errors.New("there is no room for another address known by a name")
	ErrShare   = errors.New("the endpoint knows as many addresses by names as it may")
	ErrStale   = errors.New("the datapath keeps what an address was known as before")
	ErrMissing = errors.New("rules for requests that only names bring together are not made yet")
	ErrNotYet  = errors.New("no policy is in force yet")
	ErrEnded   = errors.New("another proxy has taken over")
)

// maxQueue bounds how many answers wait.
const maxQueue = 16384

// Config of a Store. Maps is required.
type Config struct {
	Maps        Maps
	Connections Connections // nil: no address is in use
	Disk        Disk        // nil: nothing is remembered
	Logger      *slog.Logger
	Now         func() time.Time // time.Now
	// Forgot is told that names were forgotten, for want of room, which answers are to bring back. It is not to block.
	Forgot func()
}

// Store is what is known of names. Run does the work that nobody waits for at his turn.
type Store struct {
	config Config
	log    *slog.Logger
	now    func() time.Time

	mu    sync.Mutex
	queue []question
	ended bool
	wake  chan struct{}

	disk  sync.Mutex
	saved bool // for the last time

	missing chan struct{} // there is something in the state's missing
	stats   stats

	// own is held by who uses the state. others is how many wait for it: long work lets them go
	// first (pause). long is how many have work that cannot be interrupted, or wait to do it: an
	// answer had better wait in the queue then.
	own          sync.Mutex
	others, long atomic.Int32
	changes      sync.Mutex // one at a time changes what all is judged by; held before own
	turn         turn       // of who holds it
	state
}

type question struct {
	answer Answer
	at     time.Time
	done   func(error)
}

// New makes a Store over maps that may hold what an earlier process has written.
func New(c Config) (*Store, error) {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Store{
		config: c, log: c.Logger, now: c.Now, wake: make(chan struct{}, 1), missing: make(chan struct{}, 1),
	}
	s.state.init()
	if err := s.adopt(); err != nil {
		return nil, err
	}
	s.restore()
	return s, nil
}

// Learn queues an answer. It does not block, and keeps nothing of what it is given. It
// calls done once, when the kernel admits every address that rules let through, or
// with why not.
func (s *Store) Learn(a Answer, done func(error)) {
	q := question{answer: a, at: a.came(), done: done}
	q.answer.Name = strings.Clone(a.Name)
	q.answer.Addresses = append([]Address(nil), a.Addresses...)
	s.mu.Lock()
	var err error
	switch {
	case s.ended:
		err = ErrEnded
	case len(s.queue) >= maxQueue:
		err = ErrBusy
	default:
		s.queue = append(s.queue, q)
	}
	s.mu.Unlock()
	if err != nil {
		s.stats.refused.Add(1)
		done(err)
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run works until the context ends.
func (s *Store) Run(ctx context.Context) {
	tick := time.NewTicker(janitorEvery)
	defer tick.Stop()
	var background sync.WaitGroup
	defer background.Wait()
	saved := make(chan struct{}, 1)
	saving, cleaning := false, make(chan struct{}, 1)
	cleans := false
	look := time.NewTicker(saveAfter)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			s.lock()
			if !s.over { // else it is another's to say what is on disk
				s.finish()
			}
			s.stopped = true
			s.unlock()
			return
		case <-s.wake:
			s.lock()
			s.learn()
			s.unlock()
		case <-saved:
			saving = false
		case <-cleaning:
			cleans = false
		case <-tick.C:
			s.lock()
			s.expireWaiting()
			s.removeStuck()
			due := !cleans && s.cleanDue()
			s.unlock()
			if due {
				cleans = true
				background.Go(func() { s.clean(ctx); cleaning <- struct{}{} })
			}
		case <-look.C:
		}
		if saving {
			continue
		}
		s.begin()
		due := s.saveDue()
		s.end()
		if due {
			saving = true
			background.Go(func() {
				start := time.Now()
				s.save(s.collect(), false)
				s.stats.saveTook.Store(int64(time.Since(start)))
				saved <- struct{}{}
			})
		}
	}
}

// finish answers who still waits, and saves for the last time.
func (s *Store) finish() {
	s.mu.Lock()
	s.ended = true
	left := s.queue
	s.queue = nil
	s.mu.Unlock()
	for _, q := range left {
		s.tell(q.done, ErrEnded)
	}
	for _, w := range s.waiting {
		s.tell(w.done, ErrEnded)
	}
	s.waiting = nil
	s.save(s.encode(func() {}), true)
}

// leaveAfter is how long a process goes on learning from answers to what it asked, after
// another has taken its place. That one reads what it learnt a while later (sweepAfter).
const leaveAfter = 6 * time.Second

// Leave makes room for another process: nothing is removed from the kernel any more,
// and soon nothing learnt.
func (s *Store) Leave(ctx context.Context) error {
	return s.do(ctx, func() {
		if !s.leaving {
			s.leaving = true
			time.AfterFunc(leaveAfter, func() { _ = s.HandOver(ctx) })
		}
	})
}

// HandOver saves what is known and learns no more: another process does.
func (s *Store) HandOver(ctx context.Context) error {
	return s.do(ctx, func() {
		if !s.over {
			s.over = true
			s.finish()
		}
	})
}

// Update puts a snapshot in force: nil, no rule is about names. When it returns the
// kernel has all that follows from it.
func (s *Store) Update(ctx context.Context, n *redirect.Names) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if n == nil {
		n = &redirect.Names{}
	}
	s.changes.Lock()
	defer s.changes.Unlock()
	s.begin()
	defer s.end()
	s.turn = s.startTurn()
	defer s.endTurn(&s.turn)
	return s.update(n)
}

// Missing waits until there are sets that nobody has made, and takes them.
func (s *Store) Missing(ctx context.Context) ([]redirect.MissingSet, error) {
	for {
		select {
		case <-s.missing:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		var out []redirect.MissingSet
		if err := s.do(ctx, func() { out = s.takeMissing() }); err != nil || len(out) > 0 {
			return out, err
		}
	}
}
