package kafka

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Hooks is what a session asks and tells. A request that is about several things
// is judged once for each, each time under an id of its own, and answered as
// often. The Status of an Answer is Kafka's error code.
type Hooks interface {
	parsers.Hooks
	// Allows judges what is not reported: what an answer may show, what was asked
	// for before and goes on.
	Allows(policy.Request) bool
	// Deny reports a request that is denied without asking, unless nothing is
	// enforced here: then it passes.
	Deny(id uint64, r policy.Request, reason string) (pass bool)
	// Unanswered says that a request will have no answer.
	Unanswered(id uint64)
}

// Bounds of what a peer can make a session hold.
const (
	maxHeld       = 1<<20 + 64<<10 // of a request that is read as a whole
	maxMixed      = 1 << 20        // of one for several topics that are not all allowed
	maxAnswer     = 16 << 20       // of an answer that is read as a whole
	maxPart       = 64 << 10       // of the part of one before its list of topics
	maxPeek       = 512            // of one in which only the error is looked for
	maxPending    = 1000           // requests without an answer
	maxWaiting    = 1 << 20        // bytes that are kept for answers
	maxJudged     = 100            // reported of one request
	heartbeatWait = time.Second    // before a denied heartbeat is answered
	minRequest    = 10             // key, version, correlation id and the length of the client id
)

// Session is one connection to a broker. Use New.
type Session struct {
	hooks  Hooks
	topics Topics

	steps []parsers.Step
	err   error
	ended bool

	id      uint64 // of what was judged last
	queue   []pending
	waiting int    // bytes that are kept for it
	holds   uint64 // last token
	held    bool   // until it is released
	request scan
	answer  scan
	lookup  lookup
	skim    *skim
	fetches []*fetching
	shares  map[string]*sharing
	phase   parsers.Phase // while a request is arriving
	finSent [2]bool       // CloseWrite was given
	opaque  bool          // nothing is enforced here, and what comes cannot be read
}

var _ parsers.Holder = (*Session)(nil)

// New returns the session of a new connection to the server that topics is about.
func New(hooks Hooks, topics Topics) *Session {
	return &Session{hooks: hooks, topics: topics}
}

// pending is a request that was not answered yet.
type pending struct {
	key, version int16
	correlation  int32
	client       string
	group        string // of an OffsetFetch about all topics
	judged       []judged
	local        []byte // the answer; nil: the server has to give it
	hold         uint64 // which is not due before this was released
	lookup       bool   // of our own
	silent       bool   // there will be no answer
	filter       bool   // of an answer about all topics
	prefix       []byte // denied elements, that go before those of the answer
	prefixed     int
	merge        func(body []byte) ([]byte, error)
	fetch        *fetchAnswer
	share        *shareAnswer
	held         int // bytes that it keeps
}

// answerCost is what a byte of a request may cost in the answer to it, as long as
// that is no bytes yet.
const answerCost = 16

// enqueue remembers a request until it is answered. What it keeps is counted, so
// that a client that asks on and on has to wait.
func (s *Session) enqueue(p pending) {
	p.held += len(p.local) + len(p.prefix)
	if p.fetch != nil {
		for i := range p.fetch.denied {
			p.held += deniedCost * (1 + len(p.fetch.denied[i].entry.Partitions))
		}
		p.held += namesCost(p.fetch.allowed)
	}
	if p.share != nil {
		p.held += len(p.share.member) + namesCost(p.share.allowed)
	}
	s.waiting += p.held
	s.queue = append(s.queue, p)
}

// deniedCost is what a topic or a partition costs that a fetch is denied.
const deniedCost = int(unsafe.Sizeof(kmsg.FetchResponseTopicPartition{}))

func namesCost(names []string) (n int) {
	for _, name := range names {
		n += 16 + len(name)
	}
	return n
}

// judged is one thing that was reported of a request.
type judged struct {
	id   uint64
	code int16 // denied with; 0: the answer tells
}

// MaxInput is how many bytes of a side may have to wait for the rest of a message.
func (s *Session) MaxInput(from parsers.Side) int {
	if from == parsers.Client {
		return maxHeld + maxPart
	}
	return maxAnswer + maxPart
}

// Feed implements parsers.Session.
func (s *Session) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	s.steps = s.steps[:0]
	if s.ended || s.err != nil {
		return nil, s.err
	}
	if s.opaque {
		return s.carryOn(from, data, eof), nil
	}
	feed := s.fromClient
	if from == parsers.Server {
		feed = s.fromServer
	} else {
		s.phase = parsers.Idle
	}
	for len(data) > 0 && !s.ended && s.err == nil && !s.opaque {
		n := feed(data)
		if n == 0 {
			break
		}
		data = data[min(n, int64(len(data))):]
	}
	s.proceed()
	if s.opaque {
		return s.carryOn(from, data, eof), nil
	}
	if eof && s.err == nil && !s.ended {
		s.end(from, len(data) > 0)
	}
	return s.steps, s.err
}

