// Package agent is the process that decides: it knows endpoints, identities and
// policies, brings gate and proxy to what follows from them (reconcile), answers
// people on a unix socket (serve) and tells what happens (observe).
//
// Traffic does not depend on it. When it is dead the gate and the proxy go on by
// the last policy; the next agent finds them, takes them over and changes nothing
// that is right.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/reconcile"
	"github.com/headgate/headgate/agent/secret"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Config of an agent.
type Config struct {
	Version       string
	RunDir        string
	StateDir      string
	PolicyDir     string // watched; empty: none
	SecretsDir    string // of values that policies refer to, watched; empty: none
	NodeName      string
	EndpointCIDRs []netip.Prefix
	// Devices are those by which other networks are reached; empty: every one that
	// is up and has an address.
	Devices []string
	// Masquerade says as whom endpoints appear there, but to NoMasquerade.
	Masquerade   bpf.Masquerade
	NoMasquerade []netip.Prefix
	// RemoteNodes and KubeAPIServers are what policy calls by these names.
	RemoteNodes    []netip.Addr
	KubeAPIServers []netip.Addr
	// CgroupRoot is that of the control groups whose sockets meet services: empty:
	// found; "off": none.
	CgroupRoot string
	// Names gives names out to workloads; nil: not.
	Names      *redirect.Zone
	Settings   reconcile.Settings // until others are set
	NodeLabels map[string]string  // by which host policies pick this node
	HostAllow  []bpf.OpenPort     // that host policies never close
	// MaxConnections is the room for established TCP; 0: as memory allows.
	MaxConnections int
	// Share is how many of these one workload may have; 0: a quarter.
	Share int
	// NameLimits bound what is kept of names that endpoints ask for.
	NameLimits redirect.NameLimits
	// ObserverListen are addresses of the Observer API: unix://PATH or HOST:PORT.
	ObserverListen []string
	// ObserverOptional: an address that is taken is no reason not to run.
	ObserverOptional bool
	MetricsListen    string // empty: off
	FlowBuffer       int    // how many flows are kept for those who ask; 256 bytes each, 2 KiB once looked at
	Logger           *slog.Logger
	// Backends make the proxies. Each has the protocols that none before it has.
	Backends []BackendFactory
}

// Backend is a redirect.Backend that runs beside the agent.
type Backend interface {
	redirect.Backend
	// Run starts or adopts the proxy and watches over it until the context ends;
	// the proxy goes on.
	Run(context.Context) error
}

// BackendConfig is what the agent gives a backend.
type BackendConfig struct {
	RunDir string
	Layout string     // of the maps
	Maps   []*os.File // as bpf.Gate.ConntrackMaps, NameMaps and QuestionMaps, then the endpoints to be read
	// NamesDir is where what is learnt of names is kept.
	NamesDir string
	Logger   *slog.Logger
	// OnPort is told on which port the proxy serves every route; 0: none now.
	OnPort func(redirect.ProxyPort)
	// OnReady is told when the proxy can be asked, again or for the first time.
	OnReady func()
	// Identify says whose the ends of a connection are.
	Identify func(source, destination netip.AddrPort) (policy.Identity, policy.Identity)
	// Records takes what the proxy judged, and how many records were lost.
	Records func(batch observe.Batch, lost uint64)
}

// Agent is one agent.
type Agent struct {
	cfg       Config
	log       *slog.Logger
	started   time.Time
	gate      *bpf.Gate
	engine    *reconcile.Engine
	connector *endpoint.Connector
	backend   *backends
	seeing    *seeing
	control   *controllers
	store     *store
	retry     chan struct{}
	cgroup    string // where sockets meet services; empty: nowhere, and why
	noCgroup  error
	monitors  monitors
	port      atomic.Uint32 // of the proxy, 0: none
	ports     *ports
}

// Run runs an agent until the context ends.
func Run(ctx context.Context, cfg Config) error {
	a := &Agent{cfg: cfg, log: cfg.Logger, started: time.Now(), control: newControllers(cfg.Logger), retry: make(chan struct{}, 1)}
	unlock, err := a.prepareDirs()
	if err != nil {
		return err
	}
	defer unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer func() {
		cancel()
		a.control.wg.Wait()
		if a.gate != nil {
			a.gate.Close()
		}
	}()
	if err := a.start(ctx); err != nil {
		return err
	}
	return a.serve(ctx)
}

