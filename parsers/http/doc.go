// Package http reads HTTP/1.0 and HTTP/1.1 connections (RFC 9110, RFC 9112) as
// a parsers.Session: requests are judged one by one and leave untouched, or not
// at all. The parser is its own, so that it can refuse what lenient ones guess.
//
// # What is forwarded is what was judged
//
// The bytes of an allowed request are moved as they are; its body is moved
// without being looked at (Content-Length) or after each chunk header was
// checked (chunked, RFC 9112 section 7.1). A head is sent again, rather than moved,
// in three cases: the normal form of the path (see NormalPath) is not what was
// received, the request is in absolute-form, or fields were changed. Those that
// change are what the decision edits, the wish for a protocol that may not be
// spoken unseen, the Host of a CONNECT that lacks the port, and Connection: a
// request with content whose method has none by definition (GET, DELETE, FROB) is the
// last on its connection, and the server told so. Some servers do not read such
// content and take it for the next request, which nobody would have judged.
// Nothing else is added, removed or folded.
//
// # Refused
//
// Whatever two readers could take for different things is refused before a byte
// of it goes on: 400, Connection: close, Hooks.Malformed, end. No request is
// judged that was refused. In a request head (RFC 9112 sections 2 to 6):
//
//   - a line that does not end in CRLF, a CR or control byte anywhere else
//   - more than one empty line before the request line (one is dropped, 2.2)
//   - a method that is not a token, more than one space between the parts of
//     the request line, any version but HTTP/1.0 and HTTP/1.1
//   - in the target: bytes outside 0x21–0x7e, a fragment; asterisk-form but for
//     OPTIONS, authority-form but for CONNECT, absolute-form of a scheme other
//     than http or whose authority is not exactly the Host
//   - folded lines, lines without a colon, white space before it, empty names
//   - no Host in HTTP/1.1, more than one, an empty one, one with bytes that have
//     no place in a name, an address or a port
//   - Content-Length twice, even with the same value, as a list, or with a sign
//     or leading zeros; Content-Length with Transfer-Encoding; any coding but
//     exactly "chunked"; Transfer-Encoding in HTTP/1.0; either name written with
//     an underscore
//   - an option of Connection that names a field which was sent, or either of those
//     names, or Host: the next hop might drop what was judged
//   - TRACE with content
//   - CONNECT without a port, to another authority than the Host, or with content
//
// A first line of three words without a slash is not HTTP's at all: no answer is
// given, since it would be read as something else. Too long a request line is 414,
// too long a head 431, an Expect that is not 100-continue 417, more unanswered
// requests than Limits.Pipelined 503.
//
// Chunk sizes must be plain hexadecimal, extensions well-formed and without
// white space, and trailers may not name fields of framing, routing or the like (see
// Trailer). What is there of such a body when its head is read is checked with it, and
// for that the head waits until the body is whole or long, for a time (Limits.Begin). A
// body that breaks these rules later ends the connection with an error (and a 400 if its
// answer has not begun); the server sees a body that never became whole.
//
// What passes, as it is: bytes from 0x80 in field values, methods in lower case
// (which match no rule for upper case), a missing Host in HTTP/1.0 (empty to the
// rules), a body with any method.
//
// Where nothing is enforced (Hooks.Malformed says pass) the connection becomes a
// tunnel instead, from the first byte that was not understood on.
//
// # Tunnels
//
// A CONNECT that is answered 2xx, and an upgrade that is answered 101, make the
// connection a tunnel: Forward without end, both ways. Behind such a request
// nothing is read before its answer. A 101 must name one of the protocols offered,
// and answer the key of a WebSocket. HTTP, h2c and TLS are not offered on: the wish
// is taken out of the head before it is judged (RFC 9110 section 7.8 lets a server
// ignore it), as it is in HTTP/1.0 and without the option of Connection.
//
// # Denied
//
// A denied request is answered 403, or what the decision says, when all answers
// before it are complete. Its
// body is dropped, and the connection goes on; it is closed after the answer
// if the body is longer than Limits.DeniedBody, was announced with Expect, if the
// request asked for a tunnel, or if the client would close it anyway.
//
// # Answers
//
// Responses are matched to requests in order (RFC 9112 section 9.3). Interim
// ones pass. The end of each is found as in section 6.3; a response whose end
// is in doubt (both framings, differing lengths, another coding, a bad chunk),
// one that nobody asked for and a 101 that takes no offer end the connection with
// an error.
// An answer that lasts until the server closes is moved without end.
// After an answer that says so, or to a request that said so, the session closes
// (section 9.6); what a client sends behind its last request is dropped.
//
// # Expect
//
// The body of a request with Expect: 100-continue goes on only as it arrives,
// until the server has said 100. If the server answers for good before and the
// body is not whole, the session closes after the answer and what is left is
// never sent: whether a server then reads it as a body or as the next request is
// anybody's guess (RFC 9110 section 10.1.1).
//
// # Cost
//
// A head is found by its line ends, which are kept across calls, and then parsed
// once. Nothing is allocated in the steady state. A session holds as much as the
// longest head needed.
package http
