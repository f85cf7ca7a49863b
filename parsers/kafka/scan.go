package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// maxMarks bounds what one request may name, and maxMarksAnswer one answer.
const (
	maxMarks       = 50_000
	maxMarksAnswer = 400_000
)

var errShort = errors.New("a field is longer than what it is in")

// scan is what was found in a message: what rules are about, and where the
// elements of lists are that hold it. Every field is checked against the layout
// before anything else looks at the message, so that what is claimed (a length, a
// count, a number of tags) never costs more than what was sent.
type scan struct {
	b        []byte
	pos, end int
	version  int16
	flexible bool
	max      int
	over     int // bytes that are left over
	err      error
	heads    bool  // stop at the first list that holds what rules are about
	code     int16 // the first error in an answer
	inside   int32 // the element that is being read
	resource byte  // the last kindResourceType
	keyType  byte  // kindCoordinatorType
	tagged   bool  // a tagged field was sent

	marks    []mark
	elements []element
	lists    []list
}

// mark is one thing that rules are about.
type mark struct {
	kind    kind
	null    bool
	element int32 // that it is in, -1: the message
	text    []byte
}

// element of a list.
type element struct {
	list       int32
	start, end int32
}

// list is where the count of a list stands.
type list struct {
	at, end int32
	n       int32
	null    bool
	structs bool
	parent  int32 // element that it is in
}

// read checks body against a layout. Nothing may be left over.
func (s *scan) read(m *message, version int16, body []byte, most int) error {
	s.begin(m, version, body, most)
	s.fields(m.fields)
	if s.err == nil && s.pos != s.end {
		s.over = s.end - s.pos
		s.err = fmt.Errorf("%d bytes are left over", s.over)
	}
	return s.err
}

func (s *scan) begin(m *message, version int16, body []byte, most int) {
	*s = scan{
		b: body, end: len(body), version: version, flexible: version >= m.flexible, inside: -1, max: most,
		marks: s.marks[:0], elements: s.elements[:0], lists: s.lists[:0],
	}
}

// first finds, in the beginning of a message, the first list of what rules are
// about. False: it is not there, or not yet.
func (s *scan) first(m *message, version int16, part []byte) (list, bool) {
	s.begin(m, version, part, 1)
	s.heads = true
	s.fields(m.fields)
	if len(s.lists) == 0 || s.err != errStop {
		return list{}, false
	}
	return s.lists[0], true
}

// errorCode returns the first error in the beginning of an answer.
func (s *scan) errorCode(m *message, version int16, part []byte) int16 {
	s.begin(m, version, part, 64)
	s.fields(m.fields)
	return s.code
}

var errStop = errors.New("found")

func (s *scan) fail(err error) {
	if s.err == nil {
		s.err, s.pos = err, s.end
	}
}

func (s *scan) span(n int) []byte {
	if n < 0 || n > s.end-s.pos {
		s.fail(errShort)
		return nil
	}
	s.pos += n
	return s.b[s.pos-n : s.pos]
}

