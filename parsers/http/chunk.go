package http

import "bytes"

// chunks follows a chunked body (RFC 9112 section 7.1) without holding any of
// it: chunk data are only counted.
type chunks struct {
	state    chunkState
	fields   int
	trailers int  // bytes of the trailer section so far
	lenient  bool // a response: white space behind the size, any extension
}

type chunkState uint8

const (
	atSize chunkState = iota
	atDataEnd
	atTrailer
)

// next returns how many bytes can go on: whole lines that were checked, and
// chunk data, which may go past what is there. done says that the body ends
// behind them.
func (c *chunks) next(data []byte, l *Limits) (n int64, done bool, err *Refusal) {
	for n < int64(len(data)) {
		rest := data[n:]
		if c.state == atDataEnd {
			switch {
			case rest[0] != '\r' || len(rest) > 1 && rest[1] != '\n':
				return n, false, ErrChunk
			case len(rest) == 1:
				return n, false, nil
			}
			n, c.state = n+2, atSize
			continue
		}
		limit, long := l.ChunkLine, ErrChunk
		if c.state == atTrailer {
			limit, long = l.Trailers-c.trailers, ErrHeadLong
		}
		end := bytes.IndexByte(rest, '\n') + 1
		switch {
		case end > limit, end == 0 && len(rest) > limit:
			return n, false, long
		case end == 0:
			return n, false, nil
		case end < 2 || rest[end-2] != '\r':
			return n, false, ErrLineEnd
		}
		n += int64(end)
		if c.state == atSize {
			size, err := chunkSize(rest[:end-2], c.lenient)
			if err != nil {
				return n - int64(end), false, err
			}
			n, c.state = n+size, atDataEnd
			if size == 0 {
				c.state = atTrailer
			}
			continue
		}
		if end == 2 {
			return n, true, nil
		}
		c.trailers += end
		if err := c.trailer(rest[:end-2], l); err != nil {
			return n - int64(end), false, err
		}
	}
	return n, false, nil
}

// trailer checks one trailer field (RFC 9110 section 6.5.1). Fields that a
// server might merge into the head must not undo what was judged there.
func (c *chunks) trailer(line []byte, l *Limits) *Refusal {
	if c.fields++; c.fields > l.Headers {
		return ErrFieldsMany
	}
	name, _, err := field(line)
	if err != nil || c.lenient {
		return err
	}
	if !Trailer(name) {
		return ErrTrailer
	}
	return nil
}

// chunkSize reads a chunk-size line without its CRLF.
func chunkSize(line []byte, lenient bool) (int64, *Refusal) {
	var n int64
	i := 0
	for ; i < len(line) && hex(line[i]) >= 0; i++ {
		// Half of the range stays free, so that sums of lengths do not wrap.
		if n >= 1<<57 {
			return 0, ErrChunk
		}
		n = n<<4 | int64(hex(line[i]))
	}
	if i == 0 || i > 16 {
		return 0, ErrChunk
	}
	ext := line[i:]
	if lenient {
		if ext = trimRight(ext); len(ext) > 0 && trim(ext)[0] != ';' || !all(ext, inValue) {
			return 0, ErrChunk
		}
		return n, nil
	}
	for len(ext) > 0 {
		if ext = extension(ext); ext == nil {
			return 0, ErrChunk
		}
	}
	return n, nil
}

// extension returns what is behind the chunk extension at the start of b, nil
// when it is malformed: ;name, ;name=token or ;name="quoted".
func extension(b []byte) []byte {
	name := token(b[1:])
	if b[0] != ';' || name == 0 {
		return nil
	}
	b = b[1+name:]
	if len(b) == 0 || b[0] != '=' {
		return b
	}
	b = b[1:]
	if n := token(b); n > 0 {
		return b[n:]
	}
	if len(b) == 0 || b[0] != '"' {
		return nil
	}
	for i := 1; i < len(b); i++ {
		switch {
		case !is(b[i], inValue) || b[i] >= 0x80:
			return nil
		case b[i] == '"':
			return b[i+1:]
		case b[i] == '\\':
			i++
			if i < len(b) && !is(b[i], inValue) {
				return nil
			}
		}
	}
	return nil
}

// token is the length of the token at the start of b.
func token(b []byte) int {
	n := 0
	for n < len(b) && is(b[n], inToken) {
		n++
	}
	return n
}
