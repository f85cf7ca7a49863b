package http

import (
	"bytes"
	"math"
)

// headScan finds the end of a head line by line. What it saw is kept across
// calls, so that a head fed in pieces is searched once.
type headScan struct {
	pos   int   // searched so far
	lines []int // end of each line, CRLF included
}

func (h *headScan) reset() { h.pos, h.lines = 0, h.lines[:0] }

// scan returns the length of the head at the start of data, or 0 when it is not
// complete yet. Sizes are checked before contents, so that the answer does not
// depend on how the bytes came in.
func (h *headScan) scan(data []byte, firstLine, size, lines int) (int, *Refusal) {
	for {
		start := 0
		if n := len(h.lines); n > 0 {
			start = h.lines[n-1]
		}
		i := bytes.IndexByte(data[h.pos:], '\n')
		end := h.pos + i + 1
		if i < 0 {
			end = len(data)
		}
		switch {
		case start == 0 && end > firstLine:
			return 0, ErrLineLong
		case end > size:
			return 0, ErrHeadLong
		case i < 0:
			h.pos = end
			return 0, nil
		case end-start < 2 || data[end-2] != '\r':
			return 0, ErrLineEnd
		}
		if end-start == 2 {
			return end, nil
		}
		h.pos = end
		h.lines = append(h.lines, end)
		if len(h.lines) > lines {
			return 0, ErrFieldsMany
		}
	}
}

// field splits a field line, without its CRLF (RFC 9112 section 5).
func field(line []byte) (name, value []byte, err *Refusal) {
	i := 0
	for i < len(line) && is(line[i], inToken) {
		i++
	}
	if i == 0 || i == len(line) || line[i] != ':' {
		if len(line) > 0 && (line[0] == ' ' || line[0] == '\t') {
			return nil, nil, ErrFolded
		}
		return nil, nil, ErrFieldName
	}
	if !all(line[i+1:], inValue) {
		return nil, nil, ErrFieldValue
	}
	return line[:i], trim(line[i+1:]), nil
}

// framing is what the fields of a head say about where its message ends and
// what becomes of the connection.
type framing struct {
	length    int64 // -1: none
	chunked   bool
	close     bool
	keepAlive bool
	upgrade   bool
	settings  bool // HTTP2-Settings

	// What Connection names:
	upgradeOption bool
	option        bool // what must not be removed on the way
	unknown       bool // something else
}

// frame takes the fields that requests and responses have in common.
// again allows a second Content-Length of the same value.
func (f *framing) frame(name, value []byte, again bool) *Refusal {
	switch len(name) {
	case len("Upgrade"):
		if equalFold(name, "upgrade") {
			f.upgrade = true
		}
	case len("Connection"):
		if equalFold(name, "connection") {
			f.options(value)
		}
	case len("Content-Length"):
		switch {
		case equalFold(name, "content-length"):
			n := decimal(value)
			switch {
			case f.length >= 0 && (!again || f.length != n):
				return ErrLengthTwice
			case n < 0:
				return ErrLength
			}
			f.length = n
		case equalFold(name, "http2-settings"):
			f.settings = true
		case equalFold(name, "content_length"):
			return ErrUnderscore
		}
	case len("Transfer-Encoding"):
		switch {
		case equalFold(name, "transfer-encoding"):
			if f.chunked || !equalFold(value, "chunked") {
				return ErrCoding
			}
			f.chunked = true
		case equalFold(name, "transfer_encoding"):
			return ErrUnderscore
		}
	}
	return nil
}

// options reads a Connection field (RFC 9110 section 7.6.1).
func (f *framing) options(value []byte) {
	for len(value) > 0 {
		var o []byte
		o, value = item(value)
		switch {
		case equalFold(o, "close"):
			f.close = true
		case equalFold(o, "keep-alive"):
			f.keepAlive = true
		case equalFold(o, "upgrade"):
			f.upgradeOption = true
		case equalFold(o, "host"), equalFold(o, "content-length"), equalFold(o, "transfer-encoding"):
			f.option = true
		case len(o) > 0 && !ownOption(o):
			f.unknown = true
		}
	}
}

// ownOption reports whether an option of Connection is about the connection
// itself, so that no rule is about a field of that name.
func ownOption(o []byte) bool {
	for _, known := range [...]string{"close", "keep-alive", "upgrade", "http2-settings", "te", "proxy-connection"} {
		if equalFold(o, known) {
			return true
		}
	}
	return false
}

// decimal reads digits without sign or leading zeros; -1 is anything else.
func decimal(b []byte) int64 {
	if len(b) == 0 || len(b) > 1 && b[0] == '0' {
		return -1
	}
	var n int64
	for _, c := range b {
		if c < '0' || c > '9' || n > (math.MaxInt64>>1)/10 {
			return -1
		}
		n = n*10 + int64(c-'0')
	}
	return n
}
