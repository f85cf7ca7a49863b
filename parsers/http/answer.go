package http

import (
	"strconv"

	"github.com/headgate/headgate/parsers"
)

// answer sends an answer of our own. It has no Date: there is no clock here (RFC
// 9110 section 6.6.1 allows that).
func (s *Session) answer(p pending) {
	status, reason := 403, "Access denied"
	switch {
	case p.refusal == ErrNotHTTP:
		return
	case p.refusal != nil:
		status, reason = p.refusal.Status, p.refusal.Reason
	case p.response != nil:
		status, reason = p.response.Status, p.response.Body
	}
	from := len(s.out)
	b := append(s.out, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, reasonPhrase(status)...)
	b = append(b, "\r\nContent-Type: text/plain\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(reason)+2), 10)
	if p.close {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\n\r\n"...)
	if !p.head {
		b = append(b, reason...)
		b = append(b, "\r\n"...)
	}
	s.out = b
	s.send(parsers.Client, from)
	s.hooks.Response(p.id, parsers.Answer{Status: status, Local: true})
}
