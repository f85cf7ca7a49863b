package http2

import (
	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
)

// answerHead takes a header block of the server. Whether an answer is well-formed
// is its client's business; here it must only be one to something.
func (s *Session) answerHead(f http2.FrameHeader, whole []byte) (int64, bool) {
	st := s.streams.open[f.StreamID]
	switch {
	case f.StreamID%2 == 0 || f.StreamID > s.streams.sent:
		return s.fail(parsers.Server, ErrUnsolicited)
	case st == nil: // the client has given it up, and knows what to do
		return s.pass(parsers.Server, f, whole, rewrite{}), false
	case st.over:
		return s.without(parsers.Server, whole), false
	}
	s.noise(parsers.Client, -10)
	ends := f.Flags.Has(http2.FlagHeadersEndStream)
	s.readAnswer(st, ends)
	n := s.pass(parsers.Server, f, whole, rewrite{})
	if ends {
		s.endSide(st, parsers.Server)
	}
	return n, false
}

// serverData takes a DATA frame of the server.
func (s *Session) serverData(f http2.FrameHeader, data []byte) (int64, bool) {
	v := &s.sides[parsers.Server]
	v.waits = false
	st := s.streams.open[f.StreamID]
	switch {
	case f.StreamID%2 == 0 || f.StreamID > s.streams.sent:
		return s.fail(parsers.Server, ErrUnsolicited)
	case st != nil && st.over:
		return s.swallow(parsers.Server, f), false
	case int64(f.Length) > s.window+s.debt:
		return s.fail(parsers.Server, ErrWindow)
	case int64(f.Length) > s.window:
		// The client has room for all but what a denial took, and will say so.
		v.waits = true
		return 0, true
	}
	if st != nil && st.call {
		body, skip, more, err := unpad(f, data)
		if err != nil {
			return s.fail(parsers.Server, err)
		}
		if more || !st.messages[parsers.Server].pass(part(data, skip), body) {
			return 0, true
		}
	}
	s.window -= int64(f.Length)
	s.noise(parsers.Client, -10)
	n := s.forward(f)
	if st != nil && f.Flags.Has(http2.FlagDataEndStream) {
		s.endSide(st, parsers.Server)
	}
	return n, false
}
