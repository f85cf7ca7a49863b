package http

import (
	"bytes"

	"github.com/headgate/headgate/policy"
)

// request is one request head, parsed. Its slices point into the input, or into
// path; they are valid during one Feed.
type request struct {
	policy.HTTPRequest
	framing
	method    int  // length of the method in the head
	target    int  // end of the target in the head
	rewritten bool // Path is not the target that was received
	anew      bool // Headers are not the fields that were received
	http10    bool
	host      bool
	expect    bool
	connect   bool
	switches  bool   // asks for another protocol, and the server may agree
	authority []byte // of a target in absolute-form or authority-form
	path      []byte // buffer
	options   []byte // buffer
}

// parse reads the head whose lines end where lines says (RFC 9112 sections 3
// and 5).
func (r *request) parse(head []byte, lines []int) *Refusal {
	*r = request{HTTPRequest: policy.HTTPRequest{Headers: r.Headers[:0]}, framing: framing{length: -1}, path: r.path[:0], options: r.options[:0]}
	if err := r.line(head[:lines[0]-2]); err != nil {
		return err
	}
	start := lines[0]
	for _, end := range lines[1:] {
		name, value, err := field(head[start : end-2])
		if err != nil {
			return err
		}
		start = end
		r.Headers = append(r.Headers, policy.HTTPHeader{Name: name, Value: value})
		if err := r.field(name, value); err != nil {
			return err
		}
	}
	switch {
	case !r.host && !r.http10:
		return ErrHostMissing
	case r.connect:
		if err := r.tunnelTo(); err != nil {
			return err
		}
	case string(r.Method) == "TRACE" && (r.length > 0 || r.chunked):
		return ErrTrace
	case r.authority != nil && !bytes.Equal(r.authority, r.Host):
		return ErrAuthority
	case r.chunked && r.length >= 0:
		return ErrBothFramings
	case r.chunked && r.http10:
		return ErrCodingVersion
	case r.option || r.unknown && r.nominates():
		return ErrOption
	}
	if r.upgrade || r.settings {
		r.settleUpgrade()
	}
	return nil
}

// tunnelTo settles a CONNECT (RFC 9110 section 9.3.6): it is judged by where it
// wants to go, with the port, and has no content.
func (r *request) tunnelTo() *Refusal {
	switch {
	case r.length > 0 || r.chunked || r.expect:
		return ErrConnect
	case r.host && !bytes.Equal(r.Host, r.authority) && !bytes.Equal(r.Host, r.authority[:bytes.LastIndexByte(r.authority, ':')]):
		return ErrAuthority
	}
	if r.Host = r.authority; r.host {
		for i := range r.Headers {
			if h := &r.Headers[i]; equalFold(h.Name, "host") && len(h.Value) != len(r.authority) {
				h.Value, r.anew = r.authority, true
			}
		}
	}
	return nil
}

// nominates reports whether Connection names a field that was sent: the next hop
// would drop what was judged (RFC 9110 section 7.6.1).
func (r *request) nominates() bool {
	for i := range r.Headers {
		if !equalFold(r.Headers[i].Name, "connection") {
			continue
		}
		for value := r.Headers[i].Value; len(value) > 0; {
			var o []byte
			if o, value = item(value); len(o) == 0 || ownOption(o) {
				continue
			}
			for k := range r.Headers {
				if bytes.EqualFold(r.Headers[k].Name, o) {
					return true
				}
			}
		}
	}
	return false
}

// line reads the request line.
func (r *request) line(line []byte) *Refusal {
	r.method = token(line)
	if r.method == 0 || r.method == len(line) || line[r.method] != ' ' {
		return ErrMethod
	}
	r.Method = line[:r.method]
	rest := line[r.method+1:]
	n := bytes.IndexByte(rest, ' ')
	if n < 0 {
		return ErrVersion
	}
	if n == 0 {
		return ErrRequestLine
	}
	r.target = r.method + 1 + n
	target, version := rest[:n], rest[n+1:]
	switch string(version) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		r.http10 = true
	default:
		if bytes.IndexByte(version, ' ') >= 0 {
			return ErrRequestLine
		}
		if bytes.IndexByte(target, '/') < 0 && bytes.IndexByte(version, '/') < 0 {
			return ErrNotHTTP
		}
		return ErrVersion
	}
	if err := checkTarget(target); err != nil {
		return err
	}
	if string(r.Method) == "CONNECT" {
		if !validHost(target) || target[0] == '[' && target[n-1] == ']' || bytes.IndexByte(target, ':') < 0 {
			return ErrTarget
		}
		r.connect, r.authority = true, target
		return nil
	}
	return r.form(target)
}

