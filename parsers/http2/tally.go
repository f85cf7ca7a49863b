package http2

// tally counts the messages of one direction of a gRPC call: a byte of flags, a
// length of four bytes, and that many bytes.
type tally struct {
	count uint64
	left  int64 // of the message
	size  int64 // as far as its length was read
	head  int8  // bytes of the prefix that were read
	lost  bool  // where messages begin is no longer known
}

// tallyAhead is how far into a frame a prefix may be waited for.
const tallyAhead = 64 << 10

// pass counts through a frame of n bytes, of which payload is there. False: the
// next prefix in it is not there yet. Nothing waits for the bytes of messages.
func (t *tally) pass(payload []byte, n int64) bool {
	if t.lost {
		return true
	}
	c := *t
	for pos := int64(0); pos < n; {
		if c.left > 0 {
			k := min(c.left, n-pos)
			c.left -= k
			pos += k
			continue
		}
		if pos >= int64(len(payload)) {
			t.lost = pos > tallyAhead
			return t.lost
		}
		if c.head > 0 {
			c.size = c.size<<8 | int64(payload[pos])
		}
		pos++
		if c.head++; c.head == 5 {
			c.count++
			c.left, c.size, c.head = c.size, 0, 0
		}
	}
	*t = c
	return true
}
