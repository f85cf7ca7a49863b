package dns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/headgate/headgate/parsers"
)

// Hooks is what a session asks. It is called from inside Feed and must not block.
type Hooks interface {
	// Question judges a question; denied, its answer has the code.
	Question(id uint64, m *Message) (allowed bool, rcode uint16)
	// Unreadable reports what cannot be read, and says whether it goes on all the same,
	// with all behind it.
	Unreadable(from parsers.Side, err error) (pass bool)
	// Answer is told what the answer to a question says, and whether it may go on now. If
	// not, it waits until the session is released, and Outcome says what became of it.
	Answer(id uint64, m *Message, f *Found) (now bool)
	Outcome(id uint64) error
	// Unmatched counts an answer to no question that waits.
	Unmatched()
	// Full counts a question that is refused as it would take too much room.
	Full()
	// Closed says that nothing more comes of the questions that wait.
	Closed()
}

// maxWaiting bounds the questions of one connection that have no answer yet.
const maxWaiting = 1024

// MaxQuestion is how long a question may be, without the length before it. Those of
// resolvers are a hundredth of it.
const MaxQuestion = 4096

var (
	errTiny    = errors.New("a message shorter than a header")
	errPartial = errors.New("the connection ended within a message")
)

// Session is one connection that carries messages with their lengths before them
// (RFC 7766): many questions may be under way, and answers come in any order.
type Session struct {
	hooks    Hooks
	deadline time.Duration
	asked    []waiting
	last     uint64 // id of a question
	held     *waiting
	steps    []parsers.Step
	out      []byte
	message  Message
	found    Found
	ended    [2]bool
	passed   bool
	partial  bool
}

// waiting is a question that was forwarded.
type waiting struct {
	id      uint64
	message Message // of bytes of its own
}

var _ parsers.Holder = (*Session)(nil)

// New makes a session. An answer waits for its release at most until the deadline, which
// its relay keeps.
func New(h Hooks, deadline time.Duration) *Session { return &Session{hooks: h, deadline: deadline} }

// Phase implements parsers.Session.
func (s *Session) Phase() parsers.Phase {
	switch {
	case len(s.asked) > 0 || s.passed:
		return parsers.Response
	case s.partial:
		return parsers.Head
	}
	return parsers.Idle
}

// MaxInput says how much of a side may wait: one message.
func (s *Session) MaxInput(parsers.Side) int { return 2 + MaxMessage }

// Release implements parsers.Holder: the held answer is looked at again when its side is
// fed.
func (s *Session) Release(uint64) {}

// Close ends the session.
func (s *Session) Close() { s.hooks.Closed() }

// Unavailable answers every question under way, as there is no server.
func (s *Session) Unavailable() []byte {
	var b []byte
	for i := range s.asked {
		b = appendFramed(b, &s.asked[i].message, ServFail)
	}
	s.asked = nil
	return b
}

// Feed implements parsers.Session.
func (s *Session) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	s.steps, s.out = s.steps[:0], s.out[:0]
	if s.passed {
		return s.pass(), nil
	}
	for len(data) >= 2 {
		n := 2 + int(binary.BigEndian.Uint16(data))
		if n < 2+headerSize {
			return s.unreadable(from, errTiny)
		}
		if len(data) < n {
			break
		}
		if from == parsers.Client {
			if err := s.question(data[2:n]); err != nil {
				return s.unreadable(from, err)
			}
		} else if held := s.answer(data[2:n]); held {
			return s.steps, nil
		}
		data = data[n:]
	}
	if from == parsers.Client {
		s.partial = len(data) > 0
	}
	if !eof || s.ended[from] {
		return s.steps, nil
	}
	s.ended[from] = true
	if len(data) > 0 && from == parsers.Client {
		return s.unreadable(from, errPartial)
	}
	s.step(parsers.Step{Op: parsers.CloseWrite, To: from.Peer()})
	return s.steps, nil
}

func (s *Session) step(st parsers.Step) { s.steps = append(s.steps, st) }

// pass lets go on whatever comes.
func (s *Session) pass() []parsers.Step {
	s.step(parsers.Step{Op: parsers.Forward, N: parsers.Unbounded})
	return s.steps
}

// unreadable ends the connection, unless nothing is enforced on it.
func (s *Session) unreadable(from parsers.Side, err error) ([]parsers.Step, error) {
	if s.hooks.Unreadable(from, err) {
		s.passed = true
		return s.pass(), nil
	}
	return s.steps, fmt.Errorf("read the %s's message: %w", from, err)
}

// question deals with a question. Nil: also if it was refused.
func (s *Session) question(raw []byte) error {
	if err := s.message.ParseQuery(raw); err != nil {
		return err
	}
	s.last++
	allowed, rcode := false, uint16(Refused)
	if len(s.asked) >= maxWaiting || len(raw) > MaxQuestion {
		s.hooks.Full()
	} else {
		allowed, rcode = s.hooks.Question(s.last, &s.message)
	}
	if !allowed {
		s.step(parsers.Step{Op: parsers.Discard, N: int64(2 + len(raw))})
		s.reply(parsers.Client, &s.message, rcode)
		return nil
	}
	w := waiting{id: s.last, message: s.message}
	w.message.Raw = append([]byte(nil), raw...)
	s.asked = append(s.asked, w)
	s.step(parsers.Step{Op: parsers.Forward, N: int64(2 + len(raw))})
	return nil
}

func (s *Session) reply(to parsers.Side, m *Message, rcode uint16) {
	from := len(s.out)
	s.out = appendFramed(s.out, m, rcode)
	s.step(parsers.Step{Op: parsers.Send, To: to, Data: s.out[from:]})
}

func appendFramed(b []byte, m *Message, rcode uint16) []byte {
	from := len(b)
	b = AppendDenial(append(b, 0, 0), m, rcode)
	binary.BigEndian.PutUint16(b[from:], uint16(len(b)-from-2))
	return b
}

// answer deals with an answer. True: it is held, and so is what comes behind it.
func (s *Session) answer(raw []byte) (held bool) {
	length := int64(2 + len(raw))
	if s.held != nil {
		w := *s.held
		s.held = nil
		if s.hooks.Outcome(w.id) == nil {
			s.step(parsers.Step{Op: parsers.Forward, N: length})
			return false
		}
		s.step(parsers.Step{Op: parsers.Discard, N: length})
		s.reply(parsers.Client, &w.message, ServFail)
		return false
	}
	err := s.message.ParseAnswer(raw)
	if err == nil {
		err = s.message.Find(&s.found)
	}
	if err != nil {
		s.hooks.Unreadable(parsers.Server, err)
		s.step(parsers.Step{Op: parsers.Discard, N: length})
		return false
	}
	for i := range s.asked {
		w := &s.asked[i]
		if w.message.ID != s.message.ID || string(w.message.Question()) != string(s.message.Question()) {
			continue
		}
		taken := *w
		s.asked = append(s.asked[:i], s.asked[i+1:]...)
		if s.hooks.Answer(taken.id, &s.message, &s.found) {
			s.step(parsers.Step{Op: parsers.Forward, N: length})
			return false
		}
		s.held = &taken
		s.step(parsers.Step{Op: parsers.Hold, Token: taken.id, Wait: s.deadline})
		return true
	}
	s.hooks.Unmatched()
	s.step(parsers.Step{Op: parsers.Discard, N: length})
	return false
}
