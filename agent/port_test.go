package agent

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/headgate/headgate/policy"
)

// TestPortsAreToldAgain has the gate take no port for a while: the last one that it was
// told comes there all the same, and until then something is amiss.
func TestPortsAreToldAgain(t *testing.T) {
	var mu sync.Mutex
	refuses, noted := true, error(nil)
	has := map[policy.Protocol]uint16{}
	p := newPorts(func(protocol policy.Protocol, port uint16) error {
		mu.Lock()
		defer mu.Unlock()
		if protocol == policy.ProtocolKafka && refuses {
			return errors.New("no room")
		}
		has[protocol] = port
		return nil
	}, func(err error) {
		mu.Lock()
		defer mu.Unlock()
		noted = err
	})
	ctx, cancel := context.WithCancel(t.Context())
	taken, ended := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(ended)
		p.run(ctx, func() { taken <- struct{}{} })
	}()
	both := []policy.Protocol{policy.ProtocolHTTP, policy.ProtocolKafka}
	for _, port := range []uint16{1000, 1001} {
		if err := p.tell(both, port); err == nil {
			t.Fatal("no error of a port that is not taken")
		}
		mu.Lock()
		if has[policy.ProtocolHTTP] != port || noted == nil {
			t.Errorf("the gate has %v, and amiss is said to be: %v", has, noted)
		}
		mu.Unlock()
	}
	mu.Lock()
	refuses = false
	mu.Unlock()
	<-taken
	cancel()
	<-ended
	if has[policy.ProtocolHTTP] != 1001 || has[policy.ProtocolKafka] != 1001 || noted != nil {
		t.Errorf("the gate has %v, %v", has, noted)
	}
}
