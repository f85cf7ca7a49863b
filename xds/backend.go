package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// DefaultMaxRoutes is the default of Config.MaxRoutes.
const DefaultMaxRoutes = 1024

// Config of a Backend. Dir is required; without Path nobody is started.
type Config struct {
	// Dir is where the socket that Envoy asks is, and the rest of its files.
	Dir string
	// MaxRoutes is how many listeners there may be; 0: DefaultMaxRoutes.
	MaxRoutes int

	// Path of Envoy's program. Empty: somebody else starts it, with what Bootstrap
	// and Args say.
	Path string
	// Holder are the arguments by which this program calls Hold with those behind them.
	Holder  []string
	Workers int    // threads that carry connections
	NodeID  string // how Envoy calls itself
	UID     uint32 // user and group of Envoy
	Logger  *slog.Logger

	// OnStream is told when Envoy is there to be asked.
	OnStream func()
	// Records takes what Envoy logged.
	Records func([]observe.Record)
	// Identify says whose the ends of a connection are.
	Identify func(source, destination netip.AddrPort) (policy.Identity, policy.Identity)
}

// Backend makes Envoy enforce. It implements redirect.Backend.
type Backend struct {
	config   Config
	log      *slog.Logger
	store    *store
	listener net.Listener
	clients  clients
	guard    *guard
	services *store // for those who look up services
	guided   map[resourceKey]bool
	primed   chan struct{} // closed once Envoy may ask: what it has is known again

	mu      sync.Mutex // one change at a time
	numbers map[policy.SetID]redirect.SetNumber
	sets    map[redirect.SetNumber]*program
	given   map[redirect.SetNumber]*policy.L7Set // of the last snapshot, whatever Envoy took of them
	ports   map[pair]redirect.ProxyPort
	saved   map[pair]redirect.ProxyPort // of an agent before, until the first snapshot
	// savedRules are those that connections are judged by, to be told from others.
	savedRules, oldRules map[pair]string // now, and when an Envoy began to drain
	failed               map[redirect.SetNumber]string
	// accepted are the sets that Envoy has taken, which sets are not while it is away.
	accepted map[redirect.SetNumber]*program
	// refusals are rules that Envoy refused, by the name of their RBAC policy, with its
	// words. They are not offered again.
	refusals map[policy.SetID]map[string]string
	made     map[policy.SetID]*program // of the last snapshot
	custom   *custom                   // listeners of policies
	secrets  *shelf                    // to end TLS by
	shut     map[pair]refusal          // listeners that Envoy refused: they close what comes

	inUse    atomic.Pointer[map[redirect.SetNumber]*program] // what requests are judged by
	underway underway

	settings string                    // an Envoy of others is replaced
	replaced bool                      // one was
	draining atomic.Pointer[process]   // that one
	owed     atomic.Pointer[time.Time] // since when a change has not been taken

	statusMu sync.Mutex // Status does not wait for a change
	// secretTexts are the values of secrets that resources may hold.
	secretTexts []string
	inForce     uint64
	failing     string // what of it is not
	refused     []refusedRule
	pid         int
	lost        string // why there is no process
	unfit       string // why the last Envoy that came was turned away
}

var _ redirect.Backend = (*Backend)(nil)

// ErrTooManyRoutes says that there are as many listeners as there may be.
var ErrTooManyRoutes = errors.New("too many different pairs of L7 rule sets for Envoy")

