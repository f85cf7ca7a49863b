package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/headgate/headgate/policy"
)

const (
	portPause     = 100 * time.Millisecond // before a write that failed is tried again
	portPauseMost = 5 * time.Second
)

// ports tells the gate on which port the proxy of each protocol is. What it does not
// take at once is tried again until it does: meanwhile these ports lead to where nobody
// listens, and drop.
type ports struct {
	set  func(policy.Protocol, uint16) error
	note func(error) // how the last try went
	wake chan struct{}

	mu  sync.Mutex
	due map[policy.Protocol]uint16 // not taken yet; the last port counts
}

func newPorts(set func(policy.Protocol, uint16) error, note func(error)) *ports {
	return &ports{set: set, note: note, wake: make(chan struct{}, 1), due: map[policy.Protocol]uint16{}}
}

// tell tries once, and leaves to run what fails.
func (p *ports) tell(protocols []policy.Protocol, port uint16) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, protocol := range protocols {
		p.due[protocol] = port
	}
	err := p.try()
	if err != nil {
		select {
		case p.wake <- struct{}{}:
		default:
		}
	}
	return err
}

func (p *ports) try() error {
	var errs error
	for _, protocol := range slices.Sorted(maps.Keys(p.due)) {
		port := p.due[protocol]
		if err := p.set(protocol, port); err != nil {
			errs = errors.Join(errs, fmt.Errorf("tell the datapath that the proxy for %s is at port %d: %w", protocol, port, err))
			continue
		}
		delete(p.due, protocol)
	}
	p.note(errs)
	return errs
}

// run tries again what failed until the context ends; taken is told when all is.
func (p *ports) run(ctx context.Context, taken func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
		}
		for pause := portPause; ; pause = min(2*pause, portPauseMost) {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			p.mu.Lock()
			err := p.try()
			p.mu.Unlock()
			if err == nil {
				taken()
				break
			}
		}
	}
}
