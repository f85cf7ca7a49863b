package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// DefaultUser is the uid and gid that the process runs as.
const DefaultUser = 64210

// BackendConfig of the agent's side. RunDir is required.
type BackendConfig struct {
	RunDir  string
	Version string // a proxy of another version is replaced
	Layout  string // and so is one that reads other maps
	Logger  *slog.Logger

	// OnPort learns the port that serves connections whenever it changes; 0: there
	// is none. It is called from Run's goroutine, after the last snapshot is in
	// force at that port.
	OnPort func(redirect.ProxyPort)
	// Sink takes records, and learns how many were lost before them. It may keep them,
	// but not their digests.
	Sink func(batch observe.Batch, lost uint64)

	// MapFiles are handed to the process from DescriptorTCPMap on.
	MapFiles []*os.File
	// UID and GID of the process; zero: DefaultUser. The program file must be
	// executable for them.
	UID, GID uint32
	// KeepUser starts the process as who we are, without capabilities of its own.
	KeepUser bool
	// Executable, its arguments (with the name) and its environment default to this
	// program, "headgate proxy --run-dir RunDir", and Go's own variables.
	Executable  string
	Arguments   []string
	Environment []string
	// DrainGrace is how long a replaced proxy may take to finish. 10 min.
	DrainGrace time.Duration
}

// Backend is the agent's side of the proxy process. It implements
// redirect.Backend. Run does the work.
type Backend struct {
	config BackendConfig
	log    *slog.Logger

	enforcing chan struct{} // one snapshot at a time, in order: holds a value meanwhile

	mu       sync.Mutex
	link     *link // nil: down
	detail   string
	last     *redirect.Snapshot // wanted
	inForce  uint64
	stats    *proxyv1.StatusResponse
	draining map[*link]struct{}
	stopping bool
	opening  *opening // nil: nothing waits for rules
	before   uint32   // port of the proxy that the one which is there replaced
	silent   bool     // it did not answer when it was last asked
	stuck    []uint32 // numbers of endpoints that must not be given to others
}

var _ redirect.Backend = (*Backend)(nil)

// NewBackend makes a Backend; nothing is started before Run.
func NewBackend(config BackendConfig) (*Backend, error) {
	if config.RunDir == "" {
		return nil, errors.New("make proxy backend: no run directory")
	}
	if config.Logger == nil {
		config.Logger = slog.Default()
	}
	if config.OnPort == nil {
		config.OnPort = func(redirect.ProxyPort) {}
	}
	if config.Sink == nil {
		config.Sink = func(observe.Batch, uint64) {}
	}
	if len(config.Arguments) == 0 {
		config.Arguments = []string{"headgate", "proxy", "--run-dir", config.RunDir}
	}
	if config.Environment == nil {
		config.Environment = goEnvironment()
	}
	config.Executable = cmp.Or(config.Executable, "/proc/self/exe")
	config.UID = cmp.Or(config.UID, DefaultUser)
	config.GID = cmp.Or(config.GID, DefaultUser)
	config.DrainGrace = cmp.Or(config.DrainGrace, 10*time.Minute)
	return &Backend{config: config, log: config.Logger, enforcing: make(chan struct{}, 1), detail: "not started", draining: map[*link]struct{}{}}, nil
}

// goEnvironment is what of our environment concerns the runtime; the rest is
// none of the business of a process that parses what strangers send.
func goEnvironment() []string {
	env := []string{}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}

// Protocols implements redirect.Backend.
func (b *Backend) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolHTTP, policy.ProtocolKafka, policy.ProtocolDNS, policy.ProtocolTLS}
}

// Serve implements redirect.Backend: one port serves every route.
func (b *Backend) Serve(context.Context, redirect.Route) (redirect.ProxyPort, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.link == nil {
		return 0, fmt.Errorf("%w: %s", redirect.ErrNotReady, b.detail)
	}
	return redirect.ProxyPort(b.link.hello.Port), nil
}

