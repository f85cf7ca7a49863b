package agent

import (
	"sync"

	"github.com/headgate/headgate/bpf"
)

// monitors hands the gate's events to whoever watches them raw. It never waits: who
// reads too slowly misses some, and is told how many.
type monitors struct {
	mu  sync.Mutex
	all map[*monitor]bool
}

type monitor struct {
	events chan bpf.Event
	missed uint64 // under the lock of monitors
}

// monitorBuffer is how far behind a watcher may be.
const monitorBuffer = 4096

// Watch calls f with each event and how many were left out before it, until f fails
// or done is closed.
func (m *monitors) Watch(done <-chan struct{}, f func(*bpf.Event, uint64) error) error {
	w := &monitor{events: make(chan bpf.Event, monitorBuffer)}
	m.mu.Lock()
	if m.all == nil {
		m.all = map[*monitor]bool{}
	}
	m.all[w] = true
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.all, w)
		m.mu.Unlock()
	}()
	for {
		select {
		case <-done:
			return nil
		case e := <-w.events:
			if err := f(&e, m.missed(w)); err != nil {
				return err
			}
		}
	}
}

func (m *monitors) missed(w *monitor) uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := w.missed
	w.missed = 0
	return n
}

func (m *monitors) publish(events []bpf.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.all {
		for i := range events {
			select {
			case w.events <- events[i]:
			default:
				w.missed++
			}
		}
	}
}
