package http2

import (
	"encoding/binary"
	"math"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Session is one HTTP/2 connection. Use New.
type Session struct {
	hooks  parsers.Hooks
	limits Limits

	steps []parsers.Step
	out   []byte // what the Sends of this Feed point into
	err   error
	ended bool
	lost  *Refusal // the server did not begin: what the client said is to be given to Unavailable
	// unread: nothing is enforced here, and what came cannot be read. All goes on.
	unread bool

	sides   [2]side // by who sends
	streams streams
	request policy.HTTPRequest
	path    []byte // buffer of a path's normal form
	cookie  []byte // buffer of the cookie that crumbs make
	id      uint64 // of the last request

	window  int64 // what the client lets be sent to it, on the connection
	debt    int64 // of it, what was used here and the server does not know of; negative: kept back for that
	initial int64 // the same for each new stream
	noisy   int
	resets  int
	kept    int
	call    parsers.Call
}

var _ parsers.Session = (*Session)(nil)

// defaultWindow is RFC 9113 section 6.9.2, maxWindow section 6.9.1.
const (
	defaultWindow = 65535
	maxWindow     = 1<<31 - 1
	minFrame      = 16384
	frameHead     = 9
	defaultTable  = 4096
)

// New returns the session of a new connection.
func New(hooks parsers.Hooks, limits Limits) *Session {
	s := &Session{hooks: hooks, limits: limits.withDefaults(), window: defaultWindow, initial: defaultWindow}
	s.streams.open = map[uint32]*stream{}
	for i := range s.sides {
		s.sides[i].start(s.limits.Head)
	}
	return s
}

// Feed implements parsers.Session. Every error is a *Refusal. Bytes past the end
// of the conversation are neither consumed nor looked at.
func (s *Session) Feed(from parsers.Side, data []byte, eof bool) ([]parsers.Step, error) {
	s.steps, s.out = s.steps[:0], s.out[:0]
	if s.ended || s.err != nil {
		return nil, s.err
	}
	if s.lost != nil {
		return nil, s.lost
	}
	d := &s.sides[from]
	for len(data) > 0 && !s.ended && s.err == nil && s.lost == nil {
		n, more := s.frame(from, data)
		if more {
			break
		}
		data = data[min(n, int64(len(data))):]
	}
	d.partial = len(data) > 0 && (len(data) < frameHead || readHead(data).Type != http2.FrameData)
	if eof && !s.ended && s.err == nil && s.lost == nil {
		s.end(from, len(data) > 0)
	}
	if s.lost != nil {
		return s.steps, s.lost
	}
	return s.steps, s.err
}

// awaitsServer: the client has begun, and the server has not.
func (s *Session) awaitsServer() bool {
	return s.sides[parsers.Client].greeted && !s.sides[parsers.Server].greeted && !s.ended && !s.unread && s.err == nil
}

// Abandon gives up a server that has not sent its SETTINGS: the next Feed says so. False:
// it has, or nothing was sent to it yet.
func (s *Session) Abandon() bool {
	if s.awaitsServer() && s.lost == nil {
		s.lost = ErrServerSilent
	}
	return s.lost != nil
}

// frame reads one frame, or header block, at the start of data. It returns how
// long that is, which may be more than there is, or more: it takes more bytes,
// or something from the other side, to say anything.
func (s *Session) frame(from parsers.Side, data []byte) (n int64, more bool) {
	d := &s.sides[from]
	if s.unread {
		return s.move(parsers.Forward, parsers.Unbounded), false
	}
	if from == parsers.Client && !d.greeted {
		return s.clientPreface(data)
	}
	if len(data) < frameHead {
		return 0, true
	}
	f := readHead(data)
	switch {
	case !d.greeted && (f.Type != http2.FrameSettings || f.Flags.Has(http2.FlagSettingsAck)):
		return s.fail(from, ErrPreface)
	case f.Length > d.maxFrame:
		return s.fail(from, ErrFrameLong)
	}
	if n, ok := fixedLength(f.Type); ok && f.Length != n {
		if f.Type == http2.FramePriority && f.StreamID != 0 {
			return s.priority(from, f, data)
		}
		return s.fail(from, ErrFrameSize)
	}
	if d.waits = from == parsers.Client && d.greeted && !s.sides[parsers.Server].greeted; d.waits {
		if len(data) >= s.limits.Early {
			return s.fail(from, ErrEarly)
		}
		return 0, true // until the server has said that it speaks HTTP/2
	}
	if (f.StreamID == 0) != onConnection(f.Type) && f.Type != http2.FrameWindowUpdate && f.Type <= http2.FrameContinuation {
		return s.fail(from, ErrStreamID)
	}
	switch f.Type {
	case http2.FrameData:
		if from == parsers.Client {
			return s.clientData(f, data)
		}
		return s.serverData(f, data)
	case http2.FrameHeaders:
		return s.headers(from, f, data)
	case http2.FrameContinuation:
		return s.fail(from, ErrContinuation)
	case http2.FramePushPromise:
		return s.fail(from, ErrPush)
	case http2.FrameGoAway:
		if f.Length < 8 {
			return s.fail(from, ErrFrameSize)
		}
		return s.forward(f), false
	case http2.FramePriority, http2.FrameRSTStream, http2.FrameSettings, http2.FramePing, http2.FrameWindowUpdate:
		if f.Type == http2.FrameSettings && int(f.Length) > 6*s.limits.Settings {
			return s.fail(from, ErrFlood)
		}
		if len(data) < frameHead+int(f.Length) {
			return 0, true
		}
		return s.control(from, f, data[frameHead:frameHead+int(f.Length)], data)
	}
	// An extension that nobody here agreed to (RFC 9113 section 5.5).
	return s.drop(from, f, 1), false
}

// control reads a short frame that is there as a whole.
func (s *Session) control(from parsers.Side, f http2.FrameHeader, payload, data []byte) (int64, bool) {
	switch f.Type {
	case http2.FrameSettings:
		return s.settings(from, f, payload)
	case http2.FramePing:
		return s.ping(from, f)
	case http2.FrameWindowUpdate:
		return s.windowUpdate(from, f, payload)
	case http2.FrameRSTStream:
		return s.reset(from, f, payload)
	}
	return s.priority(from, f, data)
}

// fixedLength is that of the types which have one.
func fixedLength(t http2.FrameType) (uint32, bool) {
	switch t {
	case http2.FramePriority:
		return 5, true
	case http2.FrameRSTStream, http2.FrameWindowUpdate:
		return 4, true
	case http2.FramePing:
		return 8, true
	}
	return 0, false
}

// onConnection says whether frames of a type are on stream 0.
func onConnection(t http2.FrameType) bool {
	return t == http2.FrameSettings || t == http2.FramePing || t == http2.FrameGoAway
}

func readHead(b []byte) http2.FrameHeader {
	return http2.FrameHeader{
		Length: uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2]), Type: http2.FrameType(b[3]), Flags: http2.Flags(b[4]),
		StreamID: binary.BigEndian.Uint32(b[5:]) & (1<<31 - 1),
	}
}

