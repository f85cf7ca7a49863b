package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/delta/v3"
	"google.golang.org/grpc"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// DefaultMaxRoutes is the default of Config.MaxRoutes.
const DefaultMaxRoutes = 1024

// Config of a Backend.
type Config struct {
	// Socket is the path of the unix socket that Envoy asks. Whoever can open it
	// reads every rule and may keep Envoy's answers from us: it is for its owner.
	Socket string
	// MaxRoutes is how many listeners there may be; 0: DefaultMaxRoutes.
	MaxRoutes int
}

// Backend makes Envoy enforce. It implements redirect.Backend. Somebody else
// starts Envoy, with Bootstrap and Args.
type Backend struct {
	config   Config
	store    *store
	listener net.Listener

	mu      sync.Mutex // one change at a time
	numbers map[policy.SetID]redirect.SetNumber
	sets    map[redirect.SetNumber]*rbacv3.RBAC
	ports   map[pair]redirect.ProxyPort

	statusMu sync.Mutex // Status does not wait for a change
	inForce  uint64
}

var _ redirect.Backend = (*Backend)(nil)

// ErrTooManyRoutes says that there are as many listeners as there may be.
var ErrTooManyRoutes = errors.New("too many different pairs of L7 rule sets for Envoy")

// New makes a Backend and its socket. Run serves it.
func New(c Config) (*Backend, error) {
	c.MaxRoutes = cmp.Or(c.MaxRoutes, DefaultMaxRoutes)
	cluster, err := clusterOf()
	if err != nil {
		return nil, err
	}
	s := newStore()
	if err := s.put(resource.ClusterType, map[string]types.Resource{clusterName: cluster}); err != nil {
		return nil, err
	}
	if err := os.Remove(c.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the socket of before: %w", err)
	}
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		return nil, fmt.Errorf("listen for Envoy: %w", err)
	}
	if err := os.Chmod(c.Socket, 0o600); err != nil {
		l.Close()
		return nil, fmt.Errorf("close the socket to others: %w", err)
	}
	return &Backend{
		config: c, store: s, listener: l, numbers: map[policy.SetID]redirect.SetNumber{},
		sets: map[redirect.SetNumber]*rbacv3.RBAC{}, ports: map[pair]redirect.ProxyPort{},
	}, nil
}

// Run answers Envoy until the context ends.
func (b *Backend) Run(ctx context.Context) error {
	g := grpc.NewServer()
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, &server{delta: delta.NewServer(ctx, b.store.watcher(), b.store.ledger)})
	stop := context.AfterFunc(ctx, g.Stop)
	defer stop()
	if err := g.Serve(b.listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve Envoy: %w", err)
	}
	return nil
}

// server speaks the delta variant of the aggregated service, and no other.
type server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	delta delta.Server
}

func (s *server) DeltaAggregatedResources(stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.delta.DeltaStreamHandler(stream, resource.AnyType)
}

// Protocols implements redirect.Backend.
func (b *Backend) Protocols() []policy.Protocol { return []policy.Protocol{policy.ProtocolHTTP} }

// Status implements redirect.Backend. Envoy's process and its connections are
// known to whoever started it.
func (b *Backend) Status() redirect.Status {
	s := b.store.status()
	b.statusMu.Lock()
	defer b.statusMu.Unlock()
	s.Revision = b.inForce
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
	if port, ok := b.ports[p]; ok {
		return port, b.accepting(ctx, p, port)
	}
	if len(b.ports) >= b.config.MaxRoutes {
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

// add makes a listener, on another port if one was taken meanwhile.
func (b *Backend) add(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	routes, err := b.routes(p)
	if err != nil {
		return 0, err
	}
	if err := b.store.put(resource.RouteType, map[string]types.Resource{p.name(): routes}); err != nil {
		return 0, err
	}
	for range portAttempts {
		var port redirect.ProxyPort
		if port, err = b.listen(ctx, p); err == nil {
			b.ports[p] = port
			return port, nil
		}
		if !taken(err) {
			break
		}
	}
	return 0, errors.Join(err, b.store.put(resource.ListenerType, nil, p.name()), b.store.put(resource.RouteType, nil, p.name()))
}

func (b *Backend) listen(ctx context.Context, p pair) (redirect.ProxyPort, error) {
	port, err := freePort(ctx)
	if err != nil {
		return 0, err
	}
	l, err := listenerOf(p, port)
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
	for _, typeURL := range []string{resource.ListenerType, resource.RouteType} {
		if err := b.store.settle(ctx, typeURL, p.name()); err != nil {
			return fmt.Errorf("serve %s by Envoy: %w", p.name(), err)
		}
	}
	return listening(ctx, port)
}
