package tls

// retryRandom is the random of a ServerHello that is a HelloRetryRequest (RFC 8446, 4.1.3).
const retryRandom = "\xCF\x21\xAD\x74\xE5\x9A\x61\x11\xBE\x1D\x8C\x02\x1E\x65\xB8\x91" +
	"\xC2\xA2\x11\x16\x7A\xBB\x8C\x5E\x07\x9E\x09\xE2\xC8\xA8\x33\x9C"

// retries says of the beginning of what a server sends whether it wants another hello, if
// that is known yet. What is no hello of a server is an alert, or no TLS: no other is
// wanted then.
func retries(data []byte) (retry, known bool) {
	const size = messageHead + 2 + randomSize
	var buf [size]byte
	head := buf[:0]
	for len(head) < size {
		if len(data) > 0 && data[0] != handshake || len(head) > 0 && head[0] != serverHello {
			return false, true
		}
		if len(data) < recordHead {
			return false, false
		}
		n := uint16At(data[3:])
		part := data[recordHead:min(recordHead+n, len(data))]
		if n == 0 {
			return false, true
		}
		head = append(head, part[:min(len(part), size-len(head))]...)
		if len(part) < n && len(head) < size {
			return false, len(head) > 0 && head[0] != serverHello
		}
		data = data[recordHead+len(part):]
	}
	return head[0] == serverHello && string(head[messageHead+2:]) == retryRandom, true
}
