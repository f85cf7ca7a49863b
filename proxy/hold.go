package proxy

import (
	"time"

	"github.com/headgate/headgate/parsers"
)

// hold keeps side s from being fed for a while, or until wake, with mu held.
func (c *conn) hold(s parsers.Side, step *parsers.Step) {
	if _, ok := c.session.(parsers.Holder); !ok {
		return // a session that cannot be told when would wait for ever
	}
	token := step.Token
	c.ends[s].held, c.ends[s].token = true, token
	time.AfterFunc(step.Wait, func() { c.wake(s, token) })
}

// wake ends a hold of side s, if it is still the one of the token.
func (c *conn) wake(s parsers.Side, token uint64) {
	defer c.guard("a wait")
	c.mu.Lock()
	defer c.mu.Unlock()
	session, ok := c.session.(parsers.Holder)
	if e := &c.ends[s]; c.dead || !ok || !e.held || e.token != token {
		return
	}
	session.Release(token)
	c.ends[s].held, c.ends[s].released = false, true
	c.cond.Broadcast()
}

// remind has side s fed again after a while, with mu held.
func (c *conn) remind(s parsers.Side, step *parsers.Step) {
	session, ok := c.session.(parsers.Holder)
	if !ok {
		return
	}
	e, token := &c.ends[s], step.Token
	if e.reminder != nil {
		e.reminder.Stop()
	}
	e.reminder = time.AfterFunc(step.Wait, func() {
		defer c.guard("a wait")
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.dead {
			return
		}
		session.Release(token)
		e.released = true
		c.cond.Broadcast()
		c.unpark(s)
	})
}

// inputLimit is how many bytes of side s may wait for the session, with mu held.
func (c *conn) inputLimit(s parsers.Side) int {
	if l, ok := c.session.(interface{ MaxInput(parsers.Side) int }); ok {
		return max(l.MaxInput(s), c.p.config.Limits.Input)
	}
	return c.p.config.Limits.Input
}
