package proxy

import (
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// checked is what all requests under way were judged by.
type checked struct {
	snapshot *snapshot
	revision uint32
}

// lasting is the session if its requests may last; nil: they do not.
func (c *conn) lasting() parsers.Rechecker {
	if r, ok := c.session.(parsers.Rechecker); ok && !c.passed {
		return r
	}
	return nil
}

// recheckRequests judges the requests under way again, with mu held, and ends those
// that are denied now. If the connection itself is, all of them are.
func (c *conn) recheckRequests(r parsers.Rechecker) {
	reason := c.lookAgain()
	switch {
	case reason != "" && c.session.Phase() == parsers.Idle:
		return // its next request is told
	case reason != "":
		c.forbid(nil, policy.Decision{Reason: reason}, policy.Ingress)
		c.kill(true)
		return
	}
	c.judgedBy = c.p.snapshot.Load()
	now := checked{c.judgedBy, c.revision}
	if now == c.checked {
		return // the datapath has not judged the connection yet
	}
	c.checked = now
	steps := r.Recheck(func(id uint64, request policy.Request) bool {
		decision, direction := c.judge(request)
		if _, ok := request.(*policy.HTTPRequest); ok && decision.Verdict != policy.Allow {
			c.forbid(request, decision, direction)
		}
		return decision.Verdict == policy.Allow
	})
	var flush [2]bool
	for i := range steps {
		to := steps[i].To
		flush[to] = c.ends[to].out.copyIn(steps[i].Data) || flush[to]
	}
	if flush != [2]bool{} {
		go c.flush(flush) // it may have to wait for who does not read
	}
}

// forbid records that what is under way is denied now: a request, or nil, all of it.
func (c *conn) forbid(r policy.Request, decision policy.Decision, direction policy.Direction) {
	c.p.denied.Add(1)
	b := appendEnds(nil, c.source, c.destination, c.known.SourceIdentity, c.known.DestinationIdentity)
	switch r := r.(type) {
	case *policy.HTTPRequest:
		b, c.scratch = appendHTTP(b, c.scratch, r, c.site(), c.p.config.Limits.URL)
	case *policy.TLSRequest:
		b = appendHello(b, r)
	}
	b = appendDecision(b, &decision, direction)
	c.p.ring.add(appendVerdict(b, time.Now(), observe.Dropped, observe.ReasonPolicyDenied))
}
