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

// setRound begins a round in the datapath, if that is ours to do.
func (p *process) setRound(set func(uint64) error, round uint64) (ours bool, err error) {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	if !p.servesLocked() {
		return false, nil
	}
	return true, set(round)
}

// leaveShortcut has another process say what holds.
func (p *process) leaveShortcut() {
	p.rounds.Lock()
	defer p.rounds.Unlock()
	p.rounds.left = true
}

// setKnown says which judgements of questions hold in the datapath; 0: none.
func (p *process) setKnown(round uint64) error {
	if p.config.Shortcut == nil {
		return nil
	}
	_, err := p.setRound(func(round uint64) error {
		err := p.config.Shortcut.SetKnownRound(round)
		if err == nil && round != 0 {
			p.rounds.known = round
		}
		return err
	}, round)
	return err
}

// beginTelling has no answer go on without us, until tellFromNow.
func (p *process) beginTelling() error {
	if p.config.Shortcut == nil {
		return nil
	}
	p.telling.Store(0)
	_, err := p.setRound(p.config.Shortcut.SetToldRound, 0)
	return err
}

// tellFromNow begins a round in which answers may go on without us. One that was learnt from
// before is of no round.
func (p *process) tellFromNow() {
	if p.config.Shortcut == nil {
		return
	}
	round := newRound()
	ours, err := p.setRound(p.config.Shortcut.SetToldRound, round)
	if err != nil { // slower, and no less right
		p.log.Warn("answers of the DNS take the long way", "error", err)
	}
	if ours && err == nil {
		p.telling.Store(round)
	}
}

// tellAnew begins another round if there is one: what was told is void.
func (p *process) tellAnew() {
	if p.config.Shortcut != nil && p.telling.Load() != 0 {
		p.tellFromNow()
	}
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
