package http

import "github.com/headgate/headgate/parsers"

// beginWith is how much of a chunked body its head waits for at most.
const beginWith = 4 << 10

// begun is what is there of a chunked body whose head was not judged yet. All of it was
// checked: what is malformed there is refused with the head.
type begun struct {
	chunks
	n    int64 // of the body, which may go past what is there
	done bool
}

// begin looks at what is there of the body of a chunked request, and reports whether
// the head has to wait for more. It does until the body is whole or long, unless the
// client waits too: for 100, or perhaps for an answer. But no client waits in the middle
// of the first line of a body.
func (s *Session) begin(body []byte) (late bool, err *Refusal) {
	c := &s.client
	b := &c.begun
	if !c.held {
		*b = begun{}
	}
	if !b.done && b.n < int64(len(body)) {
		var n int64
		n, b.done, err = b.next(body[b.n:], &s.limits)
		b.n += n
	}
	switch {
	case err != nil || b.done || c.req.expect:
		return false, err
	case b.n == 0 && len(body) > 0: // part of the first line
	case c.waited || b.n >= beginWith:
		return false, nil
	}
	if !c.held {
		c.held = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.Wake, Token: s.id + 1, Wait: s.limits.Begin})
	}
	return true, nil
}

// Release implements parsers.Holder.
func (s *Session) Release(token uint64) {
	if s.client.held && token == s.id+1 {
		s.client.waited = true
	}
}
