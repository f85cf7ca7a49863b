package http

import (
	"math"

	"github.com/headgate/headgate/parsers"
)

// server is what the session knows of the server's side.
type server struct {
	state  clientState // atHead or inChunks
	head   headScan
	res    response
	chunks chunks
	fin    bool // CloseWrite was given to the client
}

// fromServer reads one element, as fromClient does.
func (s *Session) fromServer(data []byte) (n int64, more bool) {
	v := &s.server
	switch v.state {
	case tunnelling:
		return s.carry(), false
	case inChunks:
		n, done, err := v.chunks.next(data, &s.limits)
		s.move(parsers.Forward, n)
		if err != nil {
			_, more := s.fail(s.queue.front().id, parsers.Server, err)
			return n, more
		}
		if done {
			v.state = atHead
			s.answered()
		}
		return n, n == 0
	}
	if s.queue.n == 0 {
		return s.fail(s.id, parsers.Server, ErrUnsolicited)
	}
	// The first of the queue is never local: those are answered at once.
	p := s.queue.front()
	if v.head.pos == 0 && data[0] != 'H' {
		return s.fail(p.id, parsers.Server, ErrStatusLine)
	}
	end, err := v.head.scan(data, math.MaxInt, s.limits.Head, math.MaxInt)
	if err == nil && end == 0 {
		return 0, true
	}
	if err == nil {
		err = v.res.parse(data[:end], v.head.lines)
	}
	if err == nil && v.res.status == 101 && (!p.switches || s.client.state != switching || !s.client.offer.takenBy(data[:end], v.head.lines)) {
		err = ErrSwitched
	}
	if err != nil {
		return s.fail(p.id, parsers.Server, err)
	}
	v.head.reset()
	s.move(parsers.Forward, int64(end))
	if v.res.status == 101 || p.connect && v.res.status/100 == 2 {
		// Nothing was forwarded behind such a request, so it is the only one.
		s.hooks.Response(p.id, parsers.Answer{Status: v.res.status})
		s.tunnel()
		return int64(end), false
	}
	if v.res.status < 200 {
		if v.res.status == 100 && p.id == s.id {
			s.client.waits = false
		}
		return int64(end), false
	}
	s.hooks.Response(p.id, parsers.Answer{Status: v.res.status})
	return int64(end) + s.responseBody(p), false
}

// responseBody moves what is behind the head (RFC 9112 section 6.3).
func (s *Session) responseBody(p *pending) int64 {
	v := &s.server
	switch {
	case v.res.bodiless(p.head):
	case v.res.chunked:
		v.chunks, v.state = chunks{lenient: true}, inChunks
		return 0
	case v.res.length >= 0:
		s.move(parsers.Forward, v.res.length)
		s.answered()
		return v.res.length
	default:
		s.move(parsers.Forward, parsers.Unbounded)
		s.end()
		return 0
	}
	s.answered()
	return 0
}

// answered is called behind the last byte of a final response.
func (s *Session) answered() {
	c, p := &s.client, s.queue.front()
	unread := p.id == s.id && c.waits && (c.state == inBody || c.state == inChunks)
	if p.id == s.id { // it stays what it is
		c.req.switches, c.req.connect = false, false
		if c.state == switching {
			s.afterBody()
		}
	}
	s.queue.pop()
	if s.queue.n == 0 {
		c.past = false
	}
	if unread || !s.server.res.persistent() {
		s.end()
		return
	}
	s.proceed()
}

// serverEnd is the end of the server's input.
func (s *Session) serverEnd(rest bool) {
	if s.server.state == tunnelling {
		s.tunnelEnd(parsers.Server)
		return
	}
	if rest || s.server.state == inChunks {
		if s.fail(s.queue.front().id, parsers.Server, ErrTruncated); s.err == nil {
			if rest {
				s.carry()
			}
			s.tunnelEnd(parsers.Server)
		}
		return
	}
	s.end()
}
