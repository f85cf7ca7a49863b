package xds

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// What carries connections and cannot be told of a change is an Envoy that drains, one that
// is about to, and one of an agent before that does not come back. None of them may go on by
// the rules of before for longer than hungAfter. What has been replaced and accepts nothing
// any more loses its connections at once; what still accepts is ended, with the one that
// was to follow: its ports are closed then, until another has started.

// severWithin bounds it where nobody else does.
const severWithin = 5 * time.Second

// handing is how far a replacement is, for the one goroutine that attends Envoy.
type handing struct {
	adopted bool
	began   time.Time // of taking over; zero: there is none, or it is over
	severed bool      // the one before has no connections any more
}

// handingOf is how far it is when this agent begins to attend an Envoy.
func handingOf(p *process, adopted bool) *handing {
	h := &handing{adopted: adopted}
	if p.Before != nil {
		h.began = time.Now()
	}
	return h
}

// watchHanding bounds how long rules of before hold. An error: Envoy, and what it follows,
// must be ended.
func (b *Backend) watchHanding(p *process, h *handing, now time.Time) error {
	owed := b.owed.Load()
	late := owed != nil && now.Sub(*owed) > hungAfter
	if p.Before == nil {
		h.began = time.Time{}
	}
	if !h.began.IsZero() {
		listens, err := p.Before.listens()
		switch {
		case err == nil && !listens:
			h.began = time.Time{}
			if err := b.tookOver(p, now); err != nil {
				return err
			}
		case late:
			return errors.Join(errors.New("it has not taken over, and rules have changed"), err)
		case now.Sub(h.began) > startWithin:
			return errors.Join(fmt.Errorf("it has not taken over within %v", startWithin), err)
		}
	}
	if !late {
		return nil
	}
	if p.Before != nil && h.began.IsZero() && !h.severed {
		ctx, cancel := context.WithTimeout(context.Background(), severWithin)
		defer cancel()
		if err := sever(ctx, p.Before); err != nil {
			return fmt.Errorf("rules have changed: %w", err)
		}
		h.severed = true
	}
	if h.adopted && b.guard.process() != p.PID {
		return errors.New("it does not come back to this agent, and rules have changed")
	}
	return nil
}

// tookOver notes when an Envoy has, and tells who waits for that.
func (b *Backend) tookOver(p *process, now time.Time) error {
	if b.owed.Load() != nil {
		go b.config.OnStream()
	}
	if p.Before.Until != 0 { // an agent before saw it
		return nil
	}
	b.log.Info("Envoy has taken over", "pid", p.PID, "from", p.Before.PID)
	p.Before.Until = now.Add(drainGrace + drainSlack).Unix()
	return writeJSON(b.file(processName), p)
}

// endBoth ends an Envoy with the one before it, at once: while one lives the other may carry
// connections, and one that is asked to end waits for the other.
func (b *Backend) endBoth(p *process) error {
	if err := errors.Join(p.kill(), endUnknown(b.config.Dir)); err != nil {
		return err
	}
	if p.Before != nil {
		if err := p.Before.endOther(); err != nil {
			return err
		}
	}
	b.draining.Store(nil)
	return nil
}

// watchDraining looks after the Envoy that a newer one has replaced.
func (b *Backend) watchDraining(p *process) error {
	old := p.Before
	if old == nil {
		return nil
	}
	switch {
	case !old.alive():
		b.log.Info("an Envoy that was replaced has drained", "pid", old.PID)
	case old.Until != 0 && time.Now().Unix() > old.Until:
		b.log.Warn("an Envoy that drains is ended: its time is over", "pid", old.PID)
	default:
		return nil
	}
	if err := old.endOther(); err != nil {
		return err
	}
	p.Before = nil
	b.draining.Store(nil)
	return writeJSON(b.file(processName), p)
}

// alive reports whether the process has not ended.
func (p *process) alive() bool {
	q := process{PID: p.PID, Started: p.Started}
	if q.open() != nil {
		return false
	}
	defer q.close()
	return !q.ended(0)
}

// drains reports whether this is the Envoy that has been replaced.
func (b *Backend) drains(who unix.Ucred) bool {
	old := b.draining.Load()
	if old == nil || int(who.Pid) != old.PID {
		return false
	}
	started, err := startTime(old.PID)
	return err == nil && started == old.Started
}

// noteOwed notes since when Envoy has not been told that rules have changed by which it may
// judge. It is called with mu held, before anybody is waited for.
func (b *Backend) noteOwed(s redirect.Snapshot) {
	listeners := map[redirect.SetNumber]*policy.Listener{}
	for _, n := range s.Sets {
		if n.Set.Listener != nil {
			listeners[n.Number] = n.Set.Listener
		}
	}
	for p, rules := range b.savedRules {
		if b.rulesBy(p, listeners, s.Configs) == rules {
			continue
		}
		now := time.Now()
		b.owed.CompareAndSwap(nil, &now)
		return
	}
	b.owed.Store(nil)
}

// endOutdated ends the connections of an Envoy that drains if rules that it judges by have
// changed. It is called with mu held, when the next one has the rules of now.
func (b *Backend) endOutdated(ctx context.Context) error {
	old := b.draining.Load()
	if old == nil || !old.alive() {
		return nil
	}
	for p, rules := range b.oldRules {
		if b.rulesOf(p) == rules {
			continue
		}
		if err := severOnce(ctx, old); err != nil {
			return err
		}
		b.log.Info("an Envoy that drains has lost its connections: their rules have changed", "pid", old.PID, "route", p.name())
		b.oldRules = nil
		return nil
	}
	return nil
}

// severOnce does that once an Envoy accepts no connections any more: the next one has its
// rules, and begins.
func severOnce(ctx context.Context, old *process) error {
	for {
		err := sever(ctx, old)
		if !errors.Is(err, errListens) {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", redirect.ErrNotReady, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
