package http

import (
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// client is what the session knows of the client's side.
type client struct {
	state   clientState
	head    headScan
	req     request
	chunks  chunks
	left    int64 // of a body or chunk that waits for 100: bytes to come
	denied  int64 // bytes dropped of a denied chunked body
	waits   bool  // the server has not said 100 to an Expect
	empty   bool  // an empty line was dropped before this request
	lined   bool  // the request line of a head that is not whole was read
	partial bool  // part of a head was fed
	past    bool  // a body went past what was fed
	held    bool  // a head waits for its body
	waited  bool  // and has, long enough
	begun   begun // what is there of that
	last    bool  // no more requests are read
	fin     bool  // CloseWrite was given to the server
	offer   offer // of the last request that asks for another protocol
}

type clientState uint8

const (
	atHead clientState = iota
	inBody             // only while left > 0
	inChunks
	inDeniedChunks
	draining // nothing more is read
	// A request that may end in a tunnel is whole. What comes behind it is not read
	// before its answer: it may be the tunnel's, or the next request.
	switching
	tunnelling
)

// fromClient reads one element. It returns how much that was, which may be more
// than there is, or more: it takes more bytes to say anything.
func (s *Session) fromClient(data []byte) (n int64, more bool) {
	c := &s.client
	switch c.state {
	case inBody:
		n := s.forwardBody(c.left, int64(len(data)))
		if c.left == 0 {
			s.afterBody()
		}
		return n, false
	case inChunks:
		if c.left > 0 {
			return s.forwardBody(c.left, int64(len(data))), false
		}
		n, done, err := c.chunks.next(data, &s.limits)
		n = s.forwardBody(n, int64(len(data)))
		if err != nil {
			s.brokenBody(err)
		} else if done {
			s.afterBody()
		}
		return n, n == 0 && c.state != tunnelling
	case inDeniedChunks:
		n, done, err := c.chunks.next(data, &s.limits)
		s.move(parsers.Discard, n)
		if c.denied += n; err != nil || c.denied > s.limits.DeniedBody {
			// The 403 is given or queued, so there is no place for a 400.
			if err != nil {
				_ = s.hooks.Malformed(s.id, parsers.Client, err) // it is denied: nothing of it is passed on
			}
			s.drain()
			s.proceed()
			return n, false
		}
		if done {
			s.afterBody()
		}
		return n, n == 0
	case draining:
		s.move(parsers.Discard, int64(len(data)))
		return int64(len(data)), false
	case switching:
		return 0, true
	case tunnelling:
		return s.carry(), false
	}
	return s.requestHead(data)
}

// requestHead reads a head, and with it a body of known length.
func (s *Session) requestHead(data []byte) (n int64, more bool) {
	c := &s.client
	if c.head.pos == 0 {
		switch {
		case data[0] != '\r':
		case c.empty:
			return s.refuse(ErrEmptyLines)
		case len(data) == 1:
			return 0, true
		case data[1] != '\n':
			return s.refuse(ErrLineEnd)
		default:
			c.empty = true
			s.move(parsers.Discard, 2)
			return 2, false
		}
	}
	// What is no request is known as early as can be: who speaks something else may
	// be waiting for an answer to it.
	if len(c.head.lines) == 0 && !beginsMethod(data) {
		return s.refuse(ErrMethod)
	}
	l := &s.limits
	end, err := c.head.scan(data, l.RequestLine, l.Head, l.Headers+1)
	if (err != nil || end == 0) && len(c.head.lines) > 0 && !c.lined {
		c.lined = true
		if bad := c.req.line(data[:c.head.lines[0]-2]); bad != nil {
			err = bad
		}
	}
	if err == nil && end == 0 {
		return 0, true
	}
	held := c.held
	if err == nil && !held {
		err = c.req.parse(data[:end], c.head.lines)
	}
	if err == nil && s.queue.n >= l.Pipelined {
		err = ErrPipelined
	}
	if err == nil && c.req.chunked {
		var late bool
		if late, err = s.begin(data[end:]); late {
			return 0, true
		}
	}
	if err == nil && held { // what it said of the input is valid no more
		err = c.req.parse(data[:end], c.head.lines)
	}
	if err != nil {
		return s.refuse(err)
	}
	c.head.reset()
	c.empty, c.lined, c.held, c.waited = false, false, false, false
	s.id++
	d := s.hooks.Request(s.id, &c.req.HTTPRequest)
	if d.Verdict != policy.Allow && d.Verdict != policy.Redirect {
		return s.deny(end, d.Response), false
	}
	if d.Edited {
		c.req.Headers, c.req.anew = append(c.req.Headers[:0], d.Headers...), true
	}
	return s.forward(data[:end], int64(len(data)-end)), false
}

// forward moves an allowed request, of whose body some bytes are there.
func (s *Session) forward(head []byte, have int64) int64 {
	c, r := &s.client, &s.client.req
	r.closeBehindContent()
	s.queue.push(pending{id: s.id, head: string(r.Method) == "HEAD", connect: r.connect, switches: r.switches})
	c.last, c.waits = !r.persistent(), r.expect
	if r.switches {
		c.offer.keep(r)
	}
	n := int64(len(head))
	if r.rewritten || r.anew {
		s.move(parsers.Discard, n)
		from := len(s.out)
		s.out = r.appendHead(s.out, head)
		s.send(parsers.Server, from)
	} else {
		s.move(parsers.Forward, n)
	}
	switch {
	case r.chunked:
		c.chunks, c.state = c.begun.chunks, inChunks
		n += s.forwardBody(c.begun.n, have)
		if !c.begun.done {
			return n
		}
	case r.length > 0:
		n += s.forwardBody(r.length, have)
		if c.left > 0 {
			c.state = inBody
			return n
		}
	}
	s.afterBody()
	return n
}

// forwardBody moves the next n bytes of a body, past what is there unless the
// client is to be told first to send them: a server that answers for good
// instead must not get them.
func (s *Session) forwardBody(n, have int64) int64 {
	c := &s.client
	c.left = 0
	if n > have && c.waits {
		n, c.left = have, n-have
	}
	c.past = n > have
	s.move(parsers.Forward, n)
	return n
}

// deny drops a request and queues its answer.
func (s *Session) deny(head int, response *policy.DenyResponse) int64 {
	c, r := &s.client, &s.client.req
	body := r.chunked || r.length > 0
	// A 1.0 client would need to be told that the connection stays.
	end := !r.persistent() || r.http10 || r.switches || r.connect || body && r.expect || r.length > s.limits.DeniedBody
	s.queue.push(pending{id: s.id, local: true, head: string(r.Method) == "HEAD", close: end, response: response})
	n := int64(head)
	switch {
	case end:
		s.drain()
	case r.chunked:
		c.chunks, c.state, c.denied = chunks{}, inDeniedChunks, 0
	case r.length > 0:
		n += r.length
	}
	s.move(parsers.Discard, n)
	s.proceed()
	return n
}

// refuse queues an answer to what is no request, and reads no further.
func (s *Session) refuse(err *Refusal) (int64, bool) {
	s.id++
	if s.hooks.Malformed(s.id, parsers.Client, err) {
		s.tunnel()
		return 0, false
	}
	s.queue.push(pending{id: s.id, local: true, close: true, refusal: err})
	s.drain()
	s.proceed()
	return 0, false
}

// brokenBody ends the connection inside a body that has been forwarded in part.
func (s *Session) brokenBody(err *Refusal) {
	if s.fail(s.id, parsers.Client, err); s.err == nil {
		return
	}
	if s.queue.n > 0 && s.server.state == atHead && s.queue.front().id == s.id {
		s.answer(pending{id: s.id, close: true, refusal: err, head: s.queue.front().head})
	}
}

func (s *Session) afterBody() {
	c := &s.client
	switch {
	case c.req.switches || c.req.connect:
		c.state = switching
	case c.last:
		c.state = draining
	default:
		c.state = atHead
	}
}

func (s *Session) drain() {
	s.client.state, s.client.last = draining, true
}

// clientEnd is the end of the client's input; rest says that there are bytes
// which make nothing whole.
func (s *Session) clientEnd(rest bool) {
	c := &s.client
	switch {
	case c.state == switching: // fed again behind the answer
		return
	case c.state == tunnelling:
		s.tunnelEnd(parsers.Client)
		return
	case c.state == inChunks, c.state == inBody:
		if s.brokenBody(ErrTruncated); s.err == nil {
			s.tunnelEnd(parsers.Client)
		}
		return
	case rest && c.state == atHead:
		if s.refuse(ErrTruncated); c.state == tunnelling {
			s.carry()
			s.tunnelEnd(parsers.Client)
			return
		}
	default:
		s.drain()
		s.proceed()
	}
	if !s.ended && !c.fin {
		c.fin = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: parsers.Server})
	}
}
