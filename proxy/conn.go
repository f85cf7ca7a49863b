package proxy

import (
	"crypto/tls"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
	"github.com/headgate/headgate/redirect"
)

// conn is one proxied connection: a session, and for each side a socket, a pump
// that reads it, and the queue of what is written to it. A pump that waits for
// input is parked in the event loop, and is a goroutine only while it does what
// may have to wait (see direct.go).
//
// mu guards the session and all that has no owner. A pump owns its end's input
// and program; whoever has the turn of an output owns writing to that socket.
// Nothing blocks while it holds mu.
type conn struct {
	p                   *process
	loop                *epoll.Loop
	source, destination netip.AddrPort

	// Read by the janitor without mu.
	activity atomic.Uint32 // changes with every read and write
	requests atomic.Uint32 // judged so far
	phase    atomic.Uint32 // parsers.Phase
	tunnel   atomic.Bool   // what the client sends is no longer parsed
	half     atomic.Bool   // one side has ended
	deadline atomic.Int64  // Unix ns after which the connection is dropped; 0 none
	watch    watch         // the janitor's own

	mu      sync.Mutex
	cond    sync.Cond // anything below changed
	session parsers.Session
	ends    [2]end
	closing bool     // nothing is fed any more: what is queued is flushed, then it ends
	dead    bool     // sockets are closed
	pumps   int      // running or parked
	ahead   *reached // the server, before it was needed; nil: it was not
	alpn    string   // what TLS agreed to carry; empty: nothing

	judgement
}

// end is one side of a connection.
type end struct {
	sock          *epoll.Socket // nil: the server was not dialled yet
	tls           *tls.Conn     // over sock; nil: plain text
	ragged        atomic.Bool   // it ended without saying so in TLS
	local, remote netip.AddrPort
	cookie        uint64 // of the socket
	out           output // what goes to this side

	// Owned by the side's pump.
	input
	due       bool // to be fed, even with nothing
	eof       bool // nothing more will be read
	dry       bool // all that came in TLS was read
	eofFed    bool // and the session knows
	lame      bool // what is read has nowhere to go: writing to the peer failed
	ops       []op // program: what is to be done with the input, and sent to the peer
	copied    []byte
	slices    [][]byte
	skip      int   // bytes of the program that were sent already
	tunnelled int64 // bytes that were moved without being looked at

	// Guarded by conn.mu.
	wants    bool        // input is left, or its end is known: feed again when the peer got on
	again    bool        // and it did
	parked   bool        // the pump waits for that
	held     bool        // the session does not want to be fed
	token    uint64      // of the hold
	released bool        // and now does again, even with nothing
	recalled bool        // it is fed, even lame, as the server did not begin: see abandon
	reminder *time.Timer // of a Wake
	steps    uint        // Feeds of this side that gave steps
	seen     uint        // of those of the peer, by the last Feed of this side
}

func newConn(p *process, fd int, source, destination netip.AddrPort) *conn {
	c := &conn{p: p, loop: p.loops.Pick(), source: source, destination: destination}
	c.cond.L = &c.mu
	c.attach(parsers.Client, c.socket(parsers.Client, fd), destination, source)
	return c
}

// socket takes the descriptor of a side into the loop.
func (c *conn) socket(s parsers.Side, fd int) *epoll.Socket {
	return c.loop.Add(fd, func() (woken bool) { return c.readable(s) })
}

// attach gives a side its socket.
func (c *conn) attach(s parsers.Side, sock *epoll.Socket, local, remote netip.AddrPort) {
	e := &c.ends[s]
	e.sock, e.local, e.remote = sock, local, remote
	if c.p.config.TimeWaits != nil {
		_ = sock.Control(func(fd int) error { e.cookie = redirect.Cookie(fd); return nil })
	}
	e.buffers = c.p.buffers
}

