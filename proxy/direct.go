package proxy

import (
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
)

// readable is called by the event loop when a parked side can be read. Most input is
// carried at once: a head or a small message is read, judged, and written without
// waiting for anything, and the side is parked again. What would have to wait, and all
// that is out of the ordinary, is left to a goroutine, at the stage that was reached.
func (c *conn) readable(s parsers.Side) (left bool) {
	if e := &c.ends[s]; e.tls != nil {
		e.dry = false
		go c.pump(s, stage{})
		return true
	}
	at, parked := stage{}, false
	defer func() {
		if left = !parked; left {
			go c.pump(s, at)
		}
	}()
	defer c.guard(sentBy(s))
	at, parked = c.direct(s)
	return !parked
}

// sentBy names what is done, for whoever reads of its failure. Nothing is put together
// here: it is asked for at each message.
func sentBy(s parsers.Side) string {
	if s == parsers.Client {
		return "what the client sent"
	}
	return "what the server sent"
}

// direct carries what there is to read of s as far as that takes no waiting. It holds
// mu all the time, so nobody is between its steps; nothing in it blocks, not even on mu,
// under which a goroutine may be feeding much: then another waits, and parks the side
// again, and the loop is told again. To feed more than a common buffer holds, and to
// grow one, is left to a goroutine too: other connections wait for the loop.
func (c *conn) direct(s parsers.Side) (at stage, parked bool) {
	if !c.mu.TryLock() {
		return stage{}, false
	}
	defer c.mu.Unlock()
	e := &c.ends[s]
	if c.dead || c.closing {
		return stage{}, false
	}
	switch _, err := e.fill(); {
	case err == unix.EAGAIN && e.wants && e.seen != c.ends[s.Peer()].steps:
		return stage{}, false // the peer got on since the session was last asked
	case err == unix.EAGAIN:
		e.sock.Park()
		return stage{}, true
	case err != nil:
		return stage{err: err}, false
	}
	c.activity.Add(1)
	if e.pooled == nil {
		return stage{}, false
	}
	for before := e.w + 1; e.r < e.w && e.w-e.r < before; {
		before = e.w - e.r
		at.fed = c.feed(s)
		if !at.ok || at.flush || c.closing || !c.carry(s, at.toPeer) {
			return at, false
		}
	}
	full := e.r == 0 && e.w == len(e.buf)
	if e.held || e.released || full || e.out.pending > c.p.config.Limits.Pending {
		return stage{}, false
	}
	e.wants = e.r < e.w
	if err := c.park(s); err != nil {
		return stage{err: err}, false
	}
	return stage{}, true
}

// carry carries out the program of s if all that it asks for is there, and the peer
// takes all of it now. False: nothing was done, but e.skip bytes may have been sent.
func (c *conn) carry(s parsers.Side, toPeer bool) bool {
	e, peer := &c.ends[s], &c.ends[s.Peer()]
	if toPeer && (!peer.out.granted || peer.out.failed || peer.sock == nil || peer.tls != nil) || e.lame {
		return false
	}
	at, size := e.r, 0
	for i := range e.ops {
		o := &e.ops[i]
		var part []byte
		switch {
		case o.kind == parsers.Send:
			part = e.copied[o.from:o.to]
		case o.kind == parsers.CloseWrite || o.n > int64(e.w-at):
			e.forgetSlices()
			return false
		default:
			if o.kind == parsers.Forward {
				part = e.buf[at : at+int(o.n)]
			}
			at += int(o.n)
		}
		if len(part) > 0 {
			e.slices = append(e.slices, part)
			size += len(part)
		}
	}
	if size > 0 {
		n, err := peer.sock.TryWriteAll(e.slices)
		e.forgetSlices()
		if e.skip = n; err != nil || n < size {
			return false
		}
		e.skip = 0
	}
	e.r = at
	if toPeer { // mu was held all the time: nothing queued up behind
		peer.out.busy, peer.out.granted = false, false
	}
	if cap(e.copied) > bufferSize {
		e.copied = nil
	}
	return true
}
