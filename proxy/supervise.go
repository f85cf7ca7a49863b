package proxy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/status"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/redirect"
)

const (
	greetWithin   = 3 * time.Second  // a proxy answers Hello within
	adoptWithin   = 10 * time.Second // before one that is there is ended, and its connections with it
	startWithin   = 30 * time.Second
	rulesWithin   = 5 * time.Second // an agent has its rules, after its start
	statusEvery   = 2 * time.Second
	missesAllowed = 3           // unanswered Status calls, then the proxy counts as stuck
	steadyAfter   = time.Second // then its loss is a new one, and not a start that fails
	backOffMost   = 10 * time.Second
)

// Run keeps a proxy running and attends to it until ctx ends, which leaves the
// proxy alone, or Stop is called.
func (b *Backend) Run(ctx context.Context) error {
	// Nothing of ours is starting yet: what is there was left half started.
	if err := terminateAll(ctx, b.config.RunDir, strayGlob); err != nil {
		b.log.Warn("end a proxy that an earlier agent left half started", "error", err)
	}
	b.takeUpDraining(ctx)
	pause := time.Duration(0)
	for {
		since := time.Now()
		err := b.attend(ctx)
		b.mu.Lock()
		stopping := b.stopping
		b.mu.Unlock()
		if ctx.Err() != nil || stopping {
			return nil
		}
		if time.Since(since) >= steadyAfter {
			pause = 0
		}
		b.log.Error("proxy lost", "error", err, "again_in", pause)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(max(2*pause, 100*time.Millisecond), backOffMost)
	}
}

// attend adopts or starts a proxy and returns why it was lost.
func (b *Backend) attend(ctx context.Context) error {
	l, child, old, err := b.find(ctx)
	if err != nil {
		b.down(nil, err)
		return err
	}
	defer l.close()
	b.mu.Lock()
	if b.before = 0; old != nil {
		b.before = old.hello.Port
	}
	b.mu.Unlock()
	if err := b.takeUp(ctx, l); err != nil {
		child.kill()
		if old != nil {
			b.leaveToDrain(ctx, old)
		}
		b.down(l, err)
		return err
	}
	flipped := b.awaitRules(ctx, old)
	b.config.OnPort(redirect.ProxyPort(l.hello.Port))
	flipped()
	if old != nil { // only now that nothing new goes there
		b.leaveToDrain(ctx, old)
	}
	err = b.watch(ctx, l, child)
	if ctx.Err() == nil {
		b.down(l, err)
		b.config.OnPort(0)
	}
	return err
}

// awaitRules waits, where another proxy still serves, until there are rules for the new one:
// an agent that has just started has none to give at first, and without them everything is
// refused. Who puts them in force goes on when flipped is called.
func (b *Backend) awaitRules(ctx context.Context, old *link) (flipped func()) {
	b.mu.Lock()
	if old == nil || b.inForce != 0 {
		b.mu.Unlock()
		return func() {}
	}
	o := &opening{ruled: make(chan struct{}), flipped: make(chan struct{})}
	b.opening = o
	b.mu.Unlock()
	t := time.NewTimer(rulesWithin)
	defer t.Stop()
	select {
	case <-o.ruled:
	case <-t.C:
	case <-ctx.Done():
	}
	return func() {
		b.mu.Lock()
		b.opening = nil
		b.mu.Unlock()
		close(o.flipped)
	}
}

// opening is a proxy that is to serve as soon as it has rules.
type opening struct {
	ruled   chan struct{} // closed by who put them in force
	flipped chan struct{} // closed when it serves
}

