package http

import (
	"math"

	"github.com/headgate/headgate/parsers"
)

// Session is one HTTP/1 connection. Use New.
type Session struct {
	hooks  parsers.Hooks
	limits Limits

	steps []parsers.Step
	out   []byte // what the Sends of this Feed point into
	err   error
	ended bool

	client client
	server server
	queue  queue
	id     uint64 // of the last request
}

var _ parsers.Session = (*Session)(nil)

// New returns the session of a new connection.
func New(hooks parsers.Hooks, limits Limits) *Session {
	s := &Session{limits: limits.withDefaults()}
	s.Reset(hooks)
	return s
}

// Reset makes the session that of another connection. It keeps its limits and
// its buffers.
func (s *Session) Reset(hooks parsers.Hooks) {
	c, v := &s.client, &s.server
	c.head.reset()
	v.head.reset()
	*s = Session{
		hooks:  hooks,
		limits: s.limits,
		steps:  s.steps[:0],
		out:    s.out[:0],
		client: client{
			head: c.head, req: request{path: c.req.path[:0], options: c.req.options[:0]},
			offer: offer{protocols: c.offer.protocols[:0]},
		},
		server: server{head: v.head},
		queue:  queue{ring: s.queue.ring},
	}
	// What the last connection left there points into its input.
	clear(c.req.Headers[:cap(c.req.Headers)])
	clear(s.queue.ring)
	s.client.req.Headers = c.req.Headers[:0]
}

// Feed implements parsers.Session. Every error is a *Refusal. Bytes past the end
// of the conversation are neither consumed nor looked at.
//
// A relay may feed a side without new bytes when a Forward that went past what
// was fed is through: Phase is then exact at once.
func (s *Session) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	s.steps, s.out = s.steps[:0], s.out[:0]
	if s.ended || s.err != nil {
		return nil, s.err
	}
	feed := s.fromClient
	if from == parsers.Server {
		feed = s.fromServer
	} else {
		s.client.past = false
	}
	for len(data) > 0 && !s.ended && s.err == nil {
		n, more := feed(data)
		if more {
			break
		}
		data = data[min(n, int64(len(data))):]
	}
	if from == parsers.Client {
		s.client.partial = len(data) > 0 && s.client.state == atHead
	}
	if eof && !s.ended && s.err == nil {
		if from == parsers.Client {
			s.clientEnd(len(data) > 0)
		} else {
			s.serverEnd(len(data) > 0)
		}
	}
	return s.steps, s.err
}

// Phase implements parsers.Session. A tunnel waits, as for an answer. A body that goes past what was fed is under
// way until its side is fed again or its request is answered.
func (s *Session) Phase() parsers.Phase {
	c := &s.client
	switch {
	case s.ended || s.err != nil:
		return parsers.Ended
	case c.state == tunnelling || c.state == switching:
		return parsers.Response
	case c.partial:
		return parsers.Head
	case c.state != atHead && c.state != draining || c.past:
		return parsers.Body
	case s.queue.n > 0:
		return parsers.Response
	}
	return parsers.Idle
}

// move adds a Forward or a Discard. What is next to each other becomes one.
func (s *Session) move(op parsers.Op, n int64) {
	if n == 0 {
		return
	}
	if i := len(s.steps) - 1; i >= 0 && s.steps[i].Op == op {
		if last := &s.steps[i]; last.N > math.MaxInt64-n {
			last.N = parsers.Unbounded
		} else {
			last.N += n
		}
		return
	}
	s.steps = append(s.steps, parsers.Step{Op: op, N: n})
}

// send queues what was appended to s.out since its length was from.
func (s *Session) send(to parsers.Side, from int) {
	s.steps = append(s.steps, parsers.Step{Op: parsers.Send, To: to, Data: s.out[from:len(s.out):len(s.out)]})
}

// end closes the connection in good order.
func (s *Session) end() {
	s.ended = true
	s.steps = append(s.steps, parsers.Step{Op: parsers.Close})
}

// fail ends it in disorder, unless it goes on unread.
func (s *Session) fail(id uint64, from parsers.Side, r *Refusal) (int64, bool) {
	if s.hooks.Malformed(id, from, r) {
		s.tunnel()
		return 0, false
	}
	s.err = r
	return 0, true
}

// proceed gives the answers that are due here, and ends the connection after the
// last that will be asked for.
func (s *Session) proceed() {
	for s.queue.n > 0 && s.queue.front().local {
		s.answer(*s.queue.front())
		s.queue.pop()
	}
	if s.queue.n == 0 && s.client.last {
		s.end()
	}
}