// maxMethod is more than any method that is registered has.
const maxMethod = 64

// beginsMethod reports whether bytes can be the start of a request line.
func beginsMethod(data []byte) bool {
	n := token(data[:min(len(data), maxMethod+1)])
	return n > 0 && n <= maxMethod && (n == len(data) || data[n] == ' ')
}

// form takes the target apart by its form (RFC 9112 section 3.2) and brings the
// path into normal form.
func (r *request) form(target []byte) *Refusal {
	options := string(r.Method) == "OPTIONS"
	switch {
	case target[0] == '/':
	case len(target) == 1 && target[0] == '*' && options:
		r.Path = target
		return nil
	case len(target) > len("http://") && equalFold(target[:len("http://")], "http://"):
		r.rewritten = true
		target = target[len("http://"):]
		n := bytes.IndexAny(target, "/?")
		if n < 0 {
			n = len(target)
		}
		r.authority, target = target[:n], target[n:]
		if len(target) == 0 && options { // section 3.2.4
			r.path = append(r.path, '*')
			r.Path = r.path
			return nil
		}
	default:
		return ErrTarget
	}
	path, differs, err := Path(r.path, target)
	if r.path, r.Path = path, target; differs {
		r.Path, r.rewritten = path, true
	}
	return err
}

// field takes what one field says of the request.
func (r *request) field(name, value []byte) *Refusal {
	switch len(name) {
	case len("Host"):
		if equalFold(name, "host") {
			if r.host {
				return ErrHostRepeated
			}
			if !validHost(value) {
				return ErrHost
			}
			r.host, r.Host = true, value
		}
		return nil
	case len("Expect"):
		if equalFold(name, "expect") {
			if r.expect || !equalFold(value, "100-continue") {
				return ErrExpect
			}
			r.expect = true
		}
		return nil
	}
	return r.frame(name, value, false)
}

// Servers that expect no content in a request often do not read it, and then take
// it for the next one (the class CL.0). So they are told that there is no next one, but
// for methods that have content by their definition.
func (r *request) closeBehindContent() {
	if !r.unexpected() {
		return
	}
	r.dropOptions("close", "keep-alive")
	r.Headers = append(r.Headers, policy.HTTPHeader{Name: connectionField, Value: closeOption})
	r.close = true
}

// unexpected reports whether the request has content, which its method does not define.
func (r *request) unexpected() bool {
	if r.length <= 0 && !r.chunked {
		return false
	}
	switch string(r.Method) {
	case "POST", "PUT", "PATCH", "QUERY", "SEARCH", "REPORT", "PROPFIND", "PROPPATCH", "MKCOL", "MKCALENDAR", "LOCK", "ACL", "COPY", "MOVE":
		return false
	}
	return true
}

var connectionField, closeOption = []byte("Connection"), []byte("close")

// persistent reports whether the client will wait for more on this connection
// (RFC 9112 section 9.3).
func (r *request) persistent() bool {
	return !r.close && (!r.http10 || r.keepAlive)
}

// appendHead writes the head again with the path that was judged, and with other
// fields if anew.
func (r *request) appendHead(dst, head []byte) []byte {
	dst = append(dst, head[:r.method+1]...)
	if r.rewritten {
		dst = append(dst, r.Path...)
	} else {
		dst = append(dst, head[r.method+1:r.target]...)
	}
	if !r.anew {
		return append(dst, head[r.target:]...)
	}
	dst = append(dst, head[r.target:r.target+len(" HTTP/1.1\r\n")]...)
	for _, h := range r.Headers {
		dst = append(dst, h.Name...)
		dst = append(dst, ": "...)
		dst = append(dst, h.Value...)
		dst = append(dst, "\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// validHost accepts names, IPv4 addresses and IPv6 addresses in brackets, with
// or without a port. Escapes and sub-delimiters, which RFC 3986 has, name no
// host that exists.
func validHost(h []byte) bool {
	n := 0
	if len(h) > 0 && h[0] == '[' {
		for n++; n < len(h) && (hex(h[n]) >= 0 || h[n] == ':' || h[n] == '.'); n++ {
		}
		if n < 3 || n == len(h) || h[n] != ']' {
			return false
		}
		n++
	} else {
		for n < len(h) && is(h[n], inHost) {
			n++
		}
	}
	if n == 0 || n == len(h) {
		return n > 0
	}
	port := h[n:]
	if port[0] != ':' || len(port) < 2 || len(port) > 6 {
		return false
	}
	for _, c := range port[1:] {
		if c < '0' || c > '9' {
			return false
		}
	}
	return len(port) < 6 || string(port) <= ":65535"
}
