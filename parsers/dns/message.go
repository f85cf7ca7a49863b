package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	headerSize = 12

	// MaxUDP is the most that goes by UDP without fragments on any path (DNS flag day
	// 2020); who wants more asks again by TCP.
	MaxUDP = 1232
	// PlainUDP is what a client takes that says nothing of it (RFC 1035, 4.2.1).
	PlainUDP = 512
	// MaxMessage is the longest message there is.
	MaxMessage = 65535
)

// Types of records.
const (
	TypeA     = 1
	TypeCNAME = 5
	TypeAAAA  = 28
	typeSIG   = 24
	typeOPT   = 41
	typeTSIG  = 250
	typeANY   = 255
)

// Codes of answers.
const (
	NoError  = 0
	FormErr  = 1
	ServFail = 2
	NXDomain = 3
	Refused  = 5
)

const classIN = 1

const (
	flagAnswer    = 1 << 15
	flagTruncated = 1 << 9
	flagDesired   = 1 << 8
	flagAvailable = 1 << 7
	flagAuthentic = 1 << 5
	flagChecking  = 1 << 4
	opcodeMask    = 0xf << 11
)

var (
	errHeader   = errors.New("the message is shorter than a header")
	errOpcode   = errors.New("it is neither a query nor the answer to one")
	errQuestion = errors.New("it has not exactly one question")
	errAnswer   = errors.New("an answer where a question belongs")
	errNoAnswer = errors.New("a question where an answer belongs")
	errRecords  = errors.New("a question with records")
	errTrailing = errors.New("bytes behind the end of the message")
	errOPT      = errors.New("an OPT record that is not one")
	errTooBig   = errors.New("the message is longer than 65535 bytes")
)

// Message is what was read of a message. It refers to the bytes that were read.
type Message struct {
	Raw      []byte
	ID       uint16
	Type     uint16 // of the question
	Class    uint16
	Rcode    uint16 // with the upper bits of the OPT record
	UDPSize  uint16 // that the sender takes; 0: there is no OPT record
	DO       bool   // DNSSEC records are wanted
	Answers  int    // records of the answer section
	question int    // end of the question
	answer   int    // where the answer section begins
	opt      int    // where the OPT record begins; 0: there is none
	end      int    // of what was read
}

// Truncated reports whether the sender left something out.
func (m *Message) Truncated() bool { return binary.BigEndian.Uint16(m.Raw[2:])&flagTruncated != 0 }

// Question returns the question as it was sent: name, type and class.
func (m *Message) Question() []byte { return m.Raw[headerSize:m.question] }

// AppendName appends the name that is asked, in normal form.
func (m *Message) AppendName(b []byte) []byte {
	b, _ = appendName(b, m.Raw, headerSize) // it was checked
	return b
}

// ID reads the id of a message, whatever it is else.
func ID(raw []byte) (id uint16, ok bool) {
	if len(raw) < 2 {
		return 0, false
	}
	return binary.BigEndian.Uint16(raw), true
}

// IsAnswer reports whether a message claims to be an answer, whatever it is else. What
// has no header does not.
func IsAnswer(raw []byte) bool { return len(raw) >= headerSize && raw[2]&0x80 != 0 }

// ParseQuery reads a question.
func (m *Message) ParseQuery(raw []byte) error {
	flags, err := m.begin(raw)
	switch {
	case err != nil:
		return err
	case flags&flagAnswer != 0:
		return errAnswer
	case binary.BigEndian.Uint16(raw[6:]) != 0 || binary.BigEndian.Uint16(raw[8:]) != 0:
		return errRecords
	}
	for i := 0; i < int(binary.BigEndian.Uint16(raw[10:])); i++ {
		// The names of these records are not compressed, and the last record may be a signature.
		t, err := m.additional()
		if err != nil {
			return err
		}
		if t != typeOPT && t != typeTSIG && t != typeSIG {
			return fmt.Errorf("%w: type %d", errRecords, t)
		}
	}
	return m.finish()
}

