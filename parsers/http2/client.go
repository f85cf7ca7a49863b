package http2

import (
	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Preface is what a client that knows that it speaks HTTP/2 says first (RFC 9113
// section 3.4).
const Preface = http2.ClientPreface

// clientPreface reads what a client says first, with its SETTINGS, which belong to it.
func (s *Session) clientPreface(data []byte) (int64, bool) {
	n := min(len(data), len(Preface))
	if string(data[:n]) != Preface[:n] {
		return s.fail(parsers.Client, ErrPreface)
	}
	if data = data[n:]; len(data) < frameHead {
		return 0, true
	}
	f := readHead(data)
	switch {
	case f.Type != http2.FrameSettings || f.Flags.Has(http2.FlagSettingsAck):
		return s.fail(parsers.Client, ErrPreface)
	case f.Length > minFrame:
		return s.fail(parsers.Client, ErrFrameLong)
	case f.StreamID != 0:
		return s.fail(parsers.Client, ErrStreamID)
	case int(f.Length) > 6*s.limits.Settings:
		return s.fail(parsers.Client, ErrFlood)
	case len(data) < frameHead+int(f.Length):
		return 0, true
	}
	return s.settings(parsers.Client, f, data[frameHead:frameHead+int(f.Length)])
}

// clientHeaders takes a header block of the client: a new request, or the trailers
// of one. behind is what is there already of the frames that follow.
func (s *Session) clientHeaders(f http2.FrameHeader, whole, behind []byte, depends uint32) (int64, bool) {
	if st := s.streams.open[f.StreamID]; st != nil {
		return s.trailers(st, f, whole)
	}
	switch {
	case f.StreamID%2 == 0:
		return s.fail(parsers.Client, ErrStreamID)
	case f.StreamID <= s.streams.last:
		return s.fail(parsers.Client, ErrStreamClosed)
	}
	s.streams.last = f.StreamID
	s.noise(parsers.Client, -100)
	s.id++
	ends := f.Flags.Has(http2.FlagHeadersEndStream)
	r := requestHead{session: s}
	var err *Refusal
	switch {
	case depends == f.StreamID:
		err = ErrDependency
	case s.streams.live() >= s.limits.Streams:
		err = ErrStreamsMany
	default:
		err = r.read(&s.sides[parsers.Client].fields)
	}
	if err == nil && r.length >= 0 && (ends && r.length > 0 || !ends && misfits(behind, f.StreamID, r.length)) {
		err = ErrBodyLength
	}
	if err != nil {
		if s.passes(s.id, parsers.Client, err) {
			return 0, false
		}
		n := s.without(parsers.Client, whole)
		s.refuse(f.StreamID, r.call, ends, err)
		return n, false
	}
	d := s.hooks.Request(s.id, &s.request)
	if d.Verdict != policy.Allow && d.Verdict != policy.Redirect {
		n := s.without(parsers.Client, whole)
		s.deny(f.StreamID, r.call, ends, d.Response)
		return n, false
	}
	st := s.streams.add(f.StreamID)
	st.request, st.call, st.connect, st.length = s.id, r.call, r.connect, r.length
	s.keep(st)
	s.streams.sent = f.StreamID
	if !st.call {
		s.streams.uploads++
	}
	w := rewrite{edited: d.Edited, fields: d.Headers}
	if r.rewritten {
		w.path = s.request.Path
	}
	n := s.pass(parsers.Client, f, whole, w)
	if ends {
		s.endSide(st, parsers.Client)
	}
	return n, false
}

// lookAhead is how many frames are looked at before their turn.
const lookAhead = 16

// misfits reports whether the body that is there already is not as long as the head says,
// so that such a request does not even begin to go on.
func misfits(frames []byte, stream uint32, length int64) bool {
	for range lookAhead {
		if len(frames) < frameHead {
			return false
		}
		f := readHead(frames)
		if f.StreamID == stream && (f.Type == http2.FrameData || f.Type == http2.FrameHeaders) {
			if f.Type == http2.FrameData {
				body, _, more, err := unpad(f, frames)
				if more || err != nil {
					return false // its turn will come
				}
				length -= body
			}
			if ends := f.Type == http2.FrameHeaders || f.Flags.Has(http2.FlagDataEndStream); ends || length < 0 {
				return length != 0
			}
		}
		frames = frames[min(frameHead+int(f.Length), len(frames)):]
	}
	return false
}

// trailers take the second header block of a stream, which must be its end.
func (s *Session) trailers(st *stream, f http2.FrameHeader, whole []byte) (int64, bool) {
	ends := f.Flags.Has(http2.FlagHeadersEndStream)
	switch {
	case st.over:
		n := s.without(parsers.Client, whole)
		s.lateEnd(st, ends)
		return n, false
	}
	err := s.sides[parsers.Client].fields.checkTrailers()
	switch {
	case st.ended[parsers.Client]:
		err = ErrEnded
	case err == nil && (!ends || st.connect):
		err = ErrTrailer
	case err == nil && st.length >= 0 && st.got != st.length:
		err = ErrBodyLength
	}
	if err != nil {
		if s.passes(st.request, parsers.Client, err) {
			return 0, false
		}
		n := s.without(parsers.Client, whole)
		s.abort(st, err)
		return n, false
	}
	n := s.pass(parsers.Client, f, whole, rewrite{})
	s.endSide(st, parsers.Client)
	return n, false
}

// clientData takes a DATA frame of the client.
func (s *Session) clientData(f http2.FrameHeader, data []byte) (int64, bool) {
	ends := f.Flags.Has(http2.FlagDataEndStream)
	body, skip, more, err := unpad(f, data)
	switch {
	case err != nil:
		return s.fail(parsers.Client, err)
	case more:
		return 0, true
	}
	st := s.streams.open[f.StreamID]
	switch {
	case st == nil && f.StreamID > s.streams.last:
		return s.fail(parsers.Client, ErrStreamIdle)
	case st == nil:
		return s.closedData(f), false
	case st.over && !st.ended[parsers.Client]:
		n := s.swallow(parsers.Client, f)
		if st.drains && !ends {
			s.drain(st, f.Length)
		}
		s.lateEnd(st, ends)
		return n, false
	case st.ended[parsers.Client]:
		return s.wrongData(st, f, ErrEnded), false
	}
	if st.call && !st.messages[parsers.Client].pass(part(data, skip), body) {
		return 0, true
	}
	st.got += body
	if st.length >= 0 && (st.got > st.length || ends && st.got != st.length) {
		return s.wrongData(st, f, ErrBodyLength), false
	}
	if body == 0 && !ends {
		s.noise(parsers.Client, 10)
	} else {
		s.noise(parsers.Client, -1)
	}
	n := s.forward(f)
	if ends {
		s.endSide(st, parsers.Client)
	}
	return n, false
}

// wrongData is a DATA frame that must not be where it is.
func (s *Session) wrongData(st *stream, f http2.FrameHeader, err *Refusal) int64 {
	if s.passes(st.request, parsers.Client, err) {
		return 0
	}
	n := s.swallow(parsers.Client, f)
	s.abort(st, err)
	return n
}

// closedData is for a stream that the client has ended before: it is told again.
func (s *Session) closedData(f http2.FrameHeader) int64 {
	n := s.swallow(parsers.Client, f)
	s.noise(parsers.Client, 100)
	s.tell(parsers.Client, f.StreamID, http2.ErrCodeStreamClosed)
	return n
}

// lateEnd notes that the client has ended a stream that is over.
func (s *Session) lateEnd(st *stream, ends bool) {
	s.noise(parsers.Client, 1)
	switch {
	case !ends:
	case st.mute:
		st.ended[parsers.Client] = true
	default:
		s.streams.forget(st.id)
	}
}

// unpad returns how long the body in a DATA frame is and where it begins.
func unpad(f http2.FrameHeader, data []byte) (body int64, skip int, more bool, err *Refusal) {
	body, skip = int64(f.Length), frameHead
	if !f.Flags.Has(http2.FlagDataPadded) {
		return body, skip, false, nil
	}
	if f.Length == 0 {
		return 0, 0, false, ErrFrameSize
	}
	if len(data) <= frameHead {
		return 0, 0, true, nil
	}
	if body -= 1 + int64(data[frameHead]); body < 0 {
		return 0, 0, false, ErrPadding
	}
	return body, skip + 1, false, nil
}

// part is what is there of a frame's body.
func part(data []byte, skip int) []byte { return data[min(skip, len(data)):] }

// swallow drops a DATA frame; its sender gets its credit back.
func (s *Session) swallow(from parsers.Side, f http2.FrameHeader) int64 {
	n := s.drop(from, f, 1)
	if f.Length > 0 {
		start := len(s.out)
		s.out = appendWindowUpdate(s.out, 0, f.Length)
		s.send(from, start)
	}
	return n
}

// drain lets the client of a stream that was answered here send more, up to a
// limit.
func (s *Session) drain(st *stream, n uint32) {
	if st.got += int64(n); st.got > s.limits.Denied {
		st.drains = false
		s.tell(parsers.Client, st.id, http2.ErrCodeNo)
	} else if n > 0 {
		start := len(s.out)
		s.out = appendWindowUpdate(s.out, st.id, n)
		s.send(parsers.Client, start)
	}
}

// abort ends a stream on which the client went wrong, towards both sides. It was
// reported.
func (s *Session) abort(st *stream, why *Refusal) {
	if !st.over {
		s.cut(st, why.Code, why)
		s.premature()
		return
	}
	s.tell(parsers.Client, st.id, why.Code)
	s.noise(parsers.Client, 100)
}

// cut resets a stream towards both sides.
func (s *Session) cut(st *stream, code http2.ErrCode, why error) {
	s.tell(parsers.Client, st.id, code)
	s.tell(parsers.Server, st.id, http2.ErrCodeCancel)
	s.giveUp(st, why, true)
}

// tell sends RST_STREAM.
func (s *Session) tell(to parsers.Side, stream uint32, code http2.ErrCode) {
	start := len(s.out)
	s.out = appendReset(s.out, stream, code)
	s.send(to, start)
}