// Enforce implements redirect.Backend. A *redirect.SetsError means that the snapshot is in
// force but for the sets it names. When the proxy is down the snapshot is kept
// and will be in force before OnPort reports the next one.
func (b *Backend) Enforce(ctx context.Context, s redirect.Snapshot) error {
	select {
	case b.enforcing <- struct{}{}:
		defer func() { <-b.enforcing }()
	case <-ctx.Done():
		return fmt.Errorf("enforce L7 rules: %w: another snapshot is on its way: %w: %w", redirect.ErrNotReady, redirect.ErrStaleNames, ctx.Err())
	}
	b.mu.Lock()
	before := b.last
	b.last = &s
	current, detail := b.link, b.detail
	drained := make([]*link, 0, len(b.draining))
	for l := range b.draining {
		drained = append(drained, l)
	}
	b.mu.Unlock()

	defer b.enforceDrained(ctx, drained, s)()
	if current == nil {
		return fmt.Errorf("enforce L7 rules: %w: %s", redirect.ErrNotReady, detail)
	}
	err := b.enforce(ctx, current, s)
	if status.Code(err) == codes.InvalidArgument {
		b.mu.Lock()
		b.last = before
		b.mu.Unlock()
	}
	return err
}

// enforceDrained hands a snapshot to proxies that drain: what is left of their
// connections is judged by old rules otherwise. What it returns waits for them, but
// not long: they are on their way out.
func (b *Backend) enforceDrained(ctx context.Context, drained []*link, s redirect.Snapshot) (wait func()) {
	var all sync.WaitGroup
	for _, l := range drained {
		all.Go(func() { b.enforceDraining(context.WithoutCancel(ctx), l, s) })
	}
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	return func() {
		t := time.NewTimer(time.Second)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
		case <-ctx.Done():
		}
	}
}

func (b *Backend) enforceDraining(ctx context.Context, l *link, s redirect.Snapshot) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := l.client.Enforce(ctx, snapshotToProto(s)); err != nil && status.Code(err) != codes.Unavailable {
		b.log.Warn("enforce L7 rules in a draining proxy", "pid", l.hello.Pid, "error", err)
	}
}

// enforce sends a snapshot to one proxy.
func (b *Backend) enforce(ctx context.Context, l *link, s redirect.Snapshot) error {
	request := snapshotToProto(s)
	b.mu.Lock()
	request.Before = b.before
	b.mu.Unlock()
	r, err := l.client.Enforce(ctx, request)
	switch {
	case status.Code(err) == codes.Unavailable, status.Code(err) == codes.Canceled && ctx.Err() == nil:
		return fmt.Errorf("enforce L7 rules: %w: %w", redirect.ErrNotReady, err)
	case status.Code(err) == codes.Aborted, err != nil && ctx.Err() != nil, status.Code(err) == codes.DeadlineExceeded:
		// One that lives and has not answered in time has not written what new tables need.
		return fmt.Errorf("enforce L7 rules: %w: %w: %w", redirect.ErrNotReady, redirect.ErrStaleNames, err)
	case err != nil:
		return fmt.Errorf("enforce L7 rules: %w", err)
	}
	b.mu.Lock()
	b.inForce, b.stuck = s.Revision, r.StuckEndpoints
	o := b.opening
	b.opening = nil
	b.mu.Unlock()
	if o != nil {
		close(o.ruled)
		select {
		case <-o.flipped:
		case <-ctx.Done():
		}
	}
	if len(r.Failed) == 0 {
		return nil
	}
	failed := &redirect.SetsError{Failed: map[redirect.SetNumber]string{}}
	for _, f := range r.Failed {
		failed.Failed[redirect.SetNumber(f.Number)] = f.Error
	}
	return failed
}

// Status implements redirect.Backend.
func (b *Backend) Status() redirect.Status {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := redirect.Status{Name: "go", State: "down", Detail: b.detail, Revision: b.inForce}
	if b.link == nil {
		return s
	}
	s.State, s.Version, s.PID = "ready", b.link.hello.Version, int(b.link.hello.Pid)
	if b.inForce == 0 {
		s.State, s.Detail = "starting", "no policy is in force yet"
	}
	if b.silent {
		s.State, s.Detail = "silent", "the proxy does not answer; it is replaced if it goes on"
	}
	if b.stats != nil {
		s.Connections, s.Names, s.DNS = b.stats.Connections, b.stats.Names, dnsEvents(b.stats.Dns)
		if n := len(b.stats.Failed); n > 0 {
			s.Detail = fmt.Sprintf("%d L7 sets could not be compiled and deny everything: %s", n, b.stats.Failed[0].Error)
		}
	}
	return s
}

// Stop ends the proxy, and Run.
func (b *Backend) Stop(ctx context.Context) error {
	b.mu.Lock()
	b.stopping = true
	b.mu.Unlock()
	return Terminate(ctx, b.config.RunDir)
}
