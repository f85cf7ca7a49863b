package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/nameserver"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/kafka"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
	"github.com/headgate/headgate/proxy/fqdn"
)

// process is the state of the proxy process.
type process struct {
	config  Config
	log     *slog.Logger
	life    context.Context // ends when the process does
	started time.Time
	port    uint16

	snapshot atomic.Pointer[snapshot] // nil until the first Enforce
	telling  atomic.Uint64            // the round of what the datapath is told of answers; 0: nothing
	rounds   rounds
	ring     *ring
	buffers  *buffers
	loops    *epoll.Loops
	brokers  kafka.Directory
	names    *nameserver.Server
	learnt   *fqdn.Store // nil: nothing is learnt of names
	dns      *dnsServer  // nil: no questions by UDP

	asked                                          dnsCounts
	accepted, requests, denied, malformed, refused atomic.Uint64

	draining  atomic.Bool
	drain     chan time.Duration // a drain was asked for, with its grace
	recheck   chan struct{}      // a new snapshot: tunnels are to be judged again
	recording atomic.Pointer[context.CancelFunc]

	mu        sync.Mutex
	conns     map[*conn]struct{}
	standing  map[*conn]struct{} // those of conns that carry what was judged once and goes on
	perSource map[netip.Addr]int
}

func newProcess(ctx context.Context, config Config) (*process, error) {
	loops, err := epoll.Start(runtime.GOMAXPROCS(0))
	if err != nil {
		return nil, err
	}
	return &process{
		config: config, log: config.Logger, life: ctx, started: time.Now(), loops: loops,
		ring: newRing(config.Limits.Records), buffers: newBuffers(config.Limits.Grown),
		names: &nameserver.Server{Logger: config.Logger},
		drain: make(chan time.Duration, 1), recheck: make(chan struct{}, 1),
		conns: map[*conn]struct{}{}, standing: map[*conn]struct{}{}, perSource: map[netip.Addr]int{},
	}, nil
}

// accept takes connections from one listener until it is closed.
func (p *process) accept(l *listener) error {
	pause := time.Duration(0)
	for {
		fd, source, err := l.sock.Accept()
		if err != nil {
			if p.life.Err() != nil || p.draining.Load() || errors.Is(err, net.ErrClosed) {
				return nil
			}
			if !passes(err) {
				return fmt.Errorf("accept connections: %w", err)
			}
			pause = min(max(2*pause, 5*time.Millisecond), 200*time.Millisecond)
			time.Sleep(pause)
			continue
		}
		pause = 0
		destination, err := epoll.Local(fd)
		if err != nil { // it is gone again
			_ = unix.Close(fd)
			continue
		}
		go p.serve(fd, source, destination)
	}
}

