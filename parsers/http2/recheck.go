package http2

import (
	"bytes"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// keep remembers a request, so that it can be judged again as long as it lasts:
// its parts, each ended by a NUL, which none of them holds. Where there is no room
// for that, the next change of policy ends it.
func (s *Session) keep(st *stream) {
	q := &s.request
	b := st.kept[:0]
	for _, part := range [3][]byte{q.Method, q.Path, q.Host} {
		b = append(append(b, part...), 0)
	}
	for i := range q.Headers {
		b = append(append(b, q.Headers[i].Name...), 0)
		b = append(append(b, q.Headers[i].Value...), 0)
	}
	if st.kept = b; s.kept+len(b) > s.limits.Kept {
		st.kept = nil
	}
	s.kept += len(st.kept)
}

// recall makes a kept request the session's.
func (s *Session) recall(st *stream) bool {
	q := &s.request
	*q = policy.HTTPRequest{Headers: q.Headers[:0]}
	rest := st.kept
	next := func() (part []byte) {
		part, rest, _ = bytes.Cut(rest, []byte{0})
		return part
	}
	q.Method, q.Path, q.Host = next(), next(), next()
	for len(rest) > 0 {
		q.Headers = append(q.Headers, policy.HTTPHeader{Name: next(), Value: next()})
	}
	return len(st.kept) > 0
}

// Recheck implements parsers.Rechecker.
func (s *Session) Recheck(judge func(id uint64, r policy.Request) bool) []parsers.Step {
	s.steps, s.out = s.steps[:0], s.out[:0]
	if s.ended || s.err != nil {
		return nil
	}
	for _, st := range s.streams.open {
		if st.over || s.recall(st) && judge(st.request, &s.request) {
			continue
		}
		s.cut(st, http2.ErrCodeCancel, errForbidden)
	}
	return s.steps
}

var errForbidden = &Refusal{http2.ErrCodeCancel, 0, "the policy changed, and does not allow this request any more"}
