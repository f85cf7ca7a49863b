package proxy

import (
	"errors"
	"math/rand/v2"
	"sync"

	"github.com/headgate/headgate/policy"
)

// newRound is a number for the judgements of one snapshot.
func newRound() uint64 { return rand.Uint64() | 1 }

// rounds are this process's until another has taken its place: one that drains is still told
// of new rules, and would void what the other says.
type rounds struct {
	sync.Mutex
	left  bool
	known uint64 // the last that we have set; 0: none yet
}

// serves reports whether this process is the one that questions and answers come to, as far as
// the datapath can tell: another has begun no round of its own since.
func (p *process) serves() bool {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	return p.servesLocked()
}

func (p *process) servesLocked() bool {
	if r := &p.rounds; !r.left && r.known != 0 {
		now, err := p.config.Shortcut.KnownRound()
		r.left = err == nil && now != 0 && now != r.known
	}
	return !p.rounds.left
}

// leaveShortcut has another process say what holds.
func (p *process) leaveShortcut() {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	p.rounds.left = true
}

// setKnown says which judgements of questions hold in the datapath, if that is ours to say; 0:
// none.
func (p *process) setKnown(round uint64) error {
	if p.config.Shortcut == nil {
		return nil
	}
	p.rounds.Lock()
	defer p.rounds.Unlock()
	if !p.servesLocked() {
		return nil
	}
	err := p.config.Shortcut.SetKnownRound(round)
	if err == nil && round != 0 {
		p.rounds.known = round
	}
	return err
}

// beginTelling has no answer go on without us, until tellFromNow.
func (p *process) beginTelling() error {
	return p.setTold(func(uint64) uint64 { return 0 })
}

// tellFromNow begins a round in which answers may go on without us. One that was learnt from
// before is of no round.
func (p *process) tellFromNow() {
	p.warnTold(p.setTold(func(uint64) uint64 { return newRound() }))
}

// tellAnew begins another round if there is one, and none if rules are about to change: what was
// told is void.
func (p *process) tellAnew() {
	p.warnTold(p.setTold(func(now uint64) uint64 {
		if now == 0 {
			return 0
		}
		return newRound()
	}))
}

// warnTold: what could not begin is slower, and no less right.
func (p *process) warnTold(err error) {
	if err != nil {
		p.log.Warn("answers of the DNS take the long way", "error", err)
	}
}

// setTold begins the round that follows from the one there is. Until it has begun nobody tells
// anything.
func (p *process) setTold(next func(now uint64) uint64) error {
	if p.config.Shortcut == nil {
		return nil
	}
	p.rounds.Lock()
	defer p.rounds.Unlock()
	round := next(p.telling.Swap(0))
	if !p.servesLocked() {
		return nil
	}
	err := p.config.Shortcut.SetToldRound(round)
	if err == nil {
		p.telling.Store(round)
	}
	return err
}

// closeShortcut has everything come here until rules change: the datapath forgets what it was told,
// by whatever process.
func (p *process) closeShortcut() error { return errors.Join(p.setKnown(0), p.beginTelling()) }

// judgesAs reports whether every question that s allows, n allows too and for the same reason.
func (s *snapshot) judgesAs(n *snapshot) bool {
	if s == nil || s.audit != n.audit {
		return false
	}
	for number, set := range s.sets {
		if other, ok := n.sets[number]; number.Protocol() == policy.ProtocolDNS && (!ok || other.id != set.id || (other.err == nil) != (set.err == nil)) {
			return false
		}
	}
	return true
}
