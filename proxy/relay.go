package proxy

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/headgate/headgate/parsers"
)

// op is one instruction of a pump's program.
type op struct {
	kind     parsers.Op
	n        int64 // Forward, Discard
	from, to int   // Send: in end.copied
}

// advance feeds the session with what was read of s and carries out what it
// says, until there is nothing to feed. False: the connection is over.
func (c *conn) advance(s parsers.Side) bool {
	e := &c.ends[s]
	past := e.due
	for e.due = false; ; {
		if e.r == e.w && !past && (!e.eof || e.eofFed && !e.again) {
			return true
		}
		toPeer, flush, ok := c.feed(s)
		if !ok {
			return true // await knows why
		}
		if flush {
			c.leave(s)
		}
		if toPeer {
			if !c.waitTurn(s.Peer()) {
				return false
			}
		}
		var consumed bool
		consumed, past = c.run(s)
		if toPeer {
			c.leave(s.Peer())
		}
		if e.lame || !consumed && (!e.eof || e.eofFed) {
			return true
		}
	}
}

// feed gives the session what was read and makes the program of the steps it
// answers with: toPeer says that a turn at the peer's output was asked for it,
// flush that the caller must write what was queued for s itself.
func (c *conn) feed(s parsers.Side) (toPeer, flush, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := &c.ends[s]
	if c.dead || c.closing || e.held {
		return false, false, false
	}
	e.wants, e.again, e.eofFed = false, false, e.eof
	steps, err := c.session.Feed(s, e.unread(), e.eof)
	if err != nil || c.condemn {
		c.closing = true
	}
	toPeer, flush = c.plan(s, steps)
	c.phase.Store(uint32(c.session.Phase()))
	peer := &c.ends[s.Peer()]
	e.seen = peer.steps
	if len(steps) > 0 {
		e.steps++
		if peer.wants {
			c.poke(peer)
		}
	}
	return toPeer, flush, true
}

// plan turns steps into the program of s and what is queued for s itself.
func (c *conn) plan(s parsers.Side, steps []parsers.Step) (toPeer, flush bool) {
	e := &c.ends[s]
	own := &e.out
	e.ops, e.copied = e.ops[:0], e.copied[:0]
	for i := range steps {
		st := &steps[i]
		switch st.Op {
		case parsers.Forward, parsers.Discard:
			if st.N <= 0 {
				continue
			}
			toPeer = toPeer || st.Op == parsers.Forward
			if s == parsers.Client && st.N == parsers.Unbounded && st.Op == parsers.Forward && !c.tunnel.Load() {
				c.tunnels()
			}
			e.ops = append(e.ops, op{kind: st.Op, n: st.N})
		case parsers.Send:
			if st.To == s {
				flush = own.copyIn(st.Data) || flush
				continue
			}
			from := len(e.copied)
			e.copied = append(e.copied, st.Data...)
			e.ops = append(e.ops, op{kind: parsers.Send, from: from, to: len(e.copied)})
			toPeer = true
		case parsers.CloseWrite:
			if st.To == s {
				flush = own.push(piece{fin: true}) || flush
				continue
			}
			e.ops = append(e.ops, op{kind: parsers.CloseWrite})
			toPeer = true
		case parsers.Hold:
			c.hold(s, st)
		case parsers.Close:
			c.closing = true
		}
	}
	if c.closing {
		flush = own.push(piece{fin: true}) || flush
		e.ops = append(e.ops, op{kind: parsers.CloseWrite})
		toPeer = true
		c.cond.Broadcast()
	}
	if toPeer {
		c.ends[s.Peer()].out.enter()
	}
	return toPeer, flush
}

// poke makes a pump that waits feed its session again, with mu held.
func (c *conn) poke(e *end) {
	e.again = true
	if e.eof {
		c.cond.Broadcast()
		return
	}
	e.armed = true
	_ = e.sock.SetReadDeadline(time.Unix(1, 0))
}

// await waits until s has something to feed. False: the connection is over.
func (c *conn) await(s parsers.Side) bool {
	e := &c.ends[s]
	c.mu.Lock()
	for !c.dead && !c.closing && (e.out.pending > c.p.config.Limits.Pending || e.held || e.lame) {
		c.cond.Wait()
	}
	switch {
	case c.dead:
		c.mu.Unlock()
		return false
	case c.closing:
		c.mu.Unlock()
		return c.drain(s)
	case e.released:
		e.released, e.due = false, true
		c.mu.Unlock()
		return true
	case e.eof:
		c.park(s)
		return true
	}
	if e.wants = e.r < e.w; e.wants && e.seen != c.ends[s.Peer()].steps {
		c.mu.Unlock() // the peer got on since the session was last asked
		return true
	}
	c.mu.Unlock()

	_, err := c.read(s)
	if err == nil {
		return true
	}
	return c.readFailed(s, err)
}

// park waits, after the end of s, until the peer got on. It is called with mu
// held and returns without. If neither side has anything to say any more, that
// is the end.
func (c *conn) park(s parsers.Side) {
	e, peer := &c.ends[s], &c.ends[s.Peer()]
	e.wants, e.parked = true, true
	if peer.sock == nil || peer.parked && !peer.again && !e.again {
		flush := c.closeBoth()
		c.mu.Unlock()
		c.flush(flush)
		return
	}
	for !c.dead && !c.closing && !e.again {
		c.cond.Wait()
	}
	e.parked = false
	c.mu.Unlock()
}

// readFailed deals with what read returned. True: the pump goes on.
func (c *conn) readFailed(s parsers.Side, err error) bool {
	e := &c.ends[s]
	switch {
	case errors.Is(err, io.EOF):
		c.mu.Lock()
		e.eof, e.out.heardEnd = true, true
		c.mu.Unlock()
		c.half.Store(true)
		return true
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.disarm(e)
		return true
	case errors.Is(err, errInput):
		c.mu.Lock()
		c.malformed(c.last+1, err)
		flush := c.closeBoth()
		c.mu.Unlock()
		c.flush(flush)
		return true
	}
	if s == parsers.Server {
		drained(c.ends[parsers.Client].raw) // a reset would overtake the answer
	}
	c.abort(true)
	return false
}

// disarm takes back the deadline that poke set.
func (c *conn) disarm(e *end) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e.armed {
		e.armed = false
		_ = e.sock.SetReadDeadline(time.Time{})
	}
}

// drain is what a pump does while the connection closes: it drops what the
// client still sends, so that its last answer is not reset away.
func (c *conn) drain(s parsers.Side) bool {
	e := &c.ends[s]
	if s == parsers.Client && !e.eof {
		e.r, e.w = 0, 0
		_, err := c.read(s)
		switch {
		case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
			e.r = e.w
			c.disarm(e)
			return true
		case !errors.Is(err, io.EOF):
			c.abort(true)
			return false
		}
		e.eof = true
	}
	e.release()
	c.mu.Lock()
	defer c.mu.Unlock()
	e.out.heardEnd = e.out.heardEnd || s == parsers.Client
	c.ended()
	for !c.dead {
		c.cond.Wait()
	}
	return false
}
