// Package parsers defines how application protocols are read: a Session per
// connection, fed with bytes, that answers with steps. Sessions do no I/O, keep
// no clock and never block, so the same code is tested whole, byte by byte and
// by the fuzzer, and runs under any relay.
//
// The relay keeps, for each side, the input that was read and not yet consumed,
// and an output queue. It carries out steps in the order given:
//
//   - Forward and Discard consume from the input of the side that was fed;
//   - Forward and Send append to an output queue, which is strictly first in,
//     first out over all Feed calls: what is sent after a Forward of n bytes
//     leaves after the last of them, even if they have not arrived yet;
//   - while a Forward or Discard of more bytes than were fed is under way, that
//     side is not fed: its bytes are moved (spliced, where possible) or dropped
//     until the count is reached.
//
// Input that ends before the count of a Forward or Discard is reached ends the
// connection as an error does, except for Unbounded, which then is complete. A
// Close behind a Forward waits for it.
//
// What no step consumed stays in the input and is fed again, with more bytes
// behind it, or when the other side got on. An error from Feed ends the
// connection: the steps returned with it are carried out and flushed first, then
// both sides are closed.
package parsers

import (
	"errors"
	"time"

	"github.com/headgate/headgate/policy"
)

// Side is one end of a proxied connection.
type Side uint8

const (
	Client Side = 0 // who connected
	Server Side = 1
)

// Peer is the other side.
func (s Side) Peer() Side { return 1 - s }

func (s Side) String() string {
	if s == Client {
		return "client"
	}
	return "server"
}

// Op is the kind of a Step.
type Op uint8

const (
	// Forward moves the next N bytes of the fed side to the other side. N may go
	// past what was fed. Unbounded: until end of input.
	Forward Op = 1
	// Discard drops the next N bytes of the fed side; N may go past what was fed.
	Discard Op = 2
	// Send queues Data for side To. Data is only valid until the next Feed: the
	// relay writes or copies it before.
	Send Op = 3
	// CloseWrite ends the output to side To (a FIN) once all queued before it left.
	CloseWrite Op = 4
	// Close ends the connection on both sides once both outputs are flushed.
	Close Op = 5
	// Hold stops feeding the fed side for the time Wait. Then the relay calls
	// Release of the session, which must be a Holder, with Token, and feeds that
	// side again, even with nothing.
	Hold Op = 6
	// Wake has the fed side fed again, even with nothing, when Wait has passed, behind a
	// call of Release as of Hold. Meanwhile it is fed as ever. The last one counts.
	Wake Op = 7
)

// Unbounded as the N of a Forward or Discard means until end of input.
const Unbounded = int64(1<<63 - 1)

// Step is one thing the relay does.
type Step struct {
	Op    Op
	To    Side   // Send, CloseWrite
	N     int64  // Forward, Discard: bytes
	Data  []byte // Send
	Token uint64 // Hold, Wake
	Wait  time.Duration
}

// Phase says what a session waits for, so that the relay can choose a time-out.
type Phase uint8

const (
	Idle     Phase = 0 // between requests, nothing outstanding
	Head     Phase = 1 // part of a request head has been fed
	Body     Phase = 2 // a request body is under way
	Response Phase = 3 // requests are whole, answers outstanding
	Ended    Phase = 4 // nothing more is expected from either side
)

// Session is the state of one connection.
type Session interface {
	// Feed takes every byte read from side from that no step consumed yet.
	// eof says that nothing more will come from that side (it is repeated on each
	// later call). The returned slice is valid until the next call.
	Feed(from Side, data []byte, eof bool) ([]Step, error)
	// Phase is for time-outs; it takes part in no decision.
	Phase() Phase
}

// ErrNoServer is in an error of Feed where the server went, or showed that it is none,
// before anything was sent to it that the client asked for. The client is then told as it
// is where a server cannot be reached, by the session's Unavailable, which is given the
// client's unread input.
var ErrNoServer = errors.New("there is no server that could answer")

// Holder is a session that asks for Hold or Wake.
type Holder interface {
	Session
	Release(token uint64)
}

// Hooks is what a session asks and tells. It is called from inside Feed and must
// not block.
type Hooks interface {
	// Request judges a request. id numbers the requests of a connection from 1.
	Request(id uint64, r policy.Request) policy.Decision
	// Response reports the answer to request id, once, when its head is known, or
	// that there will be none; also for answers that the session made itself (a
	// denial).
	Response(id uint64, r Answer)
	// Malformed reports input that cannot be read; id is the request it belongs to
	// or would have been. The session refuses it, unless the answer is pass: nothing
	// is enforced here, so it and all behind it go on unread, in both directions.
	Malformed(id uint64, from Side, err error) (pass bool)
}

// Answer is what is known of a response.
type Answer struct {
	Status int   // HTTP status; 0: the request ended without an answer
	Local  bool  // made by the session, not by the server
	Reset  error // how the request ended before its answer was complete
	Call   *Call // of a gRPC call, which is reported when it is over. Valid during the hook
}

// Call is the outcome of a gRPC call.
type Call struct {
	Status         int    // grpc-status; -1: none was given
	Sent, Received uint64 // messages, of the client and of the server
}

// Rechecker is a session whose requests may last.
type Rechecker interface {
	// Recheck asks about each request under way that was allowed, and ends those that
	// judge no longer allows. It is called as Feed is; its steps are only of the kind
	// Send.
	Recheck(judge func(id uint64, r policy.Request) (allowed bool)) []Step
}
