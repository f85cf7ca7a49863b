package tls

import (
	"errors"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Hooks are what a Session asks and tells.
type Hooks interface {
	parsers.Hooks
	// Unanswered says that nothing is told of the answer to request id.
	Unanswered(id uint64)
}

// state of a session.
type state uint8

const (
	waiting state = iota // for the hello
	asked                // it went to the server, which has not said whether it wants another
	again                // it does
	open                 // nothing more is read
)

// Session carries one connection.
type Session struct {
	hooks  Hooks
	state  state
	reader reader
	hello  Hello
	ended  [2]bool
	left   bool // something of the client waits
	steps  []parsers.Step
}

// New begins one.
func New(hooks Hooks) *Session { return &Session{hooks: hooks} }

// Alerts, by their numbers (RFC 8446, section 6).
const (
	alertIllegalParameter = 47
	alertAccessDenied     = 49
	alertDecodeError      = 50
)

// AppendDenial appends what a client is told whose hello is denied.
func AppendDenial(b []byte, h Hello) []byte { return appendAlert(b, h.Version, alertAccessDenied) }

// errOther is of a second hello.
var errOther = errors.New("the client's second hello names another server than its first")

// errServer: names are judged before a server is told anything.
var errServer = errors.New("the server speaks before the client's hello")

// errHalf: such a client cannot go on with the handshake.
var errHalf = errors.New("the client ended the connection within its hello")

// MaxInput is how much may wait: a hello, and the record in which it gets too long.
func (s *Session) MaxInput(parsers.Side) int { return maxRecords + recordHead + maxRecord }

// Phase implements parsers.Session.
func (s *Session) Phase() parsers.Phase {
	if s.state == waiting || s.left && s.state != open {
		return parsers.Head
	}
	return parsers.Response
}

// Feed implements parsers.Session.
func (s *Session) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	s.steps = s.steps[:0]
	goesOn := s.state == open
	if from == parsers.Server {
		goesOn = s.answer(data, eof)
	}
	switch {
	case goesOn && len(data) == 0:
		s.closeWrite(from, eof)
	case goesOn && s.state == again: // a refusal may have to be put in
		s.add(parsers.Step{Op: parsers.Forward, N: int64(len(data))})
	case goesOn:
		s.add(parsers.Step{Op: parsers.Forward, N: parsers.Unbounded})
	case from == parsers.Server:
	case s.state == waiting:
		s.first(data, eof)
	default:
		s.between(data, eof)
	}
	if from == parsers.Client {
		s.left = s.passed() < int64(len(data))
	}
	return s.steps, nil
}

// passed is how much of what was fed goes on.
func (s *Session) passed() (n int64) {
	for _, step := range s.steps {
		if step.Op == parsers.Forward {
			n = max(n, n+step.N) // may be without bound
		}
	}
	return n
}

// closeWrite passes on, once, that a side has ended.
func (s *Session) closeWrite(from parsers.Side, eof bool) {
	if eof && !s.ended[from] {
		s.ended[from] = true
		s.add(parsers.Step{Op: parsers.CloseWrite, To: from.Peer()})
	}
}

func (s *Session) add(step parsers.Step) { s.steps = append(s.steps, step) }

// first reads the hello and has it judged.
func (s *Session) first(data []byte, eof bool) {
	const id = 1
	whole, err := s.reader.read(data)
	if whole {
		s.hello, err = parse(s.reader.message)
	}
	if err == nil && !whole && eof {
		if len(data) == 0 { // it had nothing to say
			s.add(parsers.Step{Op: parsers.Close})
			return
		}
		err = errHalf
	}
	switch {
	case err != nil && s.hooks.Malformed(id, parsers.Client, err):
		s.open()
		s.add(parsers.Step{Op: parsers.Forward, N: parsers.Unbounded})
	case err != nil:
		s.refuse(err)
	case !whole:
	case s.hooks.Request(id, &policy.TLSRequest{ServerName: s.hello.ServerName}).Verdict != policy.Allow:
		s.end(alertAccessDenied)
	default:
		n := s.reader.at
		s.add(parsers.Step{Op: parsers.Forward, N: int64(n)})
		s.state, s.reader = asked, reader{}
		s.between(data[n:], eof)
	}
}

// answer learns from the beginning of what the server sends whether another hello comes,
// and says whether what it sends goes on.
func (s *Session) answer(data []byte, eof bool) bool {
	switch s.state {
	case waiting: // it was reached, as nothing is enforced
		if !s.hooks.Malformed(1, parsers.Server, errServer) {
			s.add(parsers.Step{Op: parsers.Close})
			return false
		}
		s.open()
	case asked:
		retry, known := retries(data)
		if !known && !eof {
			return false
		}
		s.hooks.Unanswered(1)
		if s.state = open; retry {
			s.state = again
		}
	}
	return true
}

// between carries what the client sends behind its hello before the server has answered
// (early data), or behind the wish for a second one, and that.
func (s *Session) between(data []byte, eof bool) {
	const id = 2
	for s.reader.at == 0 && len(data) > 0 {
		switch data[0] {
		case changeCipherSpec, alert, applicationData:
			if len(data) < recordHead {
				return
			}
			n := recordHead + uint16At(data[3:])
			s.add(parsers.Step{Op: parsers.Forward, N: int64(n)})
			data = data[min(n, len(data)):]
			continue
		}
		break
	}
	switch {
	case len(data) == 0:
		s.closeWrite(parsers.Client, eof)
		return
	case s.state == asked && !eof:
		return // the answer tells what it is
	}
	whole, err := s.reader.read(data)
	if whole {
		var h Hello
		if h, err = parse(s.reader.message); err == nil && h.ServerName != s.hello.ServerName {
			err = errOther
		}
	}
	if !whole && eof && err == nil {
		err = errHalf
	}
	switch {
	case err != nil && s.hooks.Malformed(id, parsers.Client, err), err == nil && whole:
		s.open()
		s.add(parsers.Step{Op: parsers.Forward, N: parsers.Unbounded})
	case err != nil:
		s.refuse(err)
	}
}

// open has all go on unread, in both directions.
func (s *Session) open() { s.state, s.reader = open, reader{} }

// refuse ends a connection that cannot be read. Who does not speak TLS is told nothing.
func (s *Session) refuse(err error) {
	switch {
	case errors.Is(err, errNotTLS) || errors.Is(err, errSSL2):
		s.add(parsers.Step{Op: parsers.Close})
	case errors.Is(err, errOther):
		s.end(alertIllegalParameter)
	default:
		s.end(alertDecodeError)
	}
}

func (s *Session) end(number byte) {
	s.add(parsers.Step{Op: parsers.Send, To: parsers.Client, Data: appendAlert(nil, s.hello.Version, number)})
	s.add(parsers.Step{Op: parsers.Close})
}

// appendAlert writes a record with a fatal alert.
func appendAlert(b []byte, version uint16, number byte) []byte {
	const fatal, newest = 2, 0x0303 // later versions say this one
	if version>>8 != major || version > newest {
		version = newest
	}
	return append(b, alert, byte(version>>8), byte(version), 0, 2, fatal, number)
}
