package proxy

import (
	"slices"

	"github.com/headgate/headgate/parsers"
)

// output is the queue of what goes to one side. It is strictly first in, first
// out: its elements are placed while the session's mutex is held, in the order
// of the session's steps. The peer's pump writes its bytes itself, from its own
// buffer, when its turn comes; so at most one turn is in the queue. What the
// side's own pump has to say (a denial) is copied, and written by whoever is in
// the way.
type output struct {
	busy    bool // somebody has the turn
	granted bool // the peer's pump, which waited, has it now
	queue   []piece
	pending int  // bytes in the queue
	shut    bool // a FIN was sent, or would have been
	failed  bool // a write failed: what comes later is dropped. Set in turn, with conn.mu held
	// heardEnd: the side itself has closed its half, so nothing that it sends can
	// be cut off by closing the socket.
	heardEnd bool
}

// piece is an element of the queue: bytes, an end, or somebody's turn.
type piece struct {
	data []byte
	fin  bool
	turn bool
}

// push appends with conn.mu held. If it returns true, nobody is writing and the
// caller must call leave without the mutex.
func (o *output) push(p piece) bool {
	o.queue = append(o.queue, p)
	o.pending += len(p.data)
	if o.busy {
		return false
	}
	o.busy = true
	return true
}

// copyIn appends a copy of b, to what is queued already where that is bytes too.
func (o *output) copyIn(b []byte) bool {
	if n := len(o.queue); n > 0 {
		if last := &o.queue[n-1]; len(last.data) > 0 && len(last.data)+len(b) <= bufferSize {
			last.data = append(last.data, b...)
			o.pending += len(b)
			return false // if something is queued, somebody is writing
		}
	}
	return o.push(piece{data: slices.Clone(b)})
}

// enter asks for the turn, with conn.mu held.
func (o *output) enter() {
	if !o.busy {
		o.busy, o.granted = true, true
		return
	}
	o.queue = append(o.queue, piece{turn: true})
}

// waitTurn waits for the turn that was asked for. False: the connection died.
func (c *conn) waitTurn(x parsers.Side) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.ends[x].out
	for !o.granted && !c.dead {
		c.cond.Wait()
	}
	o.granted = false
	return !c.dead
}

// leave ends the turn at the output to x, after writing what queued up behind it,
// up to the next who waits for a turn.
func (c *conn) leave(x parsers.Side) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.ends[x].out
	for len(o.queue) > 0 && !c.dead {
		next := o.queue[0]
		o.queue[0] = piece{}
		o.queue = o.queue[1:]
		if next.turn {
			o.granted = true
			c.cond.Broadcast()
			return
		}
		c.mu.Unlock()
		if len(next.data) > 0 {
			c.write(x, next.data)
		}
		if next.fin {
			c.shutdown(x)
		}
		c.mu.Lock()
		o.pending -= len(next.data)
		c.cond.Broadcast()
	}
	o.queue = nil
	o.busy = false
}

// write writes to x, for who has its turn. False: it failed now or earlier.
func (c *conn) write(x parsers.Side, b []byte) bool {
	e := &c.ends[x]
	if e.out.failed || e.sock == nil {
		return false
	}
	return c.writeAll(x, [][]byte{b})
}

func (c *conn) writeAll(x parsers.Side, slices [][]byte) bool {
	e := &c.ends[x]
	if e.tls != nil {
		return c.wrote(x, c.seal(e, slices))
	}
	err := e.sock.WriteAll(slices)
	c.activity.Add(1)
	return c.wrote(x, err)
}

// wrote notes how a write to x went. A server that takes no more may have
// answered before it went, so it is read to its end; a client that takes no more
// is gone.
func (c *conn) wrote(x parsers.Side, err error) bool {
	if err == nil {
		return true
	}
	c.half.Store(true)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ends[x].out.failed = true
	switch {
	case x == parsers.Client:
		c.kill(true)
	case c.ends[x].parked:
		c.poke(x)
	}
	return false
}

// shutdown sends a FIN to x, for who has its turn.
func (c *conn) shutdown(x parsers.Side) {
	e := &c.ends[x]
	c.half.Store(true)
	if e.sock != nil && !e.out.shut {
		e.endStream(&c.ends[x.Peer()])
		_ = e.sock.CloseWrite() // if it fails the reader of that side learns why
	}
	c.mu.Lock()
	e.out.shut = true
	var flush [2]bool
	if e.sock == nil && !c.closing {
		// The client ended and no server was needed: nobody will answer.
		flush = c.closeBoth()
	}
	c.ended()
	c.mu.Unlock()
	// The turn at x is the caller's, so only the other output can be ours to flush.
	c.flush(flush)
}
