package agent

import (
	"errors"
	"testing"

	"github.com/headgate/headgate/bpf"
)

// Who does not read misses events and is told how many; nobody else does, and the
// gate's reader never waits.
func TestMonitorsDoNotWait(t *testing.T) {
	var m monitors
	enough := errors.New("enough")
	entered, leave := make(chan struct{}), make(chan struct{})
	got, missed := 0, uint64(0)
	result := make(chan error, 1)
	go func() {
		result <- m.Watch(nil, func(_ *bpf.Event, n uint64) error {
			if got++; got == 1 {
				close(entered)
				<-leave
			}
			if missed += n; missed > 0 {
				return enough
			}
			return nil
		})
	}()
	waitFor(t, func() bool { m.mu.Lock(); defer m.mu.Unlock(); return len(m.all) == 1 })
	m.publish(make([]bpf.Event, 1))
	<-entered
	m.publish(make([]bpf.Event, monitorBuffer+10))
	close(leave)
	if err := <-result; !errors.Is(err, enough) || missed != 10 {
		t.Errorf("%v; missed %d, want 10", err, missed)
	}
	if len(m.all) != 0 {
		t.Error("who left is still there")
	}
	done := make(chan struct{})
	close(done)
	if err := m.Watch(done, nil); err != nil {
		t.Error(err)
	}
}
