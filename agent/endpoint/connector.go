package endpoint

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/headgate/headgate/policy"
)

// Engine puts endpoints in force.
type Engine interface {
	AddEndpoint(context.Context, *Endpoint) (*Endpoint, error)
	RemoveEndpoint(context.Context, string) error
	GetEndpoint(string) (*Endpoint, error)
	Endpoints() []*Endpoint
}

// Gate is attached to the host's sides.
type Gate interface{ AttachWorkload(ifindex int) error }

// Spec is what is asked for.
type Spec struct {
	Name, Namespace, Netns, ServiceAccount, Interface string
	Labels                                            map[string]string
	IPs, Ports                                        []string
	ResolvConf                                        bool // write one for it
}

// Connector makes and ends endpoints: addresses, veth, gate, policy, in the order
// in which nothing passes unjudged.
type Connector struct {
	mu     sync.Mutex
	pools  []*Pool
	engine Engine
	gate   Gate
	log    *slog.Logger
	nextID uint16
	// Stuck are numbers of endpoints that are gone, of which something stays in the datapath
	// that others would inherit; nil: there are none.
	Stuck func() []uint32
	// Domain of the names that are given out; empty: none are.
	Domain string
}

// NewConnector makes a connector over pools of addresses.
func NewConnector(pools []*Pool, engine Engine, gate Gate, log *slog.Logger) *Connector {
	return &Connector{pools: pools, engine: engine, gate: gate, log: log}
}

// Gateways are the addresses that workloads route to: the first pool's of each IP
// version.
func Gateways(pools []*Pool) []netip.Addr {
	var out []netip.Addr
	for _, p := range pools {
		if !hasFamily(out, p.Gateway()) {
			out = append(out, p.Gateway())
		}
	}
	return out
}

// ErrInvalid says that what was asked for cannot be.
var ErrInvalid = errors.New("not a valid endpoint")

// Add connects a workload and returns when its policy is in force.
func (c *Connector) Add(ctx context.Context, s Spec) (*Endpoint, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, err := c.prepare(s)
	if err != nil {
		return nil, err
	}
	if err := c.allocate(e, s.IPs); err != nil {
		return nil, err
	}
	if s.ResolvConf {
		if err := writeResolvConf(e, Gateways(c.pools), c.Domain); err != nil {
			c.release(e)
			return nil, err
		}
	}
	if err := Connect(e, Gateways(c.pools), c.gate.AttachWorkload); err != nil {
		c.release(e)
		err = errors.Join(err, removeResolvConf(e))
		return nil, fmt.Errorf("connect endpoint %s: %w", e.Key(), err)
	}
	added, err := c.engine.AddEndpoint(ctx, e)
	if err != nil {
		_ = c.engine.RemoveEndpoint(ctx, e.Key()) // it may have been added, and not be in force
		c.release(e)
		return nil, errors.Join(err, Disconnect(e))
	}
	c.log.Info("endpoint added", "endpoint", e.Key(), "id", e.ID, "identity", added.Identity, "ips", e.IPs, "interface", e.Interface)
	return added, nil
}

