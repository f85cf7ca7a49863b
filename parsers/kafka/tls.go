package kafka

import "errors"

// A client that begins TLS sends a record of a handshake: its kind and the major
// version, in every version of TLS. Read as the length of a request that is more
// than any broker takes.
const (
	tlsHandshake = 0x16
	tlsMajor     = 0x03
)

var errTLS = errors.New("the client begins TLS, which does not end here: Kafka rules read plain text; let TLS end by terminatingTLS, or the client speak PLAINTEXT")