// Phase implements parsers.Session. A call's body may pause for as long as the
// caller likes, but a server has its SETTINGS to send at once.
func (s *Session) Phase() parsers.Phase {
	c, v := &s.sides[parsers.Client], &s.sides[parsers.Server]
	switch {
	case s.ended || s.err != nil || s.lost != nil:
		return parsers.Ended
	case s.unread:
		return parsers.Response
	case c.partial || !c.greeted || !v.greeted:
		return parsers.Head
	case s.streams.uploads > 0:
		return parsers.Body
	case s.streams.live() > 0:
		return parsers.Response
	}
	return parsers.Idle
}

// move adds a Forward or a Discard. What is next to each other becomes one.
func (s *Session) move(op parsers.Op, n int64) int64 {
	if i := len(s.steps) - 1; i >= 0 && s.steps[i].Op == op && s.steps[i].N < math.MaxInt64-n {
		s.steps[i].N += n
	} else {
		s.steps = append(s.steps, parsers.Step{Op: op, N: n})
	}
	return n
}

// forward lets a whole frame pass, also what is still to come of it: then nothing
// can get between its parts.
func (s *Session) forward(f http2.FrameHeader) int64 {
	return s.move(parsers.Forward, frameHead+int64(f.Length))
}

// drop takes a whole frame out. noise is what it counts as.
func (s *Session) drop(from parsers.Side, f http2.FrameHeader, noise int) int64 {
	n := s.move(parsers.Discard, frameHead+int64(f.Length))
	s.noise(from, noise)
	return n
}

// noise counts what a client sends that furthers no stream of its own, and takes
// off that count what may be the reason for it: a new stream, data.
func (s *Session) noise(from parsers.Side, n int) {
	if from != parsers.Client {
		return
	}
	if s.noisy = max(0, s.noisy+n); s.noisy > s.limits.Noise {
		s.fail(from, ErrFlood)
	}
}

// send queues what was appended to s.out since its length was from.
func (s *Session) send(to parsers.Side, from int) {
	if from == len(s.out) {
		return
	}
	s.steps = append(s.steps, parsers.Step{Op: parsers.Send, To: to, Data: s.out[from:len(s.out):len(s.out)]})
}

// fail ends the connection: the client is told why.
func (s *Session) fail(from parsers.Side, r *Refusal) (int64, bool) {
	if s.err != nil {
		return 0, true
	}
	if s.passes(s.id+1, from, r) {
		return 0, false
	}
	if from == parsers.Server && s.awaitsServer() {
		s.lost = ErrServerOther
		return 0, true
	}
	s.err = r
	code := r.Code
	if from == parsers.Server {
		code = http2.ErrCodeInternal
	}
	start := len(s.out)
	if v := &s.sides[parsers.Server]; !v.greeted { // RFC 9113 section 3.4
		v.greeted = true
		s.out = appendHead(s.out, 0, http2.FrameSettings, 0, 0)
	}
	s.out = appendGoAway(s.out, s.streams.last, code)
	s.send(parsers.Client, start)
	return 0, true
}

// passes reports what cannot be read, and whether it goes on all the same: it does
// where nothing is enforced, unless one side's blocks are encoded here already.
func (s *Session) passes(id uint64, from parsers.Side, r *Refusal) bool {
	s.unread = s.hooks.Malformed(id, from, r) && !s.sides[parsers.Client].literal && !s.sides[parsers.Server].literal
	return s.unread
}

// end is the end of a side's input; rest says that there are bytes which make
// nothing whole.
func (s *Session) end(from parsers.Side, rest bool) {
	d := &s.sides[from]
	switch {
	case s.unread:
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: from.Peer()})
	case d.waits && from == parsers.Client: // fed again when it need not
	case rest && !d.waits:
		if s.fail(from, ErrTruncated); s.unread {
			s.move(parsers.Forward, parsers.Unbounded)
		}
	case from == parsers.Server && s.awaitsServer():
		s.lost = ErrServerEnded
	case from == parsers.Server:
		s.ended = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.Close})
	case !d.fin:
		d.fin = true
		s.steps = append(s.steps, parsers.Step{Op: parsers.CloseWrite, To: parsers.Server})
	}
}
