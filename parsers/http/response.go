package http

// response is one response head, parsed.
type response struct {
	framing
	status int
	http10 bool
}

// parse reads the head whose lines end where lines says (RFC 9112 section 4).
func (r *response) parse(head []byte, lines []int) *Refusal {
	*r = response{framing: framing{length: -1}}
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
		if err := r.frame(name, value, true); err != nil {
			return err
		}
	}
	switch {
	case r.chunked && r.length >= 0:
		return ErrBothFramings
	case r.chunked && r.http10:
		return ErrCodingVersion
	}
	return nil
}

// line reads the status line. The reason phrase may be missing, with or without
// the space before it.
func (r *response) line(line []byte) *Refusal {
	const version, status = len("HTTP/1.1 "), len("HTTP/1.1 200")
	if len(line) < status || len(line) > status && line[status] != ' ' || !all(line, inValue) {
		return ErrStatusLine
	}
	switch string(line[:version]) {
	case "HTTP/1.1 ":
	case "HTTP/1.0 ":
		r.http10 = true
	default:
		return ErrStatusLine
	}
	for _, c := range line[version:status] {
		if c < '0' || c > '9' {
			return ErrStatusLine
		}
		r.status = r.status*10 + int(c-'0')
	}
	if r.status < 100 {
		return ErrStatusLine
	}
	return nil
}

// bodiless reports whether the response ends with its head (RFC 9112 section
// 6.3, 1).
func (r *response) bodiless(head bool) bool {
	return head || r.status == 204 || r.status == 304
}

// persistent reports whether the server will take more requests.
func (r *response) persistent() bool {
	return !r.close && (!r.http10 || r.keepAlive)
}