func (s *scan) int8() int8 {
	if b := s.span(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (s *scan) int16() int16 {
	if b := s.span(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (s *scan) int32() int32 {
	if b := s.span(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (s *scan) uvarint() uint32 {
	var v uint32
	for shift := 0; shift < 35; shift += 7 {
		b := byte(s.int8())
		if shift == 28 && b > 0x0f {
			break
		}
		if v |= uint32(b&0x7f) << shift; b < 0x80 {
			return v
		}
	}
	s.fail(errors.New("a number has more than 32 bits"))
	return 0
}

// length of bytes or of a list; -1 is null.
func (s *scan) length() int {
	if s.flexible {
		return int(s.uvarint()) - 1
	}
	return int(s.int32())
}

func (s *scan) stringLength() int {
	if s.flexible {
		return int(s.uvarint()) - 1
	}
	return int(s.int16())
}

func (s *scan) fields(list []field) {
	for i := range list {
		if f := &list[i]; f.versions.has(s.version) && !(s.flexible && f.tagged.has(s.version)) {
			s.value(f)
		}
		if s.err != nil {
			return
		}
	}
	if s.flexible {
		s.tags(list)
	}
}

// tags reads the tagged fields of a struct: in order, each once, each exactly as
// long as it says.
func (s *scan) tags(list []field) {
	last := int64(-1)
	n := s.uvarint()
	for s.tagged = s.tagged || n > 0; n > 0 && s.err == nil; n-- {
		tag, size := s.uvarint(), int64(s.uvarint())
		if int64(tag) <= last || size > int64(s.end-s.pos) {
			s.fail(errors.New("tagged fields are not in order, or longer than what they are in"))
			return
		}
		last = int64(tag)
		outer := s.end
		s.end = s.pos + int(size)
		if f := tagged(list, tag, s.version); f != nil {
			s.value(f)
		} else {
			s.pos = s.end
		}
		if s.err == nil && s.pos != s.end {
			s.fail(errors.New("a tagged field is shorter than it says"))
		}
		s.end = outer
	}
}

func tagged(list []field, tag uint32, version int16) *field {
	for i := range list {
		if f := &list[i]; f.tag == tag && f.tagged.has(version) && f.versions.has(version) {
			return f
		}
	}
	return nil
}

func (s *scan) value(f *field) {
	if !f.array {
		s.single(f)
		return
	}
	at := s.pos
	n := s.length()
	if s.err != nil {
		return
	}
	if s.heads && f.names {
		s.lists = append(s.lists, list{at: int32(at), end: int32(s.pos), n: int32(max(n, 0))})
		s.fail(errStop)
		return
	}
	if n < -1 || n == -1 && !f.null.has(s.version) || n > s.end-s.pos {
		s.fail(errors.New("a list has a count that cannot be"))
		return
	}
	which := int32(len(s.lists))
	if f.names {
		s.lists = append(s.lists, list{at: int32(at), end: int32(s.pos), n: int32(max(n, 0)), null: n < 0, structs: f.kind == kindStruct, parent: s.inside})
	} else if f.kind == kindFixed {
		s.span(max(n, 0) * f.size)
		return
	}
	outer := s.inside
	for range n {
		if f.names {
			if len(s.elements) >= s.max {
				s.fail(fmt.Errorf("more than %d things are named", s.max))
				return
			}
			s.inside = int32(len(s.elements))
			s.elements = append(s.elements, element{list: which, start: int32(s.pos)})
		}
		s.single(f)
		if f.names {
			s.elements[s.inside].end = int32(s.pos)
			s.inside = outer
		}
		if s.err != nil {
			return
		}
	}
}

func (s *scan) single(f *field) {
	null := f.null.has(s.version) && !f.array
	switch f.kind {
	case kindFixed:
		s.span(f.size)
	case kindError:
		if code := s.int16(); s.code == 0 {
			s.code = code
		}
	case kindTopicID:
		s.mark(f.kind, s.span(16), false)
	case kindResourceType:
		s.resource = byte(s.int8())
	case kindCoordinatorType:
		s.keyType = byte(s.int8())
	case kindStruct:
		if !null || s.int8() >= 0 {
			s.fields(f.fields)
		}
	case kindBytes:
		s.bytes(s.length(), null)
	default:
		text, isNull := s.bytes(s.stringLength(), null)
		if f.kind != kindString {
			s.mark(f.kind, text, isNull)
		}
	}
}

func (s *scan) bytes(n int, nullable bool) (b []byte, null bool) {
	if n == -1 && nullable {
		return nil, true
	}
	return s.span(n), false
}

func (s *scan) mark(k kind, text []byte, null bool) {
	if s.err != nil {
		return
	}
	if len(s.marks) >= 2*s.max {
		s.fail(fmt.Errorf("more than %d things are named", s.max))
		return
	}
	if k == kindResource {
		switch s.resource {
		case 2:
			k = kindTopic
		case 32:
			k = kindGroup
		}
	}
	s.marks = append(s.marks, mark{kind: k, null: null, element: s.inside, text: text})
}

// cut returns the message without the elements for which drop says so, or, with
// only, with nothing but those and what they are in. Lists keep their form.
func (s *scan) cut(b []byte, drop func(int32) bool) []byte {
	counts := make([]int32, len(s.lists))
	gone := make([]bool, len(s.elements))
	for i := range s.lists {
		counts[i] = s.lists[i].n
	}
	for i := range s.elements {
		if gone[i] = drop(int32(i)); gone[i] {
			counts[s.elements[i].list]--
		}
	}
	// Lists and elements are each in the order in which they stand; a list stands
	// before its elements.
	from, e := 0, 0
	for l := 0; l <= len(s.lists); l++ {
		next := math.MaxInt
		if l < len(s.lists) {
			next = int(s.lists[l].at)
		}
		for e < len(s.elements) && int(s.elements[e].start) < next {
			if el := &s.elements[e]; gone[e] && int(el.start) >= from {
				b = append(b, s.b[from:el.start]...)
				from = int(el.end)
			}
			e++
		}
		if l == len(s.lists) {
			break
		}
		if li := &s.lists[l]; int(li.at) >= from && counts[l] != li.n {
			b = append(b, s.b[from:li.at]...)
			b = s.appendCount(b, int(counts[l]))
			from = int(li.end)
		}
	}
	return append(b, s.b[from:]...)
}

func (s *scan) appendCount(b []byte, n int) []byte {
	if s.flexible {
		return binary.AppendUvarint(b, uint64(n)+1)
	}
	return binary.BigEndian.AppendUint32(b, uint32(n))
}
