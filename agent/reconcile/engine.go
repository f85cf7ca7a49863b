package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/agent/service"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// Gate is what the engine writes to: *bpf.Gate.
type Gate interface {
	SetEndpoint(bpf.Endpoint) error
	DeleteEndpoint(netip.Addr) error
	Endpoints() ([]bpf.Endpoint, error)
	SetIdentity(netip.Prefix, policy.Identity) error
	SetSpareIdentity(netip.Prefix, policy.Identity) error
	DeleteIdentity(netip.Prefix) error
	Identities() (map[netip.Prefix]policy.Identity, error)
	SyncPolicy(subject uint32, old, want bpf.PolicyTable) error
	DeletePolicy(subject uint32, old bpf.PolicyTable) error
	ClosePolicy(subject uint32) error
	Policies() (map[uint32]bpf.PolicyTable, error)
	SetRoute(bpf.Route, uint16) error
	Routes() (map[bpf.Route]uint16, error)
	Revision() (uint32, error)
	SetRevision(uint32) error
	SetSettings(bpf.Settings) error
	SetNameTable(subject, table uint32) error
	NameTables() (map[uint32]uint32, error)
}

// Config of an Engine.
type Config struct {
	Gate    Gate
	Backend redirect.Backend
	// PerRoute: connections of that protocol go to a port of their route.
	PerRoute func(policy.Protocol) bool
	// MaxRoutes is how many such ports there may be; 0: any number.
	MaxRoutes  int
	Settings   Settings          // until others are set
	NodeLabels map[string]string // of this machine, for host policies
	Share      uint32            // established connections that one workload may have; 0: any number
	Cluster    string
	Logger     *slog.Logger
	// Fixed are prefixes whose identity does not come from endpoints or policies:
	// the host's addresses, the endpoint CIDRs (nobody's), the world.
	Fixed map[netip.Prefix]policy.Identity
	// Secrets reads a value that policies refer to; nil: there are none.
	Secrets func(policy.SecretRef) (string, error)
	// NodeAddresses are this machine's own, as the gate knows them; nil: none.
	NodeAddresses func() ([]netip.Addr, error)
	// Services is the gate's side of services; nil: there are none.
	Services Services
	// Names are given out by the proxy as this says; nil: not at all.
	Names *redirect.Zone
	// NameLimits bound what is kept of answers.
	NameLimits redirect.NameLimits
	// Pools are the addresses of endpoints, which no service may have.
	Pools []netip.Prefix
	// Save is called with the state after each change that must survive a restart.
	Save func(State) error
}

// State is what survives a restart.
type State struct {
	Endpoints  []*endpoint.Endpoint         `json:"endpoints"`
	Namespaces map[string]map[string]string `json:"namespaces"`
	Policies   []StoredPolicy               `json:"policies"`
	Services   []*service.Service           `json:"services,omitempty"`
	Numbers    Numbers                      `json:"numbers"`
	// LastEndpoint is the number that was given out last: one that is free again is given to others
	// as late as can be.
	LastEndpoint uint16            `json:"lastEndpoint,omitempty"`
	Revision     uint64            `json:"revision"`
	Settings     map[string]string `json:"settings,omitempty"` // that were set
	Trial        *Trial            `json:"trial,omitempty"`
}

// StoredPolicy is a policy as it was written.
type StoredPolicy struct {
	Key      string `json:"key"`
	Origin   string `json:"origin"`
	Source   string `json:"source"`
	Revision uint64 `json:"revision"`
}