// takeUp puts the last snapshot in force at a proxy and makes it the current one.
func (b *Backend) takeUp(ctx context.Context, l *link) error {
	b.enforcing <- struct{}{}
	defer func() { <-b.enforcing }()
	b.mu.Lock()
	last := b.last
	b.inForce = l.hello.Revision
	b.mu.Unlock()
	if last != nil {
		ctx, cancel := context.WithTimeout(ctx, startWithin)
		defer cancel()
		err := b.enforce(ctx, l, *last)
		if sets := (*redirect.SetsError)(nil); errors.As(err, &sets) {
			b.log.Warn("put L7 rules in force again", "error", err)
		} else if status.Code(err) == codes.InvalidArgument {
			// It would be refused for ever. What is in force there stays so.
			b.log.Error("put L7 rules in force again", "error", err)
			b.mu.Lock()
			b.last = nil
			b.mu.Unlock()
		} else if err != nil {
			return err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.link, b.detail, b.stats, b.silent = l, "", nil, false
	return nil
}

func (b *Backend) down(l *link, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == l {
		b.link, b.stats, b.inForce = nil, nil, 0
	}
	b.detail = err.Error()
}

// find returns the proxy to use: the one that is there, if it fits, or a new one.
// One that is there and does not fit is returned too.
func (b *Backend) find(ctx context.Context) (current *link, started *child, old *link, err error) {
	greet, cancel := context.WithTimeout(ctx, adoptWithin)
	defer cancel()
	l, err := connect(greet, filepath.Join(b.config.RunDir, socketName), b.config.Version)
	if err == nil {
		h := l.hello
		if h.Protocol == ProtocolVersion && h.Version == b.config.Version && string(h.Layout) == b.config.Layout {
			b.log.Info("proxy adopted", "pid", h.Pid, "port", h.Port, "revision", h.Revision)
			return l, nil, nil, nil
		}
		b.log.Info("proxy is replaced", "pid", h.Pid, "version", h.Version, "protocol", h.Protocol)
		old = l
	} else if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.ECONNREFUSED) {
		b.log.Warn("the running proxy does not answer and is ended", "error", err)
		if err := endSilent(ctx, filepath.Join(b.config.RunDir, socketName)); err != nil {
			b.log.Error("end a proxy that does not answer", "error", err)
		}
	}
	l, started, err = b.start(ctx, old != nil)
	if err != nil {
		if old != nil {
			old.close()
		}
		return nil, nil, nil, err
	}
	b.log.Info("proxy started", "pid", l.hello.Pid, "port", l.hello.Port)
	return l, started, old, nil
}

// watch takes records and looks after the proxy until it is lost.
func (b *Backend) watch(ctx context.Context, l *link, child *child) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	records := make(chan error, 1)
	go func() { records <- b.pull(ctx, l) }()
	tick := time.NewTicker(statusEvery)
	defer tick.Stop()
	for misses := 0; ; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-records:
			return fmt.Errorf("take records: %w", err)
		case <-child.exited():
			return fmt.Errorf("proxy %d ended: %w", l.hello.Pid, child.err)
		case <-tick.C:
			answers := b.ask(ctx, l)
			b.mu.Lock()
			b.silent = !answers
			b.mu.Unlock()
			if answers {
				misses = 0
			} else if misses++; misses >= missesAllowed {
				child.kill()
				_ = l.signal(unix.SIGKILL) // one that was adopted
				return fmt.Errorf("proxy %d does not answer", l.hello.Pid)
			}
		}
	}
}

// ask calls Status.
func (b *Backend) ask(ctx context.Context, l *link) bool {
	ctx, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	s, err := l.client.Status(ctx, &proxyv1.StatusRequest{})
	if err != nil {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == l {
		b.stats = s
		if s.Learnt != nil { // else it did not say
			b.stuck = s.Learnt.StuckEndpoints
		}
	}
	return true
}

// pull takes records until the proxy is gone.
func (b *Backend) pull(ctx context.Context, l *link) error {
	stream, err := l.client.Records(ctx, &proxyv1.RecordsRequest{}, grpc.ForceCodecV2(rawCodec{encoding.GetCodecV2("proto")}), grpc.MaxCallRecvMsgSize(maxBatch))
	if err != nil {
		return err
	}
	var scan scanner
	for {
		var batch rawBatch
		if err := stream.RecvMsg(&batch); err != nil {
			return err
		}
		err := scan.batch(batch, func(part observe.Batch, lost uint64) {
			if lost > 0 {
				b.log.Warn("proxy lost records", "pid", l.hello.Pid, "lost", lost)
			}
			b.config.Sink(part, lost)
		})
		if err != nil {
			return err
		}
	}
}

// leaveToDrain ends a proxy that was replaced, in its own time; until then it
// gets the snapshots, and its records are taken.
func (b *Backend) leaveToDrain(ctx context.Context, l *link) {
	call, cancel := context.WithTimeout(ctx, greetWithin)
	defer cancel()
	if _, err := l.client.Drain(call, &proxyv1.DrainRequest{GraceNs: int64(b.config.DrainGrace)}); err != nil {
		b.log.Warn("drain replaced proxy", "pid", l.hello.Pid, "error", err)
	}
	b.mu.Lock()
	b.draining[l] = struct{}{}
	b.mu.Unlock()
	overdue := time.AfterFunc(b.config.DrainGrace+killAfter, func() { _ = l.signal(unix.SIGKILL) })
	go func() {
		_ = b.pull(ctx, l) // ends when the proxy does
		overdue.Stop()
		b.mu.Lock()
		delete(b.draining, l)
		b.mu.Unlock()
		l.close()
		if ctx.Err() == nil {
			b.sweepDrained()
		}
	}()
}

// takeUpDraining finds the proxies that an earlier agent left to drain.
func (b *Backend) takeUpDraining(ctx context.Context) {
	b.sweepDrained()
	paths, _ := filepath.Glob(filepath.Join(b.config.RunDir, drainedGlob))
	for _, path := range paths {
		greet, cancel := context.WithTimeout(ctx, greetWithin)
		l, err := connect(greet, path, b.config.Version)
		cancel()
		if err != nil {
			b.log.Warn("take up draining proxy", "error", err)
			continue
		}
		b.leaveToDrain(ctx, l)
	}
}

// sweepDrained removes the sockets that nobody listens on any more.
func (b *Backend) sweepDrained() {
	paths, _ := filepath.Glob(filepath.Join(b.config.RunDir, drainedGlob))
	for _, path := range paths {
		if !listens(path) {
			_ = os.Remove(path)
		}
	}
}
