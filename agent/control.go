package agent

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
)

// controllers run what must be tried again and again, and remember how it went.
type controllers struct {
	log *slog.Logger

	mu  sync.Mutex
	all map[string]*agentv1.Controller
	wg  sync.WaitGroup
}

func newControllers(log *slog.Logger) *controllers {
	return &controllers{log: log, all: map[string]*agentv1.Controller{}}
}

// every runs f at once, then at each interval and whenever wake gets a value,
// until the context ends.
func (c *controllers) every(ctx context.Context, name string, interval time.Duration, wake <-chan struct{}, f func(context.Context) error) {
	c.note(name, nil, false)
	c.wg.Go(func() {
		t := time.NewTicker(interval)
		defer t.Stop()
		for {
			if err := f(ctx); ctx.Err() == nil {
				c.note(name, err, true)
			}
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			case <-wake:
			}
		}
	})
}

// note remembers a run, and logs when health changes.
func (c *controllers) note(name string, err error, ran bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.all[name]
	if s == nil {
		s = &agentv1.Controller{Name: name, Ok: true}
		c.all[name] = s
	}
	was := s.Ok
	s.Ok, s.Error = err == nil, ""
	if ran {
		s.Runs++
	}
	if err != nil {
		s.Failures++
		s.Error = err.Error()
	}
	switch {
	case was && !s.Ok:
		c.log.Error("controller fails and will be tried again", "controller", name, "error", err)
	case !was && s.Ok:
		c.log.Info("controller is well again", "controller", name)
	}
}

func (c *controllers) list() []*agentv1.Controller {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*agentv1.Controller
	for _, s := range c.all {
		out = append(out, &agentv1.Controller{Name: s.Name, Ok: s.Ok, Error: s.Error, Runs: s.Runs, Failures: s.Failures})
	}
	slices.SortFunc(out, func(a, b *agentv1.Controller) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}
