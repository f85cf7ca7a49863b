package http

import "bytes"

// What HTTP/2 has in common with HTTP/1 is judged by the same code.

// Path brings the path and query of a target in origin-form into the form that is
// judged, appended to dst, and reports whether it differs. If not, dst may have
// been written to, but the form is the target.
func Path(dst, target []byte) (form []byte, differs bool, err *Refusal) {
	if err := checkTarget(target); err != nil {
		return dst, false, err
	}
	path, query := target, []byte(nil)
	if n := bytes.IndexByte(target, '?'); n >= 0 {
		path, query = target[:n], target[n:]
	}
	if len(path) > 0 && plainPath(path) {
		return dst, false, nil
	}
	if len(path) == 0 {
		dst = append(dst, '/')
	} else {
		normal, err := NormalPath(dst, path)
		if err != nil {
			return dst, false, err.(*Refusal)
		}
		if dst = normal; bytes.Equal(normal, path) {
			return dst, false, nil
		}
	}
	return append(dst, query...), true, nil
}

func checkTarget(target []byte) *Refusal {
	switch {
	case all(target, inTarget):
		return nil
	case bytes.IndexByte(target, '#') >= 0:
		return ErrFragment
	}
	return ErrTarget
}

// ValidHost reports whether a Host names a host, with or without a port.
func ValidHost(h []byte) bool { return validHost(h) }

// Token reports whether b is one (RFC 9110 section 5.6.2).
func Token(b []byte) bool { return len(b) > 0 && all(b, inToken) }

// FieldValue reports whether b can be the value of a field, without white space
// around it.
func FieldValue(b []byte) bool { return all(b, inValue) && len(trim(b)) == len(b) }

// Trailer reports whether a field of this name may stand behind a request's body. Those of
// framing, routing, authentication, content and control may not (RFC 9110 section 6.5.1;
// RFC 7230 section 4.1.2 names them): servers that merge trailers into the head would
// have them judged by nobody. Some take an underscore for a hyphen.
func Trailer(name []byte) bool {
	for _, f := range [...]string{
		"content-length", "transfer-encoding", "trailer", "te", "connection", "proxy-connection", "keep-alive", "upgrade", "http2-settings",
		"host", "max-forwards", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-http-method-override",
		"authorization", "proxy-authorization", "cookie", "content-encoding", "content-type", "content-range",
		"expect", "range", "if-match", "if-none-match", "if-modified-since", "if-unmodified-since", "if-range", "cache-control", "pragma",
	} {
		if sameName(name, f) {
			return false
		}
	}
	return true
}

// sameName compares a field name with one in lower case, underscores being hyphens.
func sameName(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i, c := range name {
		switch {
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		case c == '_':
			c = '-'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// Decimal reads digits without sign or leading zeros; -1 is anything else.
func Decimal(b []byte) int64 { return decimal(b) }