// ParseAnswer reads an answer, its records as far as they must stand where they say.
func (m *Message) ParseAnswer(raw []byte) error {
	flags, err := m.begin(raw)
	switch {
	case err != nil:
		return err
	case flags&flagAnswer == 0:
		return errNoAnswer
	}
	m.Answers = int(binary.BigEndian.Uint16(raw[6:]))
	authority := int(binary.BigEndian.Uint16(raw[8:]))
	for range m.Answers + authority {
		if _, m.end, err = m.record(m.end); err != nil {
			return err
		}
	}
	for range int(binary.BigEndian.Uint16(raw[10:])) {
		if _, err := m.additional(); err != nil {
			return err
		}
	}
	return m.finish()
}

// ParseAnswerHead reads an answer up to the end of its question: enough to tell whom it
// answers, where the rest was cut off.
func (m *Message) ParseAnswerHead(raw []byte) error {
	flags, err := m.begin(raw)
	if err == nil && flags&flagAnswer == 0 {
		err = errNoAnswer
	}
	return err
}

// begin reads the header and the question.
func (m *Message) begin(raw []byte) (flags uint16, err error) {
	*m = Message{Raw: raw}
	if len(raw) < headerSize {
		return 0, errHeader
	}
	if len(raw) > MaxMessage {
		return 0, errTooBig
	}
	m.ID = binary.BigEndian.Uint16(raw)
	flags = binary.BigEndian.Uint16(raw[2:])
	m.Rcode = flags & 0xf
	if flags&opcodeMask != 0 {
		return 0, errOpcode
	}
	if binary.BigEndian.Uint16(raw[4:]) != 1 {
		return 0, errQuestion
	}
	// No pointer can lead anywhere from the first name: there is none before it.
	end, err := checkName(raw, headerSize)
	if err != nil {
		return 0, err
	}
	if end+4 > len(raw) {
		return 0, errShort
	}
	m.Type = binary.BigEndian.Uint16(raw[end:])
	m.Class = binary.BigEndian.Uint16(raw[end+2:])
	m.question = end + 4
	m.answer, m.end = m.question, m.question
	return flags, nil
}

// record reads the record at i and returns its type and its end. Only the name before
// it is followed; what stands in it is followed where it is asked for.
func (m *Message) record(i int) (typ uint16, end int, err error) {
	if i, err = checkName(m.Raw, i); err != nil {
		return 0, 0, err
	}
	if i+10 > len(m.Raw) {
		return 0, 0, errShort
	}
	end = i + 10 + int(binary.BigEndian.Uint16(m.Raw[i+8:]))
	if end > len(m.Raw) {
		return 0, 0, errShort
	}
	return binary.BigEndian.Uint16(m.Raw[i:]), end, nil
}

// additional reads the record that is next, and remembers the OPT record.
func (m *Message) additional() (uint16, error) {
	at := m.end
	typ, end, err := m.record(at)
	if err != nil {
		return 0, err
	}
	m.end = end
	if typ != typeOPT {
		return typ, nil
	}
	if m.opt != 0 || m.Raw[at] != 0 { // RFC 6891, 6.1.1: one, and its name is the root
		return 0, errOPT
	}
	m.opt = at
	m.UDPSize = binary.BigEndian.Uint16(m.Raw[at+3:])
	m.Rcode |= uint16(m.Raw[at+5]) << 4
	m.DO = m.Raw[at+7]&0x80 != 0
	return typ, nil
}

func (m *Message) finish() error {
	if m.end != len(m.Raw) {
		return errTrailing
	}
	return nil
}

// Takes is how long an answer by UDP may be that its client takes.
func (m *Message) Takes() int {
	if m.opt == 0 {
		return PlainUDP
	}
	return max(PlainUDP, min(int(m.UDPSize), MaxUDP))
}

// Plain reports whether a question has nothing out of the ordinary: it is of class IN, and
// takes no more than passes without fragments.
func (m *Message) Plain() bool {
	flags := binary.BigEndian.Uint16(m.Raw[2:])
	return m.Class == classIN && m.UDPSize <= MaxUDP && flags&^(flagDesired|flagAuthentic|flagChecking) == 0
}

// Clamp makes the sender of a question take no more than what passes without fragments.
// The bytes of the message are changed.
func (m *Message) Clamp() {
	if m.opt != 0 && m.UDPSize > MaxUDP {
		binary.BigEndian.PutUint16(m.Raw[m.opt+3:], MaxUDP)
		m.UDPSize = MaxUDP
	}
}
