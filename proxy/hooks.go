package proxy

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// maxExchanges bounds the requests of one connection that wait for an answer and
// are remembered for its record.
const maxExchanges = 1024

// Request implements parsers.Hooks: it judges by the sets in force now. The
// session calls it from Feed, so mu is held, as for the other hooks.
func (c *conn) Request(id uint64, r policy.Request) policy.Decision {
	c.requests.Add(1)
	c.p.requests.Add(1)
	c.last = id
	decision, direction := c.judge(r)
	word, reason := observe.Forwarded, observe.ReasonNone
	shown := &decision
	if decision.Audit != nil {
		word, shown = observe.Audited, decision.Audit
	}
	if decision.Verdict != policy.Allow {
		decision.Verdict = policy.Deny
		c.p.denied.Add(1)
		word, reason = observe.Dropped, observe.ReasonPolicyDenied
		if decision.Rule != (policy.Ref{}) {
			reason = observe.ReasonPolicyDeny
		}
	}
	if decision.Verdict == policy.Allow {
		switch r := r.(type) {
		case *policy.HTTPRequest:
			c.rememberUpgrade(id, r)
		case *policy.TLSRequest:
			c.rememberHello(r)
		}
	}
	c.asked(id, r, word, reason, shown, direction)
	return decision
}

// asked records a request and remembers it for its answer.
func (c *conn) asked(id uint64, r policy.Request, word observe.Word, reason observe.DropReason, decision *policy.Decision, direction policy.Direction) {
	x := c.exchange(id)
	x.at = time.Now()
	x.common = appendEnds(x.common[:0], c.source, c.destination, c.known.SourceIdentity, c.known.DestinationIdentity)
	switch r := r.(type) {
	case *policy.HTTPRequest:
		x.common, c.scratch = appendHTTP(x.common, c.scratch, r, c.site(), c.p.config.Limits.URL)
	case *policy.KafkaRequest:
		x.common, c.scratch = appendKafka(x.common, c.scratch, r)
	case *policy.TLSRequest:
		x.common = appendHello(x.common, r)
	}
	x.decided = appendDecision(x.decided[:0], decision, direction)
	var verdict [32]byte
	c.p.ring.add(x.common, x.decided, appendVerdict(verdict[:0], x.at, word, reason))
}

// judge looks the connection up again if the datapath's policy changed since,
// and judges by the sets that then apply.
func (c *conn) judge(r policy.Request) (policy.Decision, policy.Direction) {
	if reason := c.lookAgain(); reason != "" {
		c.condemned = true
		return policy.Decision{Reason: reason}, policy.Ingress
	}
	c.judgedBy = c.p.snapshot.Load()
	at := route{c.known.Egress, c.known.Ingress}
	if c.hello != nil && r != c.hello { // the connection is under a name that must still be allowed
		if decision, direction := c.judgedBy.decide(at, c.hello); decision.Verdict != policy.Allow {
			c.condemned = true
			return decision, direction
		}
	}
	return c.judgedBy.decide(at, r)
}

// lookAgain says why the connection is denied as a whole; empty: it is not.
func (c *conn) lookAgain() string {
	if c.p.config.Connections.Revision() == c.revision {
		return ""
	}
	known, ok := c.p.config.Connections.Lookup(c.source, c.destination)
	switch {
	case !ok:
		return "the connection is no longer known to the datapath"
	case known.Denied:
		return "the connection is no longer allowed"
	}
	if now, ok := (route{known.Egress, known.Ingress}).protocol(); !ok || now != c.speaks && now != policy.ProtocolNone {
		return "the port is now under rules of another protocol"
	}
	if !c.ending.same(c.p.snapshot.Load().ending(route{known.Egress, known.Ingress})) {
		return "TLS ends here otherwise than when the connection began"
	}
	c.known, c.revision = known, known.Revision
	return ""
}

// exchange finds or makes the memory of a request.
func (c *conn) exchange(id uint64) *exchange {
	// Ids rise, so a new one is not among those there are.
	for i := len(c.exchanges) - 1; i >= 0 && c.exchanges[i].id >= id; i-- {
		if c.exchanges[i].id == id {
			return &c.exchanges[i]
		}
	}
	if len(c.exchanges) >= maxExchanges { // the oldest will have no record of its answer
		c.p.ring.lose(1)
		c.drop(0)
	}
	if n := len(c.exchanges); n < cap(c.exchanges) {
		c.exchanges = c.exchanges[:n+1] // with its buffers
	} else {
		c.exchanges = append(c.exchanges, exchange{})
	}
	x := &c.exchanges[len(c.exchanges)-1]
	x.id = id
	return x
}

