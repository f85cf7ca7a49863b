package http2

import (
	"bytes"

	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/policy"
)

// requestHead is the header block of a request as it is read into the session's
// request. That points into the fields, or into path and cookie.
type requestHead struct {
	session   *Session
	seen      int // pseudo-header fields, by bit
	regular   bool
	rewritten bool // Path is not what was received
	call      bool
	connect   bool
	types     int
	host      []byte // of a Host field
	authority []byte
	expect    bool
	length    int64
	crumbs    int
	err       *Refusal // of a request that is well-formed
}

const (
	seenMethod = 1 << iota
	seenScheme
	seenPath
	seenAuthority
)

// read checks and takes apart a request (RFC 9113 section 8.3).
func (r *requestHead) read(f *fields) *Refusal {
	q := &r.session.request
	*q = policy.HTTPRequest{Headers: q.Headers[:0]}
	r.length = -1
	for i := range f.ends {
		name, value := f.at(i)
		if !http.FieldValue(value) {
			return ErrFieldValue
		}
		var err *Refusal
		if len(name) > 0 && name[0] == ':' {
			err = r.pseudo(name, value)
		} else {
			r.regular = true
			err = r.field(name, value)
		}
		if err != nil {
			return err
		}
	}
	if f.long {
		return ErrHeadLong
	}
	return r.complete(f)
}

func (r *requestHead) pseudo(name, value []byte) *Refusal {
	bit := 0
	q := &r.session.request
	switch string(name) {
	case ":method":
		bit, q.Method = seenMethod, value
		if !http.Token(value) {
			return ErrMethod
		}
	case ":scheme":
		bit = seenScheme
		if string(value) != "http" && string(value) != "https" {
			return ErrScheme
		}
	case ":path":
		bit, q.Path = seenPath, value
	case ":authority":
		bit, r.authority = seenAuthority, value
	}
	if bit == 0 || r.seen&bit != 0 || r.regular {
		return ErrPseudo
	}
	r.seen |= bit
	return nil
}

// field takes what one field says of the request, and gives it to the rules.
func (r *requestHead) field(name, value []byte) *Refusal {
	if !lowerToken(name) {
		return ErrFieldName
	}
	switch string(name) {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade", "http2-settings",
		"content_length", "transfer_encoding":
		return ErrConnection
	case "te":
		if string(value) != "trailers" {
			return ErrConnection
		}
	case "host":
		if r.host != nil {
			return ErrAuthority
		}
		r.host = value
		return nil // kept apart, in Host
	case "content-length":
		n := http.Decimal(value)
		if n < 0 || r.length >= 0 {
			return ErrLength
		}
		r.length = n
	case "content-type":
		r.types++
		r.call = r.types == 1 && policy.IsCall(value)
	case "expect":
		if r.expect || !bytes.EqualFold(value, []byte("100-continue")) {
			r.err = ErrExpect
		}
		r.expect = true
	case "cookie":
		if r.crumbs++; r.crumbs > 1 {
			return nil // see complete
		}
	}
	q := &r.session.request
	q.Headers = append(q.Headers, policy.HTTPHeader{Name: name, Value: value})
	return nil
}

// complete judges the parts together.
func (r *requestHead) complete(f *fields) *Refusal {
	q := &r.session.request
	if r.seen&seenMethod == 0 {
		return ErrPseudo
	}
	if r.connect = string(q.Method) == "CONNECT"; r.connect {
		return r.tunnel()
	}
	if r.seen&seenScheme == 0 || r.seen&seenPath == 0 {
		return ErrPseudo
	}
	if q.Host = r.authority; r.seen&seenAuthority == 0 {
		q.Host = r.host
	}
	switch {
	case len(q.Host) == 0, r.host != nil && !bytes.Equal(r.host, q.Host):
		return ErrAuthority
	case len(q.Path) == 0 || q.Path[0] != '/' && (string(q.Path) != "*" || string(q.Method) != "OPTIONS"):
		return ErrPath
	case r.err != nil:
		return r.err
	case !http.ValidHost(q.Host):
		return ErrHost
	}
	if r.crumbs > 1 {
		r.joinCookies(f)
	}
	r.call = r.call && string(q.Method) == "POST"
	return r.normalise()
}

// tunnel judges the parts of a CONNECT (RFC 9113 section 8.5). It goes to a host
// and port; what is sent on the stream is the tunnel's.
func (r *requestHead) tunnel() *Refusal {
	q := &r.session.request
	q.Host, r.call = r.authority, false
	switch {
	case r.seen != seenMethod|seenAuthority:
		return ErrPseudo
	case r.length >= 0 || r.expect:
		return ErrLength
	case !http.ValidHost(q.Host) || q.Host[len(q.Host)-1] == ']' || bytes.IndexByte(q.Host, ':') < 0:
		return ErrHost
	case r.host != nil && !bytes.Equal(r.host, q.Host):
		return ErrAuthority
	}
	return r.err
}

// normalise brings the path into the form that is judged.
func (r *requestHead) normalise() *Refusal {
	s := r.session
	if len(s.request.Path) == 1 && s.request.Path[0] == '*' {
		return nil
	}
	path, differs, err := http.Path(s.path[:0], s.request.Path)
	if err != nil {
		return &Refusal{Code: ErrHost.Code, Status: err.Status, Reason: err.Reason}
	}
	if s.path = path; differs {
		s.request.Path, r.rewritten = path, true
	}
	return nil
}

// joinCookies makes one field of the crumbs (RFC 9113 section 8.2.3), as servers
// will before they read it.
func (r *requestHead) joinCookies(f *fields) {
	s := r.session
	s.cookie = s.cookie[:0]
	for i := range f.ends {
		if name, value := f.at(i); string(name) == "cookie" {
			if len(s.cookie) > 0 {
				s.cookie = append(s.cookie, "; "...)
			}
			s.cookie = append(s.cookie, value...)
		}
	}
	for i := range s.request.Headers {
		if string(s.request.Headers[i].Name) == "cookie" {
			s.request.Headers[i].Value = s.cookie
		}
	}
}

// checkTrailers checks trailers. Fields that a server might merge into the head
// must not undo what was judged there.
func (f *fields) checkTrailers() *Refusal {
	if f.long {
		return ErrTrailer
	}
	for i := range f.ends {
		name, value := f.at(i)
		switch {
		case !lowerToken(name): // pseudo-header fields too
			return ErrTrailer
		case !http.FieldValue(value):
			return ErrFieldValue
		}
		if !http.Trailer(name) {
			return ErrTrailer
		}
	}
	return nil
}

func lowerToken(name []byte) bool {
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return http.Token(name)
}
