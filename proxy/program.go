package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
)

const (
	// A transfer is spliced once a read filled the buffer and this much is missing.
	spliceFrom = 128 << 10
	// spliceLeast is how much a splice must have moved for the next to be one too.
	spliceLeast = 8 << 10
)

// run carries out the program of s, whose turn at the peer's output has come if
// anything goes there. It says whether input was consumed, and whether more than
// had been fed: then the session is fed again even with nothing, to know that
// those bytes have passed.
func (c *conn) run(s parsers.Side) (consumed, past bool) {
	e := &c.ends[s]
	for i := range e.ops {
		o := &e.ops[i]
		switch o.kind {
		case parsers.Send:
			e.slices = append(e.slices, e.copied[o.from:o.to])
			continue
		case parsers.CloseWrite:
			c.send(s)
			c.shutdown(s.Peer())
			continue
		}
		consumed = true
		k := int(min(o.n, int64(e.w-e.r)))
		if o.kind == parsers.Forward && k > 0 {
			e.slices = append(e.slices, e.buf[e.r:e.r+k])
		}
		e.r += k
		rest := o.n - int64(k)
		if o.n == parsers.Unbounded {
			rest = parsers.Unbounded
			e.tunnelled += int64(k)
		}
		if rest == 0 {
			continue
		}
		past = true
		c.send(s)
		if !c.transfer(s, o.kind, rest) {
			c.truncated(s)
			break
		}
	}
	c.send(s)
	if cap(e.copied) > bufferSize {
		e.copied = nil
	}
	return consumed, past
}

// send writes what run has gathered for the peer of s, but for what was sent before.
func (c *conn) send(s parsers.Side) {
	e := &c.ends[s]
	if len(e.slices) == 0 {
		return
	}
	if !e.lame && (s == parsers.Server || c.reachServer()) {
		rest := epoll.Skip(e.slices, e.skip)
		e.skip = 0
		e.lame = c.ends[s.Peer()].out.failed || !c.writeAll(s.Peer(), rest)
	}
	e.forgetSlices()
}

func (e *end) forgetSlices() {
	clear(e.slices)
	e.slices = e.slices[:0]
}

// transfer moves or drops n bytes of s that are yet to be read. False: they did
// not all come, or could not be written.
func (c *conn) transfer(s parsers.Side, kind parsers.Op, n int64) bool {
	e := &c.ends[s]
	for n > 0 && !e.lame {
		if c.straight() {
			moved, err := c.splice(s, n)
			n = e.left(n, moved)
			if err != nil {
				unbounded := n == parsers.Unbounded
				return c.readFailed(s, err) && unbounded
			}
			if moved > 0 {
				continue
			}
		}
		m, err := c.read(s) // the input is empty here, so all of the buffer is used
		k := int(min(n, int64(m)))
		if kind == parsers.Forward && k > 0 {
			e.slices = append(e.slices, e.buf[:k])
			c.send(s)
		}
		e.r = k
		n = e.left(n, int64(k))
		if err == nil && kind == parsers.Forward && m == bufferSize && n >= spliceFrom && !e.lame && c.ending == nil {
			var moved int64
			moved, err = c.splice(s, n)
			n = e.left(n, moved)
		}
		if err != nil {
			unbounded := n == parsers.Unbounded
			return c.readFailed(s, err) && unbounded
		}
	}
	return !e.lame
}

// straight: what comes will not be read, so it never gets into this process.
func (c *conn) straight() bool { return c.ending == nil && c.speaks == policy.ProtocolTLS }

// left is how many of n bytes are still to be moved.
func (e *end) left(n, moved int64) int64 {
	if n == parsers.Unbounded {
		e.tunnelled += moved
		return n
	}
	return n - moved
}