// New makes a Backend and its socket. Run serves it.
func New(c Config) (*Backend, error) {
	c.MaxRoutes = cmp.Or(c.MaxRoutes, DefaultMaxRoutes)
	c.Workers = cmp.Or(c.Workers, 2)
	c.NodeID = cmp.Or(c.NodeID, "headgate")
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.OnStream == nil {
		c.OnStream = func() {}
	}
	cluster, err := clusterOf()
	if err != nil {
		return nil, err
	}
	b := &Backend{
		config: c, log: c.Logger, store: newStore(), services: newStore(), primed: make(chan struct{}), numbers: map[policy.SetID]redirect.SetNumber{},
		sets: map[redirect.SetNumber]*program{}, ports: map[pair]redirect.ProxyPort{}, custom: newCustom(), secrets: newShelf(), savedRules: map[pair]string{},
		failed: map[redirect.SetNumber]string{}, refusals: map[policy.SetID]map[string]string{}, shut: map[pair]refusal{},
	}
	b.guard = newGuard(b.log)
	b.store.onStream, b.store.guard = c.OnStream, b.guard
	b.store.mask = func(said string) string { return maskText(said, b.secretValues()) }
	if err := b.store.put(resource.ClusterType, map[string]types.Resource{clusterName: cluster}); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return nil, fmt.Errorf("make Envoy's directory: %w", err)
	}
	if c.Path == "" {
		if err := b.prepareExternal(); err != nil {
			return nil, err
		}
	}
	if err := b.look(); err != nil {
		return nil, err
	}
	if b.saved = b.loadPorts(); len(b.saved) == 0 {
		close(b.primed)
	}
	b.listener, err = listenPrivately(b.file(SocketName), c.UID)
	return b, err
}

func (b *Backend) file(name string) string { return filepath.Join(b.config.Dir, name) }

// Run starts or adopts Envoy and answers it until the context ends; Envoy goes on.
func (b *Backend) Run(ctx context.Context) error {
	g := grpc.NewServer(grpc.Creds(byPeer{}))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, newServer(ctx, b))
	accesslogv3.RegisterAccessLogServiceServer(g, &accessLog{b: b})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	var supervisor sync.WaitGroup
	defer supervisor.Wait()
	supervisor.Go(func() { b.guard.watch(ctx) })
	if b.config.Path != "" {
		supervisor.Go(func() { b.supervise(ctx) })
	}
	select {
	case <-b.primed: // it would take away what it is not told of
	case <-ctx.Done():
		return nil
	}
	if err := g.Serve(b.listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve Envoy: %w", err)
	}
	return nil
}

// Protocols implements redirect.Backend.
func (b *Backend) Protocols() []policy.Protocol {
	return []policy.Protocol{policy.ProtocolHTTP, policy.ProtocolListener, policy.ProtocolTLS}
}

// Status implements redirect.Backend.
func (b *Backend) Status() redirect.Status {
	s := b.store.status()
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	s.Revision, s.PID = b.inForce, b.pid
	if b.config.Path == "" {
		b.externalStatus(&s)
	}
	if s.State == "ready" && b.failing != "" {
		s.Detail = b.failing
	}
	if s.State != "ready" && b.lost != "" {
		s.State, s.Detail = "down", b.lost
	}
	if s.State != "ready" && b.unfit != "" {
		s.Detail = b.unfit
	}
	return s
}

// Serve implements redirect.Backend: it returns once Envoy accepts connections of
// the route. Its sets must be in the last snapshot. The caller's thread must be in
// Envoy's network namespace.
func (b *Backend) Serve(ctx context.Context, r redirect.Route) (redirect.ProxyPort, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p, err := b.pairOf(r)
	if err != nil {
		return 0, err
	}
	if p.custom() && p.ingress != 0 {
		return 0, fmt.Errorf("%w: a listener of a policy does not judge by the server's rules", redirect.ErrUnservable)
	}
	if port, ok := b.ports[p]; ok {
		err := b.accepting(ctx, p, port)
		if !taken(err) { // by somebody else, while Envoy was away
			return port, err
		}
		delete(b.ports, p)
	}
	// Those that nobody needs any more stay for one change more: there may be as many again.
	if len(b.ports) >= 2*b.config.MaxRoutes {
		return 0, fmt.Errorf("%w: %d; let more rules be equal, or raise the limit", ErrTooManyRoutes, len(b.ports))
	}
	return b.add(ctx, p)
}

