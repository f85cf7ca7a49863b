// Package tls reads the server name that a client gives when TLS begins (SNI, RFC
// 6066), has it judged, and lets the connection go on as it is, or ends it with an
// alert. Nothing is decrypted.
//
// Who decides by a name must read it as the server will, so whatever two readers could
// take for different things is refused: what is not TLS, the hello of SSL 2, a hello
// in which lengths do not add up, something behind it in its record, an extension
// that is there twice, several names, a name of another type, an address, a dot at the
// end, characters that are in no name of the DNS. A hello may come in any number of
// segments and of records, up to MaxHello bytes of it. A hello without a name is
// read, and names none.
//
// A server may ask for a second hello (HelloRetryRequest, RFC 8446): it must name the
// same server. What a client says inside of TLS cannot be seen: the names in a hello that
// is encrypted (ECH) and those of a renegotiation. Of ECH the outer name is judged.
package tls
