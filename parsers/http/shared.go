package http

import "bytes"

// What HTTP/2 has in common with HTTP/1 is judged by the same code.

// Path brings the path and query of a target in origin-form into the form that is
// judged. It appends that to dst and returns it, or nil if it is what came.
func Path(dst, target []byte) ([]byte, *Refusal) {
	if !all(target, inTarget) {
		if bytes.IndexByte(target, '#') >= 0 {
			return nil, ErrFragment
		}
		return nil, ErrTarget
	}
	path, query := target, []byte(nil)
	if n := bytes.IndexByte(target, '?'); n >= 0 {
		path, query = target[:n], target[n:]
	}
	if len(path) > 0 && plainPath(path) {
		return nil, nil
	}
	if len(path) == 0 {
		dst = append(dst, '/')
	} else {
		form, err := NormalPath(dst, path)
		if err != nil {
			return nil, err.(*Refusal)
		}
		if dst = form; bytes.Equal(form, path) {
			return nil, nil
		}
	}
	return append(dst, query...), nil
}

// ValidHost reports whether a Host names a host, with or without a port.
func ValidHost(h []byte) bool { return validHost(h) }

// Token reports whether b is one (RFC 9110 section 5.6.2).
func Token(b []byte) bool { return len(b) > 0 && all(b, inToken) }

// FieldValue reports whether b can be the value of a field, without white space
// around it.
func FieldValue(b []byte) bool { return all(b, inValue) && len(trim(b)) == len(b) }

// Decimal reads digits without sign or leading zeros; -1 is anything else.
func Decimal(b []byte) int64 { return decimal(b) }