// pairOf finds a route's numbers.
func (b *Backend) pairOf(r redirect.Route) (pair, error) {
	var out pair
	for _, end := range []struct {
		id     policy.SetID
		number *redirect.SetNumber
	}{{r.Egress, &out.egress}, {r.Ingress, &out.ingress}} {
		if end.id == (policy.SetID{}) {
			continue
		}
		n, ok := b.numbers[end.id]
		if !ok {
			return out, fmt.Errorf("serve route by Envoy: set %x is not in force", end.id)
		}
		*end.number = n
	}
	if out == (pair{}) {
		return out, errors.New("serve route by Envoy: it has no set")
	}
	return out, nil
}

// add makes a listener, on another port if one was taken meanwhile. Rules that Envoy
// refuses are left out.
func (b *Backend) add(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	port, err := b.offer(ctx, p)
	if p.custom() && refusedBy(err) {
		defer b.noteFailed()
		return 0, b.refuseCustom(p, err)
	}
	if refusedBy(err) && !taken(err) {
		port, err = b.addClosed(ctx, p)
		b.noteFailed()
	}
	if err != nil {
		delete(b.ports, p)
		return 0, err
	}
	b.ports[p], b.savedRules[p] = port, b.rulesOf(p)
	return port, b.savePorts()
}

// addClosed makes a listener that lets nothing pass, finds which rules Envoy takes, and then
// makes the listener again by those: where TLS is concerned a closed one is another.
func (b *Backend) addClosed(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	want := b.sets
	b.sets = maps.Clone(want)
	var numbers []redirect.SetNumber
	for _, n := range []redirect.SetNumber{p.egress, p.ingress} {
		if n != 0 {
			b.sets[n] = closed()
			numbers = append(numbers, n)
		}
	}
	port, err := b.offer(ctx, p)
	if err != nil {
		b.sets = want
		return 0, err
	}
	b.ports[p] = port
	if err := b.admit(ctx, numbers, want); err != nil {
		return 0, err
	}
	if err := b.pushListener(ctx, p, port); err != nil {
		return 0, err
	}
	return port, b.accepting(ctx, p, port)
}

// offer gives Envoy the listener of a pair and its routes.
func (b *Backend) offer(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	var err error
	switch {
	case p.custom():
		err = b.customFailure(p)
	case p.routed():
		err = b.offerRoutes(p)
	}
	if err != nil {
		return 0, err
	}
	for range portAttempts {
		var port redirect.ProxyPort
		if port, err = b.listen(ctx, p); err == nil {
			return port, nil
		}
		if !taken(err) {
			break
		}
	}
	return 0, errors.Join(err, b.store.put(resource.ListenerType, nil, p.name()), b.store.put(resource.RouteType, nil, p.name()))
}

func (b *Backend) offerRoutes(p pair) error {
	routes, err := b.routes(p)
	if err != nil {
		return err
	}
	return b.store.put(resource.RouteType, map[string]types.Resource{p.name(): routes})
}

func (b *Backend) listen(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	port, err := freePort(ctx)
	if err != nil {
		return 0, err
	}
	l, err := b.listenerFor(p, port)
	if err != nil {
		return 0, err
	}
	if err := b.store.change(ctx, resource.ListenerType, map[string]types.Resource{l.GetName(): l}); err != nil {
		return 0, fmt.Errorf("add listener %s to Envoy: %w", l.GetName(), err)
	}
	return port, b.accepting(ctx, p, port)
}

// accepting waits until the pair's listener accepts connections, with its rules.
func (b *Backend) accepting(ctx context.Context, p pair, port redirect.ProxyPort) error {
	err := b.store.settle(ctx, resource.ListenerType, p.name())
	if err == nil && p.routed() {
		err = b.store.settle(ctx, resource.RouteType, p.name())
	}
	if err == nil {
		err = b.settleSecrets(ctx, p, port)
	}
	if err != nil {
		return fmt.Errorf("serve %s by Envoy: %w", p.name(), err)
	}
	if p.custom() {
		if err := b.store.settle(ctx, resource.RouteType, b.custom.routesOf(p)...); err != nil {
			return fmt.Errorf("serve %s by Envoy: %w", p.name(), err)
		}
	}
	return listening(ctx, port)
}
