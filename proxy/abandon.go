package proxy

import "github.com/headgate/headgate/parsers"

// A server that was reached and goes, or says nothing, before it has begun is like one
// that could not be reached: what the client has said is judged, answered and recorded
// (parsers.ErrNoServer). The client's pump owns that input, so it is the one that is
// called, whoever has noticed.

// abandon gives up a server that has not begun. False: it has, or nobody waits for it.
func (c *conn) abandon() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.session.(interface{ Abandon() bool })
	if !ok || c.dead || c.closing || !s.Abandon() {
		return false
	}
	c.recall()
	return true
}

// recall has the client's side fed, also if nothing of it is left, with mu held.
func (c *conn) recall() {
	e := &c.ends[parsers.Client]
	e.released, e.recalled = true, true
	c.poke(parsers.Client)
}
