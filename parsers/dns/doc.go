// Package dns reads messages of the DNS (RFC 1035, RFC 6891) without copying and without
// allocating: what a question asks, and what an answer says of the name that was asked.
//
// One rule holds for all of it: what two readers could take for different things is
// refused. So a question is one message with the opcode QUERY, exactly one question, no
// records but an OPT and a signature in the additional section, and not a byte behind the
// last. Names are at most 255 bytes long, in labels of at most 63, and a pointer leads to
// a name that stands before it; a question's own name has no pointer. A message that says
// that it is an answer is no question, nor the other way round.
//
// An answer is read as far as it concerns the name that was asked: the aliases that lead
// on from it, each from the end of the one before, and the addresses at their end. What
// it says of other names is somebody else's business, and is passed over. Every record
// must have the length that it claims, and the message ends where the last one does.
//
// Names are compared without regard to the case of ASCII letters; in a question they are
// kept as they were sent, so that an answer can be held to the very bytes (the case is the
// client's secret against forgers).
package dns
