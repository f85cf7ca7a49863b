package proxy

import (
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/headgate/headgate/parsers"
)

// op is one instruction of a pump's program.
type op struct {
	kind     parsers.Op
	n        int64 // Forward, Discard
	from, to int   // Send: in end.copied
}

// stage is where a pump goes on.
type stage struct {
	err error // of reading
	fed
}

// fed is what the session's answer to some input asks for.
type fed struct {
	ok     bool // there is a program
	toPeer bool // and it has asked for a turn at the peer's output
	flush  bool // what was queued for the side itself must be written
}

// advance feeds the session with what was read of s and carries out what it
// says, until there is nothing to feed. False: the connection is over.
func (c *conn) advance(s parsers.Side, at stage) bool {
	e := &c.ends[s]
	past := e.due
	for e.due = false; ; {
		f := at.fed
		if at = (stage{}); !f.ok {
			if e.r == e.w && !past && (!e.eof || e.eofFed && !e.again) {
				return true
			}
			f = c.ask(s)
		}
		if !f.ok {
			return true // await knows why
		}
		if f.flush {
			c.leave(s)
		}
		if f.toPeer {
			if !c.waitTurn(s.Peer()) {
				return false
			}
		}
		var consumed bool
		consumed, past = c.run(s)
		if f.toPeer {
			c.leave(s.Peer())
		}
		if e.lame || !consumed && (!e.eof || e.eofFed) {
			return true
		}
	}
}

// ask is feed for who does not hold mu, which a session that fails leaves free.
func (c *conn) ask(s parsers.Side) fed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.feed(s)
}

// feed gives the session what was read and makes the program of the steps it
// answers with. It is called with mu held.
func (c *conn) feed(s parsers.Side) (f fed) {
	e := &c.ends[s]
	if c.dead || c.closing || e.held {
		return fed{}
	}
	e.wants, e.again, e.eofFed = false, false, e.eof
	steps, err := c.session.Feed(s, e.unread(), e.eof)
	switch {
	case !errors.Is(err, parsers.ErrNoServer):
	case s == parsers.Server:
		e.seen = c.ends[parsers.Client].steps
		c.recall()
		return fed{}
	default:
		steps = []parsers.Step{{Op: parsers.Send, To: s, Data: c.noServer(err)}}
	}
	if err != nil || c.condemn {
		c.closing = true
	}
	f.ok = true
	f.toPeer, f.flush = c.plan(s, steps)
	c.phase.Store(uint32(c.session.Phase()))
	peer := &c.ends[s.Peer()]
	e.seen = peer.steps
	if len(steps) > 0 {
		e.steps++
		if peer.wants {
			c.poke(s.Peer())
		}
	}
	return f
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
		case parsers.Wake:
			c.remind(s, st)
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
func (c *conn) poke(s parsers.Side) {
	c.ends[s].again = true
	c.cond.Broadcast()
	c.unpark(s)
}

// unpark makes the pump of s a goroutine again if it is parked.
func (c *conn) unpark(s parsers.Side) {
	if sock := c.ends[s].sock; sock != nil && sock.Unpark() {
		go c.pump(s, stage{})
	}
}

// await waits until s has something to feed, or parks it to wait for input: then
// the pump is the loop's. Not alive: the connection is over.
func (c *conn) await(s parsers.Side) (alive, parked bool) {
	e := &c.ends[s]
	c.mu.Lock()
	for !c.dead && !c.closing && (e.out.pending > c.p.config.Limits.Pending || e.held || e.lame && !e.recalled) {
		c.cond.Wait()
	}
	switch {
	case c.dead:
		c.mu.Unlock()
		return false, false
	case c.closing:
		c.mu.Unlock()
		return c.drain(s), false
	case e.released:
		e.released, e.due = false, true
		c.mu.Unlock()
		return true, false
	case e.eof:
		c.rest(s)
		return true, false
	}
	if e.wants = e.r < e.w; e.wants && e.seen != c.ends[s.Peer()].steps {
		c.mu.Unlock() // the peer got on since the session was last asked
		return true, false
	}
	if e.tls != nil && !e.dry {
		c.mu.Unlock()
		return c.dryTLS(s)
	}
	err := func() error {
		defer c.mu.Unlock() // the session is asked how much it may leave
		return c.park(s)
	}()
	if err != nil {
		return c.readFailed(s, err), false
	}
	return false, true
}

// park leaves it to the loop to wait for input, with mu held.
func (c *conn) park(s parsers.Side) error {
	e := &c.ends[s]
	if err := e.room(c.inputLimit(s)); err != nil {
		return err
	}
	if e.r == e.w {
		e.release()
	}
	e.sock.Park()
	return nil
}

// rest waits, after the end of s, until the peer got on. It is called with mu
// held and returns without. If neither side has anything to say any more, that
// is the end, as it is if s takes no more either: a write may have been told of its
// reset, and the reader only hears of an end.
func (c *conn) rest(s parsers.Side) {
	e, peer := &c.ends[s], &c.ends[s.Peer()]
	if e.seen != peer.steps { // the peer got on since the session was last asked, and woke nobody
		e.again = true
		c.mu.Unlock()
		return
	}
	e.wants, e.parked = true, true
	if peer.sock == nil || e.out.failed && !peer.recalled || peer.parked && !peer.again && !e.again {
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
	case errors.Is(err, errInput):
		c.mu.Lock()
		c.malformed(c.last+1, err)
		flush := c.closeBoth()
		c.mu.Unlock()
		c.flush(flush)
		return true
	case errors.Is(err, net.ErrClosed) && c.isClosing():
		return true // ended closed the socket; a reset would destroy the last answer
	}
	if alert := (*net.OpError)(nil); e.tls != nil && errors.As(err, &alert) { // a certificate that is not taken is refused late
		c.mu.Lock()
		c.malformed(c.last, fmt.Errorf("the %s ended TLS: %w", s, err))
		c.mu.Unlock()
	}
	if s == parsers.Server && c.abandon() {
		c.mu.Lock()
		e.eof, e.out.heardEnd = true, true
		c.mu.Unlock()
		return true
	}
	if s == parsers.Server {
		drained(c.ends[parsers.Client].sock) // a reset would overtake the answer
	}
	c.abort(true)
	return false
}

func (c *conn) isClosing() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closing
}

// drain is what a pump does while the connection closes: it drops what the
// client still sends, so that its last answer is not reset away.
func (c *conn) drain(s parsers.Side) bool {
	e := &c.ends[s]
	if s == parsers.Client && !e.eof {
		e.r, e.w = 0, 0
		_, err := c.read(s)
		switch {
		case err == nil:
			e.r = e.w
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