// Release ends a Hold.
func (s *Session) Release(token uint64) {
	s.held = s.held && token != s.holds
	for i := range s.queue {
		if s.queue[i].hold == token {
			s.queue[i].hold = 0
		}
	}
}

// Phase implements parsers.Session.
func (s *Session) Phase() parsers.Phase {
	switch {
	case s.ended || s.err != nil:
		return parsers.Ended
	case s.phase != parsers.Idle:
		return s.phase
	case len(s.queue) > 0:
		return parsers.Response
	}
	return parsers.Idle
}

// end deals with the end of a side: part of a message may be left of it.
func (s *Session) end(from parsers.Side, left bool) {
	switch {
	case from == parsers.Server:
		if left || len(s.queue) > 0 {
			s.fail(from, errors.New("the server ended the connection before it answered"))
			return
		}
		s.ended = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.Close})
	case left && !s.stalled():
		s.fail(from, errors.New("the client ended the connection within a request"))
	case !left && !s.finSent[parsers.Server]:
		s.finSent[parsers.Server] = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: parsers.Server})
	}
}

// stalled reports whether requests must wait for the server to get on.
func (s *Session) stalled() bool {
	return s.held || len(s.queue) >= maxPending || s.waiting >= maxWaiting || s.lookup.under
}

// fail ends the connection, or, where nothing is enforced, the reading of it.
func (s *Session) fail(from parsers.Side, err error) {
	if s.err != nil || s.opaque {
		return
	}
	err = fmt.Errorf("kafka: %w", err)
	if s.hooks.Malformed(s.id+1, from, err) && s.simple() {
		s.opaque = true
		return
	}
	s.err = err
}

// simple reports whether all bytes that came so far went on as they were.
func (s *Session) simple() bool {
	for i := range s.queue {
		if s.queue[i].local != nil || s.queue[i].lookup || s.queue[i].prefixed > 0 {
			return false
		}
	}
	return s.skim == nil
}

// carryOn moves what cannot be read.
func (s *Session) carryOn(from parsers.Side, data []byte, eof bool) []parsers.Step {
	s.phase, s.queue = parsers.Response, nil
	if len(data) > 0 || !eof {
		s.move(parsers.Forward, parsers.Unbounded)
		return s.steps
	}
	if to := from.Peer(); !s.finSent[to] {
		s.finSent[to] = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: to})
	}
	if s.finSent[0] && s.finSent[1] {
		s.ended = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.Close})
	}
	return s.steps
}

func (s *Session) move(op parsers.Op, n int64) {
	if n == 0 {
		return
	}
	if i := len(s.steps) - 1; i >= 0 && s.steps[i].Op == op {
		if last := &s.steps[i]; n == parsers.Unbounded {
			last.N = n
		} else {
			last.N += n
		}
		return
	}
	s.steps = append(s.steps, parsers.Step{Op: op, N: n})
}

// hold makes the client wait for the answer that was queued last.
func (s *Session) hold(wait time.Duration) {
	s.holds++
	s.held = true
	s.queue[len(s.queue)-1].hold = s.holds
	s.steps = append(s.steps, parsers.Step{Op: parsers.Hold, Token: s.holds, Wait: wait})
}

// send queues bytes that are kept for this Feed.
func (s *Session) send(to parsers.Side, b []byte) {
	s.steps = append(s.steps, parsers.Step{Op: parsers.Send, To: to, Data: b})
}

// proceed gives the answers of our own whose turn has come.
func (s *Session) proceed() {
	for len(s.queue) > 0 && s.queue[0].local != nil && s.queue[0].hold == 0 {
		p := &s.queue[0]
		s.send(parsers.Client, p.local)
		s.answered(p, 0, true)
		s.pop()
	}
}

func (s *Session) pop() {
	s.waiting -= s.queue[0].held
	s.queue[0] = pending{}
	if s.queue = s.queue[1:]; len(s.queue) == 0 {
		s.queue = nil
	}
}

// answered reports the answer to all that was judged of a request.
func (s *Session) answered(p *pending, code int16, local bool) {
	for _, j := range p.judged {
		a := parsers.Answer{Status: int(code), Local: local || j.code != 0}
		if j.code != 0 {
			a.Status = int(j.code)
		}
		s.hooks.Response(j.id, a)
	}
}

// frame puts the length before a message.
func frame(b []byte) []byte {
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}
