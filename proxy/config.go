package proxy

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/fqdn"
	"github.com/headgate/headgate/redirect"
)

// ProtocolVersion is that of the socket between agent and proxy.
const ProtocolVersion = 4

// File descriptors that the agent hands to the process.
const (
	DescriptorSocket   = 3  // listening unix socket of the API
	DescriptorTCPMap   = 4  // conntrack, established TCP
	DescriptorAnyMap   = 5  // conntrack, everything else
	DescriptorConfig   = 6  // the datapath's configuration, with its revision
	DescriptorNATMap   = 7  // who holds which port of the node
	DescriptorServices = 8  // translations of services
	DescriptorShares   = 9  // what workloads have of the room for connections
	DescriptorNames    = 10 // addresses that endpoints know by names
	DescriptorRules    = 11 // what rules say of these
	DescriptorKnown    = 12 // questions of the DNS that are allowed
	DescriptorTold     = 13 // what was told to endpoints
	DescriptorRounds   = 14 // since when
	DescriptorAsked    = 15 // questions that went on without the proxy
	DescriptorAnswered = 16 // and those whose answers did so too
	DescriptorEnds     = 17 // the endpoints of this node, to be read
	DescriptorSubjects = 18 // by what these are judged, to be read
	DescriptorState    = 19 // directory for what is to survive a restart

	// Behind all maps, of which there may be more: sockets to send datagrams by.
	DescriptorSender4 = 30
	DescriptorSender6 = 31
	// And the device by which datagrams go to endpoints of this node; it may be missing.
	DescriptorInjector = 32
)

// Connections says what the datapath knows of redirected connections. It is
// used from many goroutines at once.
type Connections interface {
	// Lookup finds a connection by its addresses as the client dialled.
	Lookup(source, destination netip.AddrPort) (Connection, bool)
	// Revision changes whenever an earlier Lookup may have become wrong. It is
	// called for every request and must be cheap.
	Revision() uint32
}

// Connection is what the datapath knows of one connection.
type Connection struct {
	SourceIdentity, DestinationIdentity policy.Identity
	Egress, Ingress                     redirect.SetNumber // zero: nothing to check
	Denied                              bool               // policy no longer allows it at all
	// Revision that the datapath judged it under. It lags behind Revision() until
	// the connection's next packet; as long as it does, every request asks again.
	Revision uint32
}

// Collector removes conntrack entries that have expired.
type Collector interface {
	Collect(ctx context.Context, now time.Time) (removed int, err error)
}

// Judge decides about requests by one L7 set. It is used from many goroutines.
type Judge interface {
	Decide(policy.Request) policy.Decision
}

// Config of the process. Connections and API are required.
type Config struct {
	Version string
	Layout  string // names of the map layouts this program was built for
	Logger  *slog.Logger

	API          net.Listener // unix socket, see InheritedListener
	Connections  Connections
	Collector    Collector    // optional
	TimeWaits    TimeWaits    // optional
	Names        *fqdn.Config // of what is learnt of names; nil: nothing is
	Datagrams    Datagrams    // nil: no questions by UDP are carried
	Shortcut     Shortcut     // nil: every question comes here
	ShortcutTurn Turn         // whose turn it is to record what took the shortcut; nil: always ours
	Senders      [2]int       // descriptors of redirect.OpenSenders
	Injector     *Injector    // nil: all datagrams go by Senders
	Learner      Learner      // nil: answers are released at once

	// Listen, Dial and IsPortTaken default to the transparent sockets of package
	// redirect.
	Listen func(ctx context.Context, addr netip.AddrPort) (net.Listener, error)
	// Dial only begins to connect; its socket never blocks.
	Dial        func(local, remote netip.AddrPort) (fd int, err error)
	IsPortTaken func(error) bool
	// Compile defaults to policy.CompileSet.
	Compile func(*policy.L7Set) (Judge, error)
	// NewSession defaults to the parsers of this project. Nil from it refuses the
	// connection.
	NewSession func(policy.Protocol, parsers.Hooks) parsers.Session

	// Addresses to listen on, with one free port for all; default 127.0.0.1 and ::1.
	Addresses []netip.Addr
	Limits    Limits
	DNS       DNSLimits
	// AllowRoot lets the process run as uid 0 and keep what it could do: for tests.
	AllowRoot bool
}

// Limits bound what strangers can make the process spend. Zero fields take the
// defaults.
type Limits struct {
	// Head is how long a request head may take to arrive. 30 s.
	Head time.Duration
	// Idle closes a connection on which nothing happens: between requests, while
	// an answer is awaited, in a tunnel. Long, because servers have time-outs of
	// their own, which are passed on. 1 h.
	Idle time.Duration
	// Stall closes a connection on which a body does not advance, or of which one
	// half is closed and the other silent. 5 min.
	Stall time.Duration
	// Dial is how long the server may take to accept. 5 s.
	Dial time.Duration
	// Linger is how long a client may go on sending after it was answered for the
	// last time, before it gets a reset that could destroy the answer. 2 s.
	Linger time.Duration
	// Grace is how long connections may go on after the process was told to end.
	// Idle ones are closed at once. 5 s.
	Grace time.Duration
	// Connections open at once, 50,000, and from one source address, 16,384.
	Connections, PerSource int
	// Input is how many bytes of a side may wait for the session to make sense of
	// them: the longest head. 256 KiB.
	Input int
	// Grown is how many bytes of messages that are not complete all sides together may
	// have waiting in buffers of more than 32 KiB; who wants more is closed. 512 MiB.
	Grown int64
	// Pending is how many bytes a session may have waiting for a client that does
	// not read, before that client is not read either. 64 KiB.
	Pending int
	// Records is the size of the buffer of records, in bytes. 16 MiB, about 64,000
	// records.
	Records int
	// URL is the longest URL recorded, longer ones are cut. 2 KiB.
	URL int
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Head:        cmp.Or(l.Head, 30*time.Second),
		Idle:        cmp.Or(l.Idle, time.Hour),
		Stall:       cmp.Or(l.Stall, 5*time.Minute),
		Dial:        cmp.Or(l.Dial, 5*time.Second),
		Linger:      cmp.Or(l.Linger, 2*time.Second),
		Grace:       cmp.Or(l.Grace, 5*time.Second),
		Connections: cmp.Or(l.Connections, 50_000),
		PerSource:   cmp.Or(l.PerSource, 16_384),
		Input:       cmp.Or(l.Input, 256<<10),
		Grown:       cmp.Or(l.Grown, 512<<20),
		Pending:     cmp.Or(l.Pending, 64<<10),
		Records:     cmp.Or(l.Records, 16<<20),
		URL:         cmp.Or(l.URL, 2<<10),
	}
}

func (c Config) withDefaults() Config {
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Listen == nil {
		c.Listen = redirect.ListenTransparent
	}
	if c.Dial == nil {
		c.Dial = redirect.DialTransparent
	}
	if c.IsPortTaken == nil {
		c.IsPortTaken = redirect.IsPortTaken
	}
	if c.Compile == nil {
		c.Compile = compile
	}
	if c.NewSession == nil {
		c.NewSession = newSession
	}
	if len(c.Addresses) == 0 {
		c.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	}
	c.Limits, c.DNS = c.Limits.withDefaults(), c.DNS.withDefaults()
	return c
}