// Engine holds what is wanted and what is in force. Its methods may be called from
// several goroutines; changes take turns.
type Engine struct {
	cfg Config

	mu         sync.Mutex
	endpoints  map[string]*endpoint.Endpoint
	namespaces map[string]map[string]string
	policies   map[string]*Policy
	services   map[string]*service.Service
	numbers    Numbers
	ids        *policy.Identities // the index's
	book       rulebook
	revision   uint64 // of what is wanted

	subjects map[string]*subject
	sets     policy.L7Table // in force
	lastSets policy.L7Table // in force before: connections may still name them
	prefixes map[netip.Prefix]policy.Identity
	routes   map[bpf.Route]uint16 // to ports of their own, as in the gate
	// inherited are numbers that another set took, which the backend may not know yet.
	inherited    map[redirect.SetNumber]bool
	secrets      map[policy.SecretRef]string      // as the backend was given them
	written      map[netip.Addr]bpf.Endpoint      // as in the gate
	dirty        bool                             // the last sync did not end well
	unplaced     map[netip.Prefix]policy.Identity // that found no room in the gate
	lastEndpoint uint16                           // number
	chosen       map[string]string                // settings that were set
	trial        *Trial
	inGate       *bpf.Settings
	nameTables   map[policy.SetID]*nameTable

	enforced  atomic.Uint64
	directory atomic.Pointer[directory]
}

// Policy is a policy with what the engine knows of it.
type Policy struct {
	policy.Policy
	Revision uint64 // at which it last changed
}

// subject is a policy table and who has it.
type subject struct {
	number    uint32
	identity  policy.Identity
	of        policy.Subject
	table     bpf.PolicyTable // as in the gate
	want      bpf.PolicyTable
	resolved  *resolved   // what want was made from; nil: to be made
	names     [2][]string // policies that select it, by direction
	ports     []Redirect
	users     int
	nameTable uint32 // of rules about names, as in the gate; 0: none
	wantNames uint32
	failed    bool // the last write did not end well: the gate keeps it closed
}

// Redirect is a port that goes to the proxy.
type Redirect struct {
	Protocol  policy.Protocol
	Direction policy.Direction
	Port      uint16
}

// New makes an engine. Nothing is written before Start.
func New(cfg Config) *Engine {
	e := &Engine{
		cfg: cfg, endpoints: map[string]*endpoint.Endpoint{}, namespaces: map[string]map[string]string{},
		policies: map[string]*Policy{}, services: map[string]*service.Service{}, book: newRulebook(), subjects: map[string]*subject{},
		routes: map[bpf.Route]uint16{}, inherited: map[redirect.SetNumber]bool{}, prefixes: map[netip.Prefix]policy.Identity{}, written: map[netip.Addr]bpf.Endpoint{},
		unplaced: map[netip.Prefix]policy.Identity{}, nameTables: map[policy.SetID]*nameTable{},
	}
	e.ids = e.book.index.Identities()
	e.numbers.init()
	e.publish()
	return e
}

// Start takes over: what was remembered becomes what is wanted, the gate is read,
// tables are filled under new subject numbers, endpoints flip to them, and what is
// left of the agent before is removed. Policies have been decoded by the caller.
func (e *Engine) Start(ctx context.Context, s State, policies []*Policy) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.numbers = s.Numbers
	e.numbers.init()
	// Higher than any that a connection was judged under: whatever this agent does
	// otherwise than the one before holds for open connections too.
	gate, err := e.cfg.Gate.Revision()
	if err != nil {
		return fmt.Errorf("read the running datapath: %w", err)
	}
	e.revision = max(s.Revision, uint64(gate)) + 1
	for _, ep := range s.Endpoints {
		e.endpoints[ep.Key()] = ep
	}
	e.chosen, e.trial, e.lastEndpoint = s.Settings, s.Trial, s.LastEndpoint
	if e.trial != nil && time.Now().After(e.trial.Until) {
		e.choose(e.trial.Name, e.trial.Back)
		e.trial = nil
	}
	for ns, labels := range s.Namespaces {
		e.namespaces[ns] = labels
	}
	for _, p := range policies {
		e.policies[p.Key()] = p
	}
	for _, s := range s.Services {
		e.services[s.Key()] = s
	}
	if err := e.admitListeners(); err != nil {
		return fmt.Errorf("read remembered policies: %w", err)
	}
	stale, err := e.readGate()
	if err != nil {
		return fmt.Errorf("read the running datapath: %w", err)
	}
	err = e.sync(ctx)
	var ofBackend *backendError
	switch {
	case err == nil:
	case errors.As(err, &ofBackend):
		e.cfg.Logger.Warn("some redirected ports stay closed; they are tried again", "error", err)
	default:
		return err // endpoints may still point to the tables of the agent before
	}
	return e.sweep(stale)
}

