package proxy

import (
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// recheckRequests judges the requests under way again, with mu held, and ends those
// that are denied now. If the connection itself is, all of them are.
func (c *conn) recheckRequests(r parsers.Rechecker) {
	if c.session.Phase() == parsers.Idle {
		return // its next request is judged by then
	}
	if reason := c.lookAgain(); reason != "" {
		c.forbid(nil, policy.Decision{Reason: reason}, policy.Ingress)
		c.kill(true)
		return
	}
	c.judgedBy = c.p.snapshot.Load()
	steps := r.Recheck(func(id uint64, request policy.Request) bool {
		decision, direction := c.judge(request)
		if decision.Verdict != policy.Allow {
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

// forbid records that what is under way is denied now.
func (c *conn) forbid(r policy.Request, decision policy.Decision, direction policy.Direction) {
	c.p.denied.Add(1)
	b := appendEnds(nil, c.source, c.destination, c.known.SourceIdentity, c.known.DestinationIdentity)
	if h, ok := r.(*policy.HTTPRequest); ok {
		b, c.scratch = appendHTTP(b, c.scratch, h, c.protocol, c.destination, c.p.config.Limits.URL)
	}
	b = appendDecision(b, &decision, direction)
	c.p.ring.add(appendVerdict(b, time.Now(), observe.Dropped, observe.ReasonPolicyDenied))
}
