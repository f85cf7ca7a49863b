package fqdn

import (
	"context"
	"runtime"
	"time"
)

// begin takes the state.
func (s *Store) begin() {
	s.others.Add(1)
	s.own.Lock()
	s.others.Add(-1)
}

// end lets go of the state, and tells those whose answers are done: what they do is no part of it.
func (s *Store) end() {
	told := s.told
	s.told = nil
	s.own.Unlock()
	for i := range told {
		told[i].done(told[i].err)
	}
}

const (
	// turnLasts is how long work goes on, and how long others do, while both have much to do.
	turnLasts = 100 * time.Microsecond
	// comesAgain is how soon whoever had his turn comes with the next: answers come in batches.
	comesAgain = 20 * time.Microsecond
	// givesWay bounds how long work is held up by others in all: there are always some, and
	// whoever waits for it waits for a change of policy.
	givesWay = time.Second
	// aloneLasts is how long work goes on that was held up for so long. Answers wait in the
	// queue then, and have their turns together.
	aloneLasts = 2 * time.Millisecond
)

// turn is work that takes long and lets others go first now and then.
type turn struct {
	since time.Time     // it holds the state
	given time.Duration // to others
	alone bool          // it has given enough, and answers had better wait in the queue
}

func (s *Store) startTurn() turn { return turn{since: time.Now()} }

func (s *Store) endTurn(t *turn) {
	if t.alone {
		s.long.Add(-1)
	}
	*t = turn{}
}

// pause lets those go first who wait for the state, if it was held for long. What there was
// may be gone afterwards.
func (s *Store) pause(t *turn) {
	if s.others.Load() == 0 {
		return
	}
	start := time.Now()
	held := start.Sub(t.since)
	switch {
	case held < turnLasts, t.alone && held < aloneLasts:
		return
	case !t.alone && t.given >= givesWay:
		t.alone = true
		s.long.Add(1)
		return
	}
	s.own.Unlock()
	for last := start; ; runtime.Gosched() {
		now := time.Now()
		if s.others.Load() > 0 {
			last = now
		}
		if now.Sub(start) >= turnLasts || now.Sub(last) >= comesAgain {
			break
		}
	}
	s.begin()
	t.since = time.Now()
	t.given += t.since.Sub(start)
}

// uninterrupted does in the midst of a turn what takes long and cannot pause.
func (s *Store) uninterrupted(f func()) {
	s.long.Add(1)
	defer s.long.Add(-1)
	f()
}

// gone reports whether another process has taken over: nothing is removed any more.
func (s *Store) gone() bool { return s.leaving || s.over }

// lock takes the state for work that is not interrupted.
func (s *Store) lock() {
	s.long.Add(1)
	s.begin()
}

func (s *Store) unlock() {
	s.long.Add(-1)
	s.end()
}

// do runs f while it owns the state.
func (s *Store) do(ctx context.Context, f func()) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.lock()
	defer s.unlock()
	if s.stopped {
		return ErrEnded
	}
	f()
	return nil
}