// readGate learns what is in the gate, so that changes are made from there.
func (e *Engine) readGate() (stale map[uint32]bpf.PolicyTable, err error) {
	if stale, err = e.cfg.Gate.Policies(); err != nil {
		return nil, err
	}
	if e.prefixes, err = e.cfg.Gate.Identities(); err != nil {
		return nil, err
	}
	if err := e.readRoutes(); err != nil {
		return nil, err
	}
	nameTables, err := e.readNameTables()
	if err != nil {
		return nil, err
	}
	eps, err := e.cfg.Gate.Endpoints()
	for _, ep := range eps {
		e.written[ep.Addr] = ep
	}
	if e.cfg.Services != nil {
		err = errors.Join(err, e.cfg.Services.Load())
	}
	for n := range stale { // their numbers are not used before they are gone
		e.subjects[fmt.Sprintf("stale %d", n)] = &subject{number: n, table: stale[n], nameTable: nameTables[n]}
	}
	return stale, err
}

// sweep removes the tables of the agent before. Endpoints no longer point to them.
func (e *Engine) sweep(stale map[uint32]bpf.PolicyTable) error {
	for n, table := range stale {
		if err := e.cfg.Gate.DeletePolicy(n, table); err != nil {
			return fmt.Errorf("remove table %d of the agent before: %w", n, err)
		}
		delete(e.subjects, fmt.Sprintf("stale %d", n))
	}
	return nil
}

// change makes a change to what is wanted and puts it in force. If f fails nothing
// has changed.
func (e *Engine) change(ctx context.Context, f func() error) (uint64, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := f(); err != nil {
		return e.revision, err
	}
	e.revision++
	err := e.sync(ctx)
	return e.revision, err
}

// Retry puts in force what could not be before.
func (e *Engine) Retry(ctx context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.dirty {
		return nil
	}
	return e.sync(ctx)
}

// Revisions are those of what is wanted and of what is in force.
func (e *Engine) Revisions() (wanted, enforced uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.revision, e.enforced.Load()
}

// Reference is the rule that a number in the gate stands for.
func (e *Engine) Reference(number uint32) policy.Ref { return e.directory.Load().refs[number] }

// state is what must survive.
func (e *Engine) state() State {
	s := State{Namespaces: e.namespaces, Numbers: e.numbers, Revision: e.revision, Settings: e.chosen, Trial: e.trial, LastEndpoint: e.lastEndpoint}
	for _, key := range sortedKeys(e.endpoints) {
		s.Endpoints = append(s.Endpoints, e.endpoints[key])
	}
	for _, key := range sortedKeys(e.policies) {
		p := e.policies[key]
		s.Policies = append(s.Policies, StoredPolicy{Key: key, Origin: p.Origin, Source: string(p.Source), Revision: p.Revision})
	}
	s.Services = e.serviceList()
	return s
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// SetFixed changes which prefixes have an identity of their own accord, if it is
// another set than before.
func (e *Engine) SetFixed(ctx context.Context, fixed map[netip.Prefix]policy.Identity) error {
	e.mu.Lock()
	same := maps.Equal(fixed, e.cfg.Fixed)
	e.mu.Unlock()
	if same {
		return nil
	}
	_, err := e.change(ctx, func() error {
		e.cfg.Fixed = fixed
		return nil
	})
	return err
}