// prepareDirs makes the directories and sees to it that this agent is alone.
func (a *Agent) prepareDirs() (func(), error) {
	if err := os.MkdirAll(a.cfg.RunDir, 0o755); err != nil {
		return nil, fmt.Errorf("make run directory: %w", err)
	}
	var err error
	if a.store, err = newStore(a.cfg.StateDir); err != nil {
		return nil, err
	}
	return lock(a.cfg.RunDir, a.cfg.StateDir)
}

// start takes over what is there and puts in force what is remembered.
func (a *Agent) start(ctx context.Context) error {
	pools, err := a.pools()
	if err != nil {
		return err
	}
	if err := a.startGate(endpoint.Gateways(pools)); err != nil {
		return err
	}
	events, err := a.gate.Events()
	if err != nil {
		return err
	}
	a.seeing = newSeeing(a.cfg, events)
	if err := a.seeing.registry.Register(newMapMetrics(a.gate.Usage)); err != nil {
		return fmt.Errorf("register metrics of maps: %w", err)
	}
	fixed, err := a.fixedPrefixes(pools)
	if err != nil {
		return err
	}
	if err := a.startBackend(ctx); err != nil {
		return err
	}
	if l := a.backend.learner(); l != nil {
		if err := a.seeing.registry.Register(newNameMetrics(l.LearntStats)); err != nil {
			return fmt.Errorf("register metrics of names: %w", err)
		}
	}
	if err := a.seeing.registry.Register(newDNSMetrics(a.backend.dns)); err != nil {
		return fmt.Errorf("register metrics of the DNS: %w", err)
	}
	services, err := a.startServices()
	if err != nil {
		return err
	}
	a.engine = reconcile.New(reconcile.Config{
		Gate: a.gate, Backend: a.backend, PerRoute: func(p policy.Protocol) bool { return a.backend.perRoute[p] }, MaxRoutes: a.backend.maxRoutes,
		Settings: a.cfg.Settings, NodeLabels: a.cfg.NodeLabels, Share: a.share(), Cluster: policy.DefaultCluster,
		Logger: a.log, Fixed: fixed, Save: a.store.save,
		Secrets: secret.Dir(a.cfg.SecretsDir).Read, NodeAddresses: a.gate.NodeAddresses,
		Services: services, Names: a.names(pools), Pools: a.cfg.EndpointCIDRs, NameLimits: a.cfg.NameLimits,
	})
	a.seeing.builder.Directory = a.engine
	if err := a.openPorts(); err != nil {
		return err
	}
	a.connector = endpoint.NewConnector(pools, a.engine, a.gate, a.log)
	a.connector.Stuck = a.stuckEndpoints
	if a.cfg.Names != nil {
		a.connector.Domain = a.cfg.Names.Domain
	}
	if err := a.restore(ctx); err != nil {
		return err
	}
	if err := a.gate.SetUntranslated(append(slices.Clone(a.cfg.NoMasquerade), a.cfg.EndpointCIDRs...)); err != nil {
		return err
	}
	if err := a.syncDevices(ctx); err != nil {
		a.log.Warn("not every device of the node is served", "error", err)
	}
	a.startControllers(ctx, pools)
	return nil
}

func (a *Agent) pools() ([]*endpoint.Pool, error) {
	var pools []*endpoint.Pool
	for _, cidr := range a.cfg.EndpointCIDRs {
		p, err := endpoint.NewPool(cidr)
		if err != nil {
			return nil, err
		}
		pools = append(pools, p)
	}
	if len(pools) == 0 {
		return nil, errors.New("no endpoint CIDR is given: name one with --endpoint-cidr")
	}
	return pools, nil
}

// fixedPrefixes are the addresses whose identity no endpoint and no policy gives.
func (a *Agent) fixedPrefixes(pools []*endpoint.Pool) (map[netip.Prefix]policy.Identity, error) {
	fixed := map[netip.Prefix]policy.Identity{
		netip.MustParsePrefix("0.0.0.0/0"): policy.IdentityWorldIPv4,
		netip.MustParsePrefix("::/0"):      policy.IdentityWorldIPv6,
	}
	for _, p := range pools { // an address that no endpoint has is nobody's
		fixed[p.Prefix()] = policy.IdentityUnknown
	}
	for _, ip := range a.cfg.RemoteNodes {
		fixed[netip.PrefixFrom(ip, ip.BitLen())] = policy.IdentityRemoteNode
	}
	for _, ip := range a.cfg.KubeAPIServers {
		fixed[netip.PrefixFrom(ip, ip.BitLen())] = policy.IdentityKubeAPIServer
	}
	host, err := hostAddresses()
	if err != nil {
		return nil, err
	}
	for _, ip := range host {
		fixed[netip.PrefixFrom(ip, ip.BitLen())] = policy.IdentityHost
	}
	return fixed, nil
}