// passes reports whether an error of accept is about one connection, or about
// something that others may release.
func passes(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM, unix.ECONNABORTED, unix.EPROTO, unix.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// serve is the beginning of one connection.
func (p *process) serve(fd int, source, destination netip.AddrPort) {
	p.accepted.Add(1)
	c := newConn(p, fd, source, destination)
	defer c.guard("its admission")
	if reason, why := p.admit(c); reason != "" {
		p.refuse(c, reason, why)
		return
	}
	c.mu.Lock()
	c.pumps++
	c.mu.Unlock()
	if c.endTLS() {
		c.begin()
	}
	c.pump(parsers.Client, stage{})
}

// begin reaches for the server where it may be the one who speaks first.
func (c *conn) begin() {
	defer c.guard("its beginning")
	raw, pass := c.unread()
	if raw = raw || c.ending != nil && c.speaks == policy.ProtocolTLS; raw {
		c.tunnels()
	}
	if c.early(raw || pass) && !c.reachServer() {
		c.abort(true)
	}
}

// early says whether the server is reached, and read, before the client has said anything;
// first: it may be the one who speaks first.
func (c *conn) early(first bool) bool {
	switch {
	case c.ahead != nil: // it was asked what it speaks; if it ends, the client is to know
		return c.ahead.err == nil
	case c.speaks == policy.ProtocolHTTP && c.ending != nil && c.ending.server != nil:
		return false // what HTTP it is asked for the client tells
	}
	return first
}

// unread says whether no L7 rules apply, and whether what cannot be read passes.
func (c *conn) unread() (raw, pass bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pass, _ = c.passes()
	return c.known.Egress == 0 && c.known.Ingress == 0, pass
}

func addrPort(a net.Addr) netip.AddrPort {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := t.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// admit finds out what a new connection may do and makes its session. It says
// why the connection is refused; empty: it is not.
func (p *process) admit(c *conn) (string, observe.DropReason) {
	snapshot := p.snapshot.Load()
	if snapshot == nil {
		return "no policy is in force here yet", observe.ReasonNotReady
	}
	known, ok := p.config.Connections.Lookup(c.source, c.destination)
	if !ok {
		return "the datapath does not know the connection", observe.ReasonNoSocket
	}
	c.known, c.revision, c.judgedBy = known, known.Revision, snapshot
	if known.Denied {
		return "the connection is not allowed", observe.ReasonPolicyDenied
	}
	r := route{known.Egress, known.Ingress}
	if !snapshot.known(r) {
		return fmt.Sprintf("L7 sets %#x and %#x are not both in force here", uint32(r.egress), uint32(r.ingress)), observe.ReasonNoRoute
	}
	protocol, ok := r.protocol()
	if !ok {
		return fmt.Sprintf("rules of %s and of %s apply at once", r.egress.Protocol(), r.ingress.Protocol()), observe.ReasonNoRoute
	}
	c.speaks = protocol
	if c.ending = snapshot.ending(r); c.ending.failed() {
		return c.ending.err.Error(), observe.ReasonNoRoute
	}
	if protocol == policy.ProtocolNone {
		c.session = &opaque{}
	} else if c.session = p.config.NewSession(protocol, c); c.session == nil {
		return "nothing here understands " + protocol.String(), observe.ReasonNoRoute
	}
	if protocol == policy.ProtocolHTTP {
		c.protocol = "HTTP/1.1"
	}
	return p.count(c)
}

// count takes the connection among the open ones if there is room.
func (p *process) count(c *conn) (string, observe.DropReason) {
	p.mu.Lock()
	defer p.mu.Unlock()
	source := c.source.Addr()
	switch {
	case len(p.conns) >= p.config.Limits.Connections:
		return "too many connections", observe.ReasonConntrackFull
	case p.perSource[source] >= p.config.Limits.PerSource:
		return "too many connections from this address", observe.ReasonConntrackFull
	}
	p.conns[c] = struct{}{}
	p.perSource[source]++
	return "", observe.ReasonNone
}

// forget is called by the last goroutine of a connection.
func (p *process) forget(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
	delete(p.standing, c)
	source := c.source.Addr()
	if p.perSource[source]--; p.perSource[source] <= 0 {
		delete(p.perSource, source)
	}
}

func (p *process) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// refuse resets a connection that was not admitted, and reports it.
func (p *process) refuse(c *conn, reason string, why observe.DropReason) {
	p.refused.Add(1)
	c.abort(true)
	b := appendEnds(nil, c.source, c.destination, c.known.SourceIdentity, c.known.DestinationIdentity)
	b = appendVerdict(b, time.Now(), observe.Errored, why)
	p.ring.add(appendCleanText(b, fieldDetail, reason))
}

// opaque is the session of a connection without L7 rules, which was redirected
// before they were taken away.
type opaque struct{}

func (o *opaque) Feed(from parsers.Side, _ []byte, eof bool) ([]parsers.Step, error) {
	if eof {
		return []parsers.Step{{Op: parsers.CloseWrite, To: from.Peer()}}, nil
	}
	return []parsers.Step{{Op: parsers.Forward, N: parsers.Unbounded}}, nil
}

func (o *opaque) Phase() parsers.Phase { return parsers.Response }