// drop forgets exchange i; its buffers move to the end, for the next.
func (c *conn) drop(i int) {
	gone := c.exchanges[i]
	copy(c.exchanges[i:], c.exchanges[i+1:])
	c.exchanges[len(c.exchanges)-1] = gone
	c.exchanges = c.exchanges[:len(c.exchanges)-1]
}

// Response implements parsers.Hooks.
func (c *conn) Response(id uint64, a parsers.Answer) {
	if a.Local && c.condemned && id == c.last {
		c.condemn = true // told; the relay ends the connection behind this answer
	}
	c.opens(id, a.Status)
	c.answered(id, a, observe.Forwarded, "")
}

// answered records the answer to request id.
func (c *conn) answered(id uint64, a parsers.Answer, word observe.Word, detail string) {
	for i := range c.exchanges {
		x := &c.exchanges[i]
		if x.id != id {
			continue
		}
		now := time.Now()
		var tail [160]byte
		b := appendVerdict(tail[:0], now, word, observe.ReasonNone)
		b = appendUint(b, fieldReply, 1)
		status := a.Status
		if c.speaks == policy.ProtocolKafka {
			status = int(uint16(status)) // errors of which the server does not know what they are are negative
		}
		b = appendUint(b, fieldStatus, uint64(max(status, 0)))
		b = appendUint(b, fieldLatency, uint64(max(now.Sub(x.at), 1)))
		if a.Call != nil {
			b = appendCall(b, a.Call)
		}
		if a.Reset != nil {
			detail = a.Reset.Error()
		}
		b = appendCleanText(b, fieldDetail, detail) // the last one counts
		c.p.ring.add(x.common, x.decided, b)
		c.drop(i)
		return
	}
}

// Malformed implements parsers.Hooks: it is refused unless nothing is enforced on
// the connection.
func (c *conn) Malformed(id uint64, from parsers.Side, err error) bool {
	pass, audited := c.passes()
	if !pass {
		c.malformed(id, err)
		return false
	}
	c.p.malformed.Add(1)
	c.passed = true
	c.tunnels()
	word := observe.Forwarded
	if audited {
		word = observe.Audited
	}
	c.reportAs(word, 0, err.Error()+"; passed on unread, as no policy that enforces applies")
	return true
}

// passes says whether what cannot be read goes on, and whether that would have been
// refused by policies that audit.
func (c *conn) passes() (pass, audited bool) {
	if c.lookAgain() != "" {
		return false, false
	}
	c.judgedBy = c.p.snapshot.Load()
	return c.judgedBy.passes(route{c.known.Egress, c.known.Ingress})
}

func (c *conn) malformed(id uint64, err error) {
	c.p.malformed.Add(1)
	c.report(id, err.Error())
}

// report records that something went wrong with request id, which need not have
// been judged.
func (c *conn) report(id uint64, detail string) { c.reportAs(observe.Errored, id, detail) }

func (c *conn) reportAs(word observe.Word, id uint64, detail string) {
	common := appendEnds(nil, c.source, c.destination, c.known.SourceIdentity, c.known.DestinationIdentity)
	for i := range c.exchanges {
		if c.exchanges[i].id == id {
			common = c.exchanges[i].common
		}
	}
	b := appendVerdict(nil, time.Now(), word, observe.ReasonNone)
	b = appendCleanText(b, fieldDetail, detail)
	if c.known.Ingress == 0 && c.known.Egress != 0 {
		b = appendUint(b, fieldDirection, uint64(policy.Egress))
	}
	c.p.ring.add(common, b)
}

// cutShort reports a body that did not arrive whole, with mu held.
func (c *conn) cutShort(s parsers.Side) {
	c.report(c.last, "the "+s.String()+" ended the connection within a message")
}

// noServer reports that the server could not be reached, with mu held, and
// returns what the client is told: nothing if it speaks what we do not.
func (c *conn) noServer(err error) []byte {
	asked := len(c.exchanges) > 0
	status := http.StatusBadGateway
	if c.speaks == policy.ProtocolKafka {
		status = kafkaNetworkException
	}
	for len(c.exchanges) > 0 {
		c.answered(c.exchanges[0].id, parsers.Answer{Status: status}, observe.Errored, err.Error())
	}
	if !asked { // the first frames of HTTP/2 go before any request
		c.report(0, err.Error())
	}
	if s, ok := c.session.(interface{ Unavailable() []byte }); ok {
		return s.Unavailable()
	}
	if !asked {
		return nil
	}
	if !strings.HasPrefix(c.protocol, "HTTP/1") {
		return nil
	}
	const body = "Upstream connection failed\r\n"
	return []byte("HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/plain\r\nContent-Length: " +
		strconv.Itoa(len(body)) + "\r\nConnection: close\r\n\r\n" + body)
}
