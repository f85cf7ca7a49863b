package http2

import (
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// side is what is known of what one side sends.
type side struct {
	greeted bool // its SETTINGS have
	partial bool // input is left that makes no whole
	waits   bool // for the other side, not for more input
	fin     bool // CloseWrite was given to its peer
	pings   int  // that its peer has not answered

	// What its peer allows it. A new value binds when this side has acknowledged it;
	// a larger one may be used from when it was sent on.
	maxFrame uint32
	table    int64     // bytes that its encoder may have remembered
	pending  []allowed // not acknowledged yet

	block   block
	decoder *hpack.Decoder
	due     int64 // a table size update to at most this must begin the next block; -1: none
	literal bool  // what goes on is encoded here, since not all blocks did
	cleared bool  // and its peer's table was emptied
	fields  fields
	encoded []byte // buffer
	name    []byte // buffer
}

// allowed is what a SETTINGS frame says; zero values, and -1 of a table: nothing.
type allowed struct {
	table    int64
	maxFrame uint32
}

// block is a header block that is arriving: HEADERS and their CONTINUATION.
type block struct {
	pos    int // searched so far
	frames int
	size   int // of the fragments
}

func (d *side) start(head int) {
	d.maxFrame, d.table, d.due = minFrame, defaultTable, -1
	d.fields.limit = head
	d.decoder = hpack.NewDecoder(defaultTable, d.fields.add)
}

// fields of a decoded block.
type fields struct {
	text  []byte
	ends  []end
	size  int // as RFC 9113 section 6.5.2 counts
	limit int
	most  int
	long  bool
}

// end of a name and of its value in text.
type end struct {
	name, value int
	sensitive   bool
}

func (f *fields) reset() { f.text, f.ends, f.size, f.long = f.text[:0], f.ends[:0], 0, false }

// add is what the decoder calls. Past the limit nothing is kept, but the decoder
// goes on, since later blocks refer to what this one puts into the table.
func (f *fields) add(h hpack.HeaderField) {
	if f.size += len(h.Name) + len(h.Value) + 32; f.size > f.limit || len(f.ends) >= f.most {
		f.long = true
		return
	}
	f.text = append(f.text, h.Name...)
	name := len(f.text)
	f.text = append(f.text, h.Value...)
	f.ends = append(f.ends, end{name, len(f.text), h.Sensitive})
}

func (f *fields) at(i int) (name, value []byte) {
	start := 0
	if i > 0 {
		start = f.ends[i-1].value
	}
	e := f.ends[i]
	return f.text[start:e.name:e.name], f.text[e.name:e.value:e.value]
}

// headers reads a header block. Nothing of it is consumed before it is whole: then
// it is judged, and goes on or does not.
func (s *Session) headers(from parsers.Side, f http2.FrameHeader, data []byte) (int64, bool) {
	d := &s.sides[from]
	b := &d.block
	for {
		if len(data) < b.pos+frameHead {
			return 0, true
		}
		h := readHead(data[b.pos:])
		if b.pos > 0 && (h.Type != http2.FrameContinuation || h.StreamID != f.StreamID) {
			return s.fail(from, ErrContinuation)
		}
		if h.Length > d.maxFrame {
			return s.fail(from, ErrFrameLong)
		}
		if b.size+int(h.Length) > s.limits.Head || b.frames > s.limits.Continuations {
			return s.fail(from, ErrBlockLong)
		}
		if len(data) < b.pos+frameHead+int(h.Length) {
			return 0, true
		}
		b.pos += frameHead + int(h.Length)
		b.size += int(h.Length)
		b.frames++
		if h.Flags.Has(http2.FlagHeadersEndHeaders) {
			break
		}
	}
	whole := data[:b.pos]
	*b = block{}
	depends, ok := s.decode(from, f, whole)
	if !ok {
		return 0, true
	}
	if from == parsers.Server {
		return s.answerHead(f, whole)
	}
	return s.clientHeaders(f, whole, data[len(whole):], depends)
}

// decode decodes a block into the side's fields.
func (s *Session) decode(from parsers.Side, f http2.FrameHeader, whole []byte) (depends uint32, ok bool) {
	d := &s.sides[from]
	d.fields.reset()
	d.fields.most = s.limits.Fields
	for pos := 0; pos < len(whole); {
		h := readHead(whole[pos:])
		payload := whole[pos+frameHead : pos+frameHead+int(h.Length)]
		first := pos == 0
		pos += frameHead + int(h.Length)
		if first {
			if payload, depends, ok = fragment(f, payload); !ok {
				s.fail(from, ErrPadding)
				return 0, false
			}
		}
		if d.due >= 0 && len(payload) > 0 {
			if size, n := tableUpdate(payload); n == 0 || size > uint64(d.due) {
				s.fail(from, ErrTableUnshrunk)
				return 0, false
			}
			d.due = -1
		}
		if _, err := d.decoder.Write(payload); err != nil {
			s.fail(from, ErrCompression)
			return 0, false
		}
	}
	if d.decoder.Close() != nil {
		s.fail(from, ErrCompression)
		return 0, false
	}
	return depends, true
}

// tableUpdate reads the table size update at the start of b, of n bytes.
func tableUpdate(b []byte) (size uint64, n int) {
	if b[0]&0xe0 != 0x20 {
		return 0, 0
	}
	if size = uint64(b[0] & 0x1f); size < 0x1f {
		return size, 1
	}
	for shift := 0; shift < 32; shift += 7 {
		if n++; n >= len(b) {
			return 0, 0
		}
		if size += uint64(b[n]&0x7f) << shift; b[n]&0x80 == 0 {
			return size, n + 1
		}
	}
	return 0, 0
}

// fragment takes padding and priority off a HEADERS frame's payload. depends is
// the stream that it names, 0: none.
func fragment(f http2.FrameHeader, p []byte) (rest []byte, depends uint32, ok bool) {
	pad := 0
	if f.Flags.Has(http2.FlagHeadersPadded) {
		if len(p) < 1 {
			return nil, 0, false
		}
		pad, p = int(p[0]), p[1:]
	}
	if f.Flags.Has(http2.FlagHeadersPriority) {
		if len(p) < 5 {
			return nil, 0, false
		}
		depends = uint32(p[0]&0x7f)<<24 | uint32(p[1])<<16 | uint32(p[2])<<8 | uint32(p[3])
		p = p[5:]
	}
	if pad > len(p) {
		return nil, 0, false
	}
	return p[:len(p)-pad], depends, true
}

// rewrite is what is to be changed of a block before it goes on.
type rewrite struct {
	path   []byte              // nil: as it is
	edited bool                // other fields than those that were sent:
	fields []policy.HTTPHeader // but Host, which is never edited
}

// pass lets the block that was decoded last go on: as it came, or, from the first
// that did not go on as it came, encoded anew. The peer's table is then out of
// step with the sender's, so it is emptied, and nothing is put into it any more.
func (s *Session) pass(from parsers.Side, f http2.FrameHeader, whole []byte, r rewrite) int64 {
	d := &s.sides[from]
	if !d.literal && r.path == nil && !r.edited {
		return s.move(parsers.Forward, int64(len(whole)))
	}
	n := s.without(from, whole)
	start := len(s.out)
	s.out = d.encode(s.out, f, &r)
	s.send(from.Peer(), start)
	return n
}

// without takes a block out.
func (s *Session) without(from parsers.Side, whole []byte) int64 {
	s.sides[from].literal = true
	return s.move(parsers.Discard, int64(len(whole)))
}

// encode appends the side's fields as frames.
func (d *side) encode(out []byte, f http2.FrameHeader, r *rewrite) []byte {
	block := d.begin(d.encoded[:0])
	for i := range d.fields.ends {
		name, value := d.fields.at(i)
		switch {
		case r.path != nil && string(name) == ":path":
			value = r.path
		case r.edited && name[0] != ':' && string(name) != "host":
			continue
		}
		block = appendField(block, name, value, d.fields.ends[i].sensitive)
	}
	for _, h := range r.fields {
		d.name = appendLower(d.name[:0], h.Name)
		block = appendField(block, d.name, h.Value, false)
	}
	d.encoded = block[:0]
	return appendBlock(out, f.StreamID, block, f.Flags.Has(http2.FlagHeadersEndStream))
}

// begin appends what must stand before a block made here: the size of the table,
// where it changes.
func (d *side) begin(block []byte) []byte {
	switch {
	case d.literal && !d.cleared:
		d.cleared = true
		return append(block, 0x20)
	case !d.literal && d.due >= 0:
		return appendInt(block, 0x20, 5, uint64(d.due))
	}
	return block
}

func appendLower(b, name []byte) []byte {
	for _, c := range name {
		if c >= 'A' && c <= 'Z' {
			c += 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}