// pump reads one side until the connection ends, or until it is parked: then the
// loop goes on with it.
func (c *conn) pump(s parsers.Side, at stage) {
	parked := false
	defer func() {
		if !parked {
			c.exit(s)
		}
	}()
	defer c.guard(sentBy(s))
	if at.err != nil && !c.readFailed(s, at.err) {
		return
	}
	for alive := c.advance(s, at); alive; alive = alive && c.advance(s, stage{}) {
		alive, parked = c.await(s)
	}
}

// exit ends a pump. The last one out cleans up.
func (c *conn) exit(s parsers.Side) {
	c.abort(false) // a pump ends only with its connection
	c.ends[s].release()
	c.mu.Lock()
	c.pumps--
	last := c.pumps == 0
	if last {
		c.reportTunnel()
		if s, ok := c.session.(interface{ Close() }); ok {
			s.Close()
		}
	}
	c.mu.Unlock()
	if last {
		c.leaveServer()
		c.p.forget(c)
	}
}

// abort ends the connection now; with reset, both sides see a RST.
func (c *conn) abort(reset bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kill(reset)
}

// kill is abort for who holds mu.
func (c *conn) kill(reset bool) {
	if c.dead {
		return
	}
	c.dead = true
	for i := range c.ends {
		e := &c.ends[i]
		if e.sock == nil {
			continue
		}
		c.unpark(parsers.Side(i))
		if reset {
			e.sock.Reset()
			continue
		}
		c.release(e)
	}
	c.cond.Broadcast()
}

// ended is called when an output was shut, with mu held: once both are, the
// connection is over, but for what the client may still be sending. Closing the
// socket under that would reset it, and could destroy the last answer.
func (c *conn) ended() {
	client, server := &c.ends[parsers.Client], &c.ends[parsers.Server]
	if c.dead || !client.out.shut || !server.out.shut && !server.out.failed {
		return
	}
	if client.out.heardEnd {
		c.kill(false)
		return
	}
	c.closing = true
	c.expire(c.p.config.Limits.Linger)
	if server.sock != nil {
		c.release(server)
	}
	c.cond.Broadcast()
}

// expire drops the connection after d, unless it is to be dropped earlier.
func (c *conn) expire(d time.Duration) {
	c.deadline.CompareAndSwap(0, time.Now().Add(d).UnixNano())
}

// closeBoth ends both outputs after what is queued for them, with mu held. It
// says which outputs the caller must flush.
func (c *conn) closeBoth() (flush [2]bool) {
	c.closing = true
	for _, x := range [2]parsers.Side{parsers.Client, parsers.Server} {
		flush[x] = c.ends[x].out.push(piece{fin: true})
	}
	c.cond.Broadcast()
	return flush
}

func (c *conn) flush(which [2]bool) {
	for _, x := range [2]parsers.Side{parsers.Client, parsers.Server} {
		if which[x] {
			c.leave(x)
		}
	}
}

// judgement is what a connection may do, guarded by conn.mu.
type judgement struct {
	revision  uint32 // that the datapath judged it under, when it was last looked up
	known     Connection
	exchanges []exchange          // requests without an answer yet
	last      uint64              // request
	condemned bool                // the connection itself is denied now
	condemn   bool                // and the client was told
	upgrade   *policy.HTTPRequest // the last that asked for a tunnel
	upgradeID uint64
	opened    bool // and it was given
	passed    bool // the connection goes on unread
	judgedBy  *snapshot
	looked    look // when it was last judged again
	lookedAt  time.Time
	probing   bool               // the client's stack was asked to say something
	hurried   time.Time          // when,
	hurriedTo uint32             // and for which revision
	checked   checked            // what its requests under way were judged by
	speaks    policy.Protocol    // what the session parses
	protocol  string             // "HTTP/1.1", for records
	ending    *ends              // of TLS; nil: both sides speak plain text
	hello     *policy.TLSRequest // that was judged and allowed; nil: no rule is about it
	scratch   []byte
}

// exchange is a request that was judged and not answered.
type exchange struct {
	id      uint64
	at      time.Time
	common  []byte // encoded, what its two records share
	decided []byte // encoded, who decided
}
