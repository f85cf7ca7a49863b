package http2

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Reset is how a stream ended before its answer was complete.
type Reset struct {
	By   parsers.Side
	Code http2.ErrCode
}

func (r *Reset) Error() string {
	return "http2: the " + r.By.String() + " reset the stream: " + r.Code.String()
}

const denied = "Access denied"

// gRPC status codes that are given here.
const (
	grpcPermissionDenied = 7
	grpcInternal         = 13
	grpcUnavailable      = 14
)

// deny answers a request that policy forbids. Its stream ends, and no other.
func (s *Session) deny(stream uint32, call, ended bool, response *policy.DenyResponse) {
	a := ownAnswer{403, grpcPermissionDenied, denied}
	if response != nil {
		a.status, a.text = response.Status, response.Body
	}
	s.answer(stream, call, ended, a)
}

// refuse ends a stream that is no request, or none that is carried here. It was
// reported.
func (s *Session) refuse(stream uint32, call, ended bool, err *Refusal) {
	if err.Status != 0 {
		s.answer(stream, call, ended, ownAnswer{err.Status, grpcInternal, err.Reason})
		return
	}
	s.tell(parsers.Client, stream, err.Code)
	if !ended {
		s.lingers(stream)
	}
	s.premature()
}

// answer gives an answer of our own to the request that was read last. The rest of
// that is taken and dropped, as some clients look at no answer before all is sent;
// a call, which may have no end, is reset.
func (s *Session) answer(stream uint32, call, ended bool, a ownAnswer) {
	start := len(s.out)
	s.out = s.appendAnswer(s.out, stream, call, string(s.request.Method) == "HEAD", a)
	if !ended {
		st := s.lingers(stream)
		if st.drains = !call; call {
			s.out = appendReset(s.out, stream, http2.ErrCodeNo)
		}
	}
	s.send(parsers.Client, start)
	told := parsers.Answer{Status: a.status, Local: true}
	if call {
		s.call = parsers.Call{Status: a.code}
		told.Status, told.Call = 200, &s.call
	}
	s.hooks.Response(s.id, told)
}

// lingers opens a stream that is over already.
func (s *Session) lingers(id uint32) *stream {
	st := s.streams.add(id)
	st.request = s.id
	s.streams.linger(st)
	return st
}

// ownAnswer is one that the server did not give: to a call its code, else the
// status, with a line of text.
type ownAnswer struct {
	status, code int
	text         string
}

// appendAnswer writes it so that the client's table remembers nothing of it. The
// body is left out where the client gives no room for it.
func (s *Session) appendAnswer(out []byte, stream uint32, call, head bool, a ownAnswer) []byte {
	v := &s.sides[parsers.Server]
	block := v.begin(v.encoded[:0])
	if call {
		block = append(block, 0x88) // :status 200
		block = appendField(block, "content-type", "application/grpc", false)
		block = appendField(block, "grpc-status", strconv.Itoa(a.code), false)
		block = appendField(block, "grpc-message", percent(a.text), false)
		v.encoded = block[:0]
		return appendBlock(out, stream, block, true)
	}
	size := len(a.text) + 2
	room := size <= minFrame && int64(size) <= min(s.initial, s.window, reserve-s.debt)
	block = append(block, 0x08, 3) // :status
	block = strconv.AppendInt(block, int64(a.status), 10)
	block = appendField(block, "content-type", "text/plain", false)
	if room || head {
		block = appendField(block, "content-length", strconv.Itoa(size), false)
	}
	v.encoded = block[:0]
	if head || !room {
		return appendBlock(out, stream, block, true)
	}
	s.window -= int64(size)
	s.debt += int64(size)
	out = appendBlock(out, stream, block, false)
	out = appendHead(out, size, http2.FrameData, http2.FlagDataEndStream, stream)
	out = append(out, a.text...)
	return append(out, "\r\n"...)
}

// percent writes a grpc-message: printable ASCII but %.
func percent(text string) string {
	plain := func(c rune) bool { return c >= ' ' && c <= '~' && c != '%' }
	if strings.IndexFunc(text, func(c rune) bool { return !plain(c) }) < 0 {
		return text
	}
	var b []byte
	for i := range len(text) {
		if c := text[i]; !plain(rune(c)) {
			b = fmt.Appendf(b, "%%%02X", c)
		} else {
			b = append(b, c)
		}
	}
	return string(b)
}

// readAnswer takes from a header block of the server what is reported of it.
func (s *Session) readAnswer(st *stream, ends bool) {
	f := &s.sides[parsers.Server].fields
	for i := range f.ends {
		name, value := f.at(i)
		switch {
		case string(name) == ":status" && len(value) == 3 && !st.answered:
			st.status, _ = strconv.Atoi(string(value))
			if st.status < 200 {
				continue
			}
			st.answered = true
			if !st.call {
				s.hooks.Response(st.request, parsers.Answer{Status: st.status})
			}
		case st.call && ends && string(name) == "grpc-status" && len(value) > 0 && len(value) < 10:
			code, err := strconv.Atoi(string(value))
			if err == nil && code >= 0 {
				st.code, st.coded = code, true
			}
		}
	}
}

// outcome is what is known of a call when it is over.
func (s *Session) outcome(st *stream) *parsers.Call {
	s.call = parsers.Call{Status: -1, Sent: st.messages[parsers.Client].count, Received: st.messages[parsers.Server].count}
	if st.coded {
		s.call.Status = st.code
	}
	return &s.call
}

// Unavailable ends the conversation where there is no server: what is open, and what the
// client has said meanwhile, is judged and answered 502, or UNAVAILABLE, and the client
// may try again.
func (s *Session) Unavailable(unread []byte) []byte {
	s.lost = nil
	var out []byte
	if v := &s.sides[parsers.Server]; !v.greeted {
		v.greeted = true
		out = appendHead(nil, 0, http2.FrameSettings, 0, 0)
	}
	steps, err := s.Feed(parsers.Client, unread, false)
	for _, step := range steps {
		if step.Op == parsers.Send && step.To == parsers.Client {
			out = append(out, step.Data...)
		}
	}
	if s.ended = true; err != nil { // it was told
		return out
	}
	for _, st := range s.streams.open {
		if !st.over {
			out = s.appendAnswer(out, st.id, st.call, false, ownAnswer{502, grpcUnavailable, "Upstream connection failed"})
		}
	}
	return appendGoAway(out, s.streams.last, http2.ErrCodeNo)
}
