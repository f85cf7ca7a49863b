package agent

import (
	"context"
	"time"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/redirect"
)

// namesDir is where the proxy keeps what it learns of names, in the state directory.
const namesDir = "names"

// Learner is a backend that learns names: headgate's own proxy.
type Learner interface {
	// Learnt says what it knows.
	Learnt(ctx context.Context, limit uint32) (*proxyv1.ListNamesResponse, error)
	// MissingSets waits until it misses sets of rules.
	MissingSets(ctx context.Context) ([]redirect.MissingSet, error)
}

// learner is the one among the backends; nil: none learns.
func (bs *backends) learner() Learner {
	for _, b := range bs.all {
		if l, ok := b.(Learner); ok {
			return l
		}
	}
	return nil
}

// makeMissingSets makes the sets of rules for requests that only names bring together.
// Connections that have them are refused until then, and the answers wait.
func (a *Agent) makeMissingSets(ctx context.Context) {
	l := a.backend.learner()
	for l != nil && ctx.Err() == nil {
		missing, err := l.MissingSets(ctx)
		if err == nil {
			err = a.engine.AddMissing(ctx, missing)
			a.control.note("names", err, true)
		}
		if err != nil {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
		}
	}
}
