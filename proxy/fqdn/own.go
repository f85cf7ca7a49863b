package fqdn

import (
	"context"
	"runtime"
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

// pause lets those go first who wait for the state, in the midst of work that takes long. What
// there was may be gone afterwards.
func (s *Store) pause() {
	if s.others.Load() == 0 {
		return
	}
	s.own.Unlock()
	for i := 0; i < yields && s.others.Load() > 0; i++ {
		runtime.Gosched()
	}
	s.own.Lock()
}

// yields is how often others are given the processor, so that they really go first.
const yields = 64

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
