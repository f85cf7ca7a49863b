package http2

import (
	"slices"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
)

// Refusal is why input was refused: what Hooks.Malformed and errors from Feed
// hold. Code is what the peer is told. A stream whose Refusal has a Status is
// answered with that instead: it is well-formed, but not carried here.
type Refusal struct {
	Code   http2.ErrCode
	Status int
	Reason string
}

func (r *Refusal) Error() string { return "http2: " + r.Reason }

// Is says of which refusals are parsers.ErrNoServer.
func (r *Refusal) Is(target error) bool {
	return target == parsers.ErrNoServer && slices.Contains([]*Refusal{ErrServerEnded, ErrServerOther, ErrServerSilent}, r)
}

// Servers that do not begin: each is a parsers.ErrNoServer.
var (
	ErrServerEnded  = &Refusal{http2.ErrCodeNo, 0, "the server ended the connection before it sent its SETTINGS"}
	ErrServerOther  = &Refusal{http2.ErrCodeNo, 0, "the server did not begin with SETTINGS: it does not speak HTTP/2 here"}
	ErrServerSilent = &Refusal{http2.ErrCodeNo, 0, "the server did not send its SETTINGS"}
)

// Refused connections.
var (
	ErrPreface       = &Refusal{http2.ErrCodeProtocol, 0, "connection does not begin with the preface and SETTINGS"}
	ErrFrameLong     = &Refusal{http2.ErrCodeFrameSize, 0, "frame longer than the receiver allows"}
	ErrFrameSize     = &Refusal{http2.ErrCodeFrameSize, 0, "frame of a length that its type cannot have"}
	ErrStreamID      = &Refusal{http2.ErrCodeProtocol, 0, "frame on a stream that its type cannot be on"}
	ErrStreamIdle    = &Refusal{http2.ErrCodeProtocol, 0, "frame on a stream that was not opened"}
	ErrStreamClosed  = &Refusal{http2.ErrCodeStreamClosed, 0, "frame on a stream that its sender has ended"}
	ErrPadding       = &Refusal{http2.ErrCodeProtocol, 0, "padding longer than its frame"}
	ErrContinuation  = &Refusal{http2.ErrCodeProtocol, 0, "header block interrupted, or continued without a beginning"}
	ErrCompression   = &Refusal{http2.ErrCodeCompression, 0, "header block cannot be decoded"}
	ErrSettings      = &Refusal{http2.ErrCodeProtocol, 0, "setting out of its range"}
	ErrWindow        = &Refusal{http2.ErrCodeFlowControl, 0, "window larger than 2^31-1, or overrun"}
	ErrPush          = &Refusal{http2.ErrCodeProtocol, 0, "PUSH_PROMISE"}
	ErrAcknowledged  = &Refusal{http2.ErrCodeProtocol, 0, "acknowledgement of what was not sent"}
	ErrUnsolicited   = &Refusal{http2.ErrCodeProtocol, 0, "answer on a stream that was not opened"}
	ErrTruncated     = &Refusal{http2.ErrCodeProtocol, 0, "input ends inside a frame"}
	ErrFlood         = &Refusal{http2.ErrCodeEnhanceYourCalm, 0, "too many frames that further no stream"}
	ErrResets        = &Refusal{http2.ErrCodeEnhanceYourCalm, 0, "too many streams opened and reset"}
	ErrEarly         = &Refusal{http2.ErrCodeEnhanceYourCalm, 0, "too much was sent before the server's SETTINGS"}
	ErrBlockLong     = &Refusal{http2.ErrCodeEnhanceYourCalm, 0, "header block too long, or in too many frames"}
	ErrTableUnshrunk = &Refusal{http2.ErrCodeCompression, 0, "header block does not begin with the table size update that is due"}
)

// Refused streams: malformed requests (RFC 9113 section 8.1.1) are reset.
var (
	ErrPseudo      = &Refusal{http2.ErrCodeProtocol, 0, "pseudo-header fields unknown, repeated, missing or not at the start"}
	ErrFieldName   = &Refusal{http2.ErrCodeProtocol, 0, "field name is not a token in lower case"}
	ErrFieldValue  = &Refusal{http2.ErrCodeProtocol, 0, "control byte, or white space at an end, in field value"}
	ErrConnection  = &Refusal{http2.ErrCodeProtocol, 0, "field that is about one connection"}
	ErrMethod      = &Refusal{http2.ErrCodeProtocol, 0, "method is not a token"}
	ErrScheme      = &Refusal{http2.ErrCodeProtocol, 0, "scheme is neither http nor https"}
	ErrPath        = &Refusal{http2.ErrCodeProtocol, 0, "path does not begin with a slash"}
	ErrAuthority   = &Refusal{http2.ErrCodeProtocol, 0, "no authority, or a Host that differs from it"}
	ErrLength      = &Refusal{http2.ErrCodeProtocol, 0, "malformed or repeated Content-Length"}
	ErrBodyLength  = &Refusal{http2.ErrCodeProtocol, 0, "body is not as long as Content-Length says"}
	ErrTrailer     = &Refusal{http2.ErrCodeProtocol, 0, "trailers that do not end the stream, or with fields of framing or routing"}
	ErrDependency  = &Refusal{http2.ErrCodeProtocol, 0, "stream depends on itself"}
	ErrPriority    = &Refusal{http2.ErrCodeFrameSize, 0, "PRIORITY of the wrong length"}
	ErrIncrement   = &Refusal{http2.ErrCodeProtocol, 0, "window update of nothing"}
	ErrEnded       = &Refusal{http2.ErrCodeStreamClosed, 0, "frame on a stream that its sender has ended"}
	ErrStreamsMany = &Refusal{http2.ErrCodeRefusedStream, 0, "too many streams at once"}
	ErrHost        = &Refusal{http2.ErrCodeProtocol, 400, "malformed authority"}
	ErrExpect      = &Refusal{http2.ErrCodeProtocol, 417, "Expect is not 100-continue"}
	ErrHeadLong    = &Refusal{http2.ErrCodeProtocol, 431, "too many fields, or too long ones"}
)
