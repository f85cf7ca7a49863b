// Package http2 reads HTTP/2 connections without TLS, begun with prior knowledge
// (RFC 9113, RFC 7541), as a parsers.Session: each request is judged by itself, and
// its stream passes or ends.
//
// # What is forwarded
//
// Frames go on as they came: DATA without being looked at, past what was fed, and
// header blocks once they are whole, decoded and judged. As long as every block of
// a side goes on, the receiver's HPACK table stays what the sender thinks it is.
// The first block that does not (a denial), or not as it came (a path in another
// form, edited fields), ends that: from then on the side's blocks are encoded
// here, as literals, behind an update that empties the receiver's table. Answers
// made here put nothing into the client's table.
//
// Until the server has sent its SETTINGS nothing goes on but the preface and the client's:
// a server that speaks HTTP/1 alone must find nothing in a connection that it could take
// for a request. Until then the time for a head runs, and no more than Limits.Early waits. A
// server that ends, says something else or is given up before is none (parsers.ErrNoServer):
// what waits is judged and answered as where it could not be reached.
//
// A frame goes on as a whole or not at all, and nothing is sent between its parts:
// a Forward covers what is still to come of it.
//
// # What is changed
//
// SETTINGS pass, so that the ends agree with each other on windows, frame sizes and
// tables; but no push, no extended CONNECT (RFC 8441), and no more streams, longer
// heads or larger tables than Limits. PRIORITY, frames of unknown types and unknown
// parameters are taken out.
//
// Windows are the ends' own. Data of streams that are over is dropped and its sender
// given the credit back. The body of a denial takes room in the client's window that
// the server does not know of: it is kept back from the client's WINDOW_UPDATE, and
// until one comes a frame of the server that would not fit waits.
//
// # Refused
//
// What breaks the connection's rules ends it with GOAWAY: frames of impossible
// lengths, on impossible streams or in impossible order, header blocks that cannot
// be decoded, windows overrun, and floods. No clock is kept; frames that further no
// stream are counted against those that do (Limits.Noise), streams reset before
// their answer against those that ran their course (Limits.Resets), PING and
// SETTINGS against their acknowledgements.
//
// A malformed request (RFC 9113 section 8.1.1) resets its stream, and no byte of it
// goes on: pseudo-header fields unknown, repeated, missing or late, names not in
// lower case, control bytes in values or white space around them, fields about the
// connection, TE but trailers, a Host that differs from :authority, a body that is
// not as long as Content-Length, trailers that do not end the stream or name fields
// of framing or routing. Beyond the RFC: a scheme other than http and https, any
// second Content-Length, framing fields with an underscore.
//
// A request that is well-formed but not carried has an answer: a path that package
// http refuses or a malformed authority 400, an Expect but 100-continue 417, too
// many or too long fields 431. Path and host are judged by the code of package
// http, and go on as they were judged. Crumbs of a cookie are judged as one field
// (section 8.2.3).
//
// # Denied
//
// A denied request is answered 403; a gRPC call 200 with grpc-status 7 in a block
// that is head and trailers in one. The body of a request is then taken and dropped,
// up to Limits.Denied; behind that, and at once for a call, RST_STREAM (NO_ERROR)
// follows. Other streams do not notice.
//
// # gRPC
//
// A POST of application/grpc is a call. Its messages are counted by their prefixes,
// for which a frame is waited for only where one lies within it; its outcome is
// reported when it is over.
//
// # Cost
//
// Nothing is allocated for a request whose fields the client's table holds. A
// session holds what its HPACK tables do, and of each open request a copy, to judge
// it again when policy changes.
package http2
