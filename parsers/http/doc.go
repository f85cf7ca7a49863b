// Package http reads HTTP/1.0 and HTTP/1.1 connections (RFC 9110, RFC 9112) as
// a parsers.Session: requests are judged one by one and leave untouched, or not
// at all. The parser is its own, so that it can refuse what lenient ones guess.
//
// # What is forwarded is what was judged
//
// The bytes of an allowed request are moved as they are; its body is moved
// without being looked at (Content-Length) or after each chunk header was
// checked (chunked, RFC 9112 section 7.1). Only the request target is ever
// changed: when its normal form differs from what was received, or when it came
// in absolute-form, the head is sent again with the path that was judged.
// NormalPath describes that form. Nothing else is added, removed or folded.
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
//     OPTIONS, authority-form, absolute-form of a scheme other than http or
//     whose authority is not exactly the Host
//   - folded lines, lines without a colon, white space before it, empty names
//   - no Host in HTTP/1.1, more than one, an empty one, one with bytes that have
//     no place in a name, an address or a port
//   - Content-Length twice, even with the same value, as a list, or with a sign
//     or leading zeros; Content-Length with Transfer-Encoding; any coding but
//     exactly "chunked"; Transfer-Encoding in HTTP/1.0; either name written with
//     an underscore; either name, or Host, as an option of Connection
//
// A first line of three words without a slash is not HTTP's at all: no answer is
// given, since it would be read as something else. Too long a request line is 414,
// too long a head 431, an Expect that is not 100-continue 417, more unanswered
// requests than Limits.Pipelined 503. CONNECT
// is 501. Any attempt to switch protocols (Upgrade, HTTP2-Settings, the upgrade
// option of Connection) is judged, and if allowed answered 501 too.
//
// Chunk sizes must be plain hexadecimal, extensions well-formed and without
// white space, and trailers may not name fields of framing or routing. A body
// that breaks these rules ends the connection with an error (and a 400 if its
// answer has not begun); the server sees a body that never became whole.
//
// What passes, as it is: bytes from 0x80 in field values, methods in lower case
// (which match no rule for upper case), a missing Host in HTTP/1.0 (empty to the
// rules), a body with any method.
//
// # Denied
//
// A denied request is answered 403 when all answers before it are complete. Its
// body is dropped, and the connection goes on; it is closed after the answer
// if the body is longer than Limits.DeniedBody, was announced with Expect, or
// if the client would close it anyway.
//
// # Answers
//
// Responses are matched to requests in order (RFC 9112 section 9.3). Interim
// ones pass. The end of each is found as in section 6.3; a response whose end
// is in doubt (both framings, differing lengths, another coding, a bad chunk),
// one that nobody asked for and a 101 end the connection with an error.
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