// splice moves up to n bytes from s to its peer inside the kernel, as long as much of
// it comes at once.
func (c *conn) splice(s parsers.Side, n int64) (moved int64, err error) {
	e := &c.ends[s]
	e.release() // nothing is in it
	for k := int64(spliceLeast); moved < n && k >= spliceLeast && err == nil; {
		k, err = e.sock.Splice(c.ends[s.Peer()].sock, n-moved, n != parsers.Unbounded)
		moved += k
		c.activity.Add(1)
	}
	if errors.Is(err, epoll.ErrPipe) {
		return moved, nil // copied instead
	}
	var failed *epoll.WriteError
	if errors.As(err, &failed) {
		e.lame = !c.wrote(s.Peer(), failed)
		return moved, nil
	}
	return moved, err
}

// truncated deals with a body that ended early. What comes behind it would be
// taken for its rest, so nothing does, and the connection ends.
func (c *conn) truncated(s parsers.Side) {
	if c.ends[s].lame {
		return // not cut short by s: its peer takes no more
	}
	c.mu.Lock()
	if c.dead {
		c.mu.Unlock()
		return
	}
	c.cutShort(s)
	out := &c.ends[s.Peer()].out
	for i, p := range out.queue {
		out.pending -= len(p.data)
		out.queue[i].data = nil
	}
	flush := c.closeBoth()
	c.mu.Unlock()
	c.flush(flush)
}

// reachServer dials the server unless that was done. False: it cannot be reached,
// the client was told, and the connection ends.
func (c *conn) reachServer() bool {
	e := &c.ends[parsers.Server]
	if e.sock != nil {
		return true
	}
	to := c.takeServer()
	if to.err != nil {
		c.unreachable(to.err)
		return false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead {
		to.sock.Close()
		return false
	}
	c.attach(parsers.Server, to.sock, to.local, c.destination)
	e.tls = to.tls
	c.pumps++
	if to.tls != nil {
		go c.pump(parsers.Server, stage{})
		return true
	}
	c.ends[parsers.Server].sock.Park()
	return true
}

// dial connects as the client, from its address and, if it is free, its port.
func (c *conn) dial() (sock *epoll.Socket, local netip.AddrPort, err error) {
	local = c.source
	c.mu.Lock()
	host := c.known.DestinationIdentity == policy.IdentityHost
	c.mu.Unlock()
	if host {
		// Server and proxy share a stack, in which the client's connection to us has
		// the same addresses and ports as ours to the server would.
		local = netip.AddrPortFrom(local.Addr(), 0)
	}
	fd, err := c.p.config.Dial(local, c.destination)
	if err != nil && c.p.config.IsPortTaken(err) {
		local = netip.AddrPortFrom(c.source.Addr(), 0)
		fd, err = c.p.config.Dial(local, c.destination)
	}
	if err != nil {
		return nil, local, fmt.Errorf("connect to server: %w", err)
	}
	sock = c.socket(parsers.Server, fd)
	if err = sock.Connected(c.p.config.Limits.Dial); err == nil && local.Port() == 0 {
		err = sock.Control(func(fd int) error { local, err = epoll.Local(fd); return err })
	}
	if err != nil {
		sock.Close()
		return nil, local, fmt.Errorf("connect to server %s: %w", c.destination, err)
	}
	return sock, local, nil
}

// unreachable tells the client that there is no server and ends the connection.
func (c *conn) unreachable(err error) { c.flush(c.giveUp(err)) }

// giveUp queues what unreachable says, and says which outputs are to be flushed.
func (c *conn) giveUp(err error) (flush [2]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if answer := c.noServer(err); !c.closing && len(answer) > 0 {
		flush[parsers.Client] = c.ends[parsers.Client].out.push(piece{data: answer})
	}
	for x, f := range c.closeBoth() {
		flush[x] = flush[x] || f
	}
	c.ends[parsers.Client].lame = true
	return flush
}

// drained waits, briefly, until the other end has taken what was written.
func drained(sock *epoll.Socket) {
	for range 50 {
		queued := 0
		err := sock.Control(func(fd int) (err error) { queued, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ); return err })
		if err != nil || queued == 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}