// prepare checks what is asked for.
func (c *Connector) prepare(s Spec) (*Endpoint, error) {
	if s.Namespace == "" {
		s.Namespace = policy.DefaultNamespace
	}
	if s.Interface == "" {
		s.Interface = "eth0"
	}
	if err := errors.Join(policy.ValidateName(s.Name), policy.ValidateNamespace(s.Namespace)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if s.Netns == "" {
		return nil, fmt.Errorf("%w: it needs a network namespace: give its name, path or a process id with --netns", ErrInvalid)
	}
	if len(s.Interface) > 15 || strings.ContainsAny(s.Interface, "/ \t\n") {
		return nil, fmt.Errorf("%w: %q is not the name of an interface", ErrInvalid, s.Interface)
	}
	ports, err := ParsePorts(s.Ports)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	e := &Endpoint{
		Name: s.Name, Namespace: s.Namespace, ServiceAccount: s.ServiceAccount, Labels: s.Labels, Ports: ports,
		Inside: s.Interface, Netns: s.Netns, State: Regenerating,
	}
	if _, err := policy.EndpointLabels(e.Namespace, e.ServiceAccount, policy.DefaultCluster, nil, e.Labels); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if _, err := c.engine.GetEndpoint(e.Key()); err == nil {
		return nil, fmt.Errorf("endpoint %s exists already: delete it first with 'headgate endpoint delete %s'", e.Key(), e.Key())
	}
	if e.ID, err = c.freeID(); err != nil {
		return nil, err
	}
	return e, nil
}

// The last ids are what the gate counts others' connections under (bpf.ShareAsked,
// bpf.ShareTransit).
const lastID = 0xfffd

func (c *Connector) freeID() (uint16, error) {
	taken := map[uint16]bool{0: true, lastID + 1: true, lastID + 2: true}
	for _, e := range c.engine.Endpoints() {
		taken[e.ID] = true
	}
	if c.Stuck != nil {
		for _, id := range c.Stuck() {
			taken[uint16(id)] = true
		}
	}
	for range 1 << 16 {
		if c.nextID++; !taken[c.nextID] {
			return c.nextID, nil
		}
	}
	return 0, errors.New("no endpoint id is left: delete endpoints; 'headgate status' says whether some stay taken by addresses that the datapath does not forget")
}

// allocate takes the addresses asked for, or one of each IP version.
func (c *Connector) allocate(e *Endpoint, want []string) error {
	if len(want) == 0 {
		for _, gw := range Gateways(c.pools) {
			ip, err := c.allocateLike(gw)
			if err != nil {
				c.release(e)
				return err
			}
			e.IPs = append(e.IPs, ip)
		}
		return nil
	}
	for _, s := range want {
		ip, err := netip.ParseAddr(s)
		if err != nil || ip.Zone() != "" || ip.Is4In6() {
			c.release(e)
			return fmt.Errorf("%w: %q is not an address", ErrInvalid, s)
		}
		if err := c.reserve(ip); err != nil {
			c.release(e)
			return err
		}
		e.IPs = append(e.IPs, ip)
	}
	return nil
}

func (c *Connector) allocateLike(gw netip.Addr) (netip.Addr, error) {
	var last error
	for _, p := range c.pools {
		if p.Gateway().Is4() != gw.Is4() {
			continue
		}
		ip, err := p.Allocate()
		if err == nil {
			return ip, nil
		}
		last = err
	}
	return netip.Addr{}, last
}

func (c *Connector) reserve(ip netip.Addr) error {
	for _, p := range c.pools {
		if !p.Contains(ip) {
			continue
		}
		if !p.Reserve(ip) {
			return fmt.Errorf("%w: address %s is taken by another endpoint", ErrInvalid, ip)
		}
		return nil
	}
	return fmt.Errorf("%w: address %s is in none of the agent's endpoint CIDRs, or is a gateway's", ErrInvalid, ip)
}

func (c *Connector) release(e *Endpoint) {
	for _, ip := range e.IPs {
		for _, p := range c.pools {
			if p.Contains(ip) {
				p.Release(ip)
			}
		}
	}
}

// Delete disconnects a workload and forgets it.
func (c *Connector) Delete(ctx context.Context, key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.remove(ctx, key)
}

func (c *Connector) remove(ctx context.Context, key string) error {
	e, err := c.engine.GetEndpoint(key)
	if err != nil {
		return err
	}
	// First it loses its traffic, then its interface.
	err = c.engine.RemoveEndpoint(ctx, key)
	err = errors.Join(err, Disconnect(e))
	c.release(e)
	c.log.Info("endpoint deleted", "endpoint", key)
	return err
}

// Restore takes over endpoints that an agent before connected: their addresses are
// reserved and the gate is attached anew. Those whose namespace is gone are
// returned as gone.
func (c *Connector) Restore(eps []*Endpoint) (kept, gone []*Endpoint) {
	for _, e := range eps {
		if !Connected(e) {
			if err := removeResolvConf(e); err != nil {
				c.log.Warn("a file of an endpoint that is gone stays", "endpoint", e.Key(), "error", err)
			}
			gone = append(gone, e)
			continue
		}
		for _, ip := range e.IPs {
			if err := c.reserve(ip); err != nil {
				c.log.Warn("endpoint keeps an address that the agent would not give", "endpoint", e.Key(), "address", ip, "error", err)
			}
		}
		e.State = Regenerating
		c.nextID = max(c.nextID, e.ID)
		kept = append(kept, e)
	}
	return kept, gone
}

// GoOnFrom has the numbers of endpoints go on behind the one that was given out last, by
// whatever agent; 0: that is not known.
func (c *Connector) GoOnFrom(last uint16) {
	if last != 0 {
		c.nextID = last
	}
}

// RemoveOrphans takes away interfaces that an agent made and did not live to
// remember. The gate on them knows no endpoint: nothing passed.
func (c *Connector) RemoveOrphans(known []*Endpoint) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs error
	for _, l := range links {
		name := l.Attrs().Name
		if !IsHostSide(l) || slices.ContainsFunc(known, func(e *Endpoint) bool { return e.Interface == name }) {
			continue
		}
		c.log.Info("removing an interface that belongs to no endpoint", "interface", name)
		if err := netlink.LinkDel(l); err != nil {
			errs = errors.Join(errs, fmt.Errorf("delete interface %s: %w", name, err))
		}
	}
	return errs
}

// Attach puts this agent's programs in place of the ones before, on every endpoint.
func (c *Connector) Attach() error {
	var errs error
	for _, e := range c.engine.Endpoints() {
		if err := c.gate.AttachWorkload(e.Ifindex); err != nil && Connected(e) { // else Sweep sees to it
			errs = errors.Join(errs, fmt.Errorf("endpoint %s: %w", e.Key(), err))
		}
	}
	return errs
}

// Sweep removes endpoints whose namespace is gone.
func (c *Connector) Sweep(ctx context.Context) error {
	c.mu.Lock() // nobody adds another of the same name meanwhile
	defer c.mu.Unlock()
	var errs error
	for _, e := range c.engine.Endpoints() {
		if Connected(e) {
			continue
		}
		c.log.Info("the endpoint's network namespace is gone", "endpoint", e.Key())
		errs = errors.Join(errs, c.remove(ctx, e.Key()))
	}
	return errs
}
