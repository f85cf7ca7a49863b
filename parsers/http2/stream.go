package http2

import "github.com/headgate/headgate/parsers"

// stream is a request that is not over, or of which one side may still send.
type stream struct {
	id       uint32
	request  uint64  // of the hooks
	ended    [2]bool // by side: it has sent its last frame
	over     bool    // nothing of it counts any more: what the client still sends is dropped
	mute     bool    // and what the server sends too
	call     bool    // gRPC
	connect  bool    // a tunnel
	code     int     // grpc-status, if coded
	coded    bool
	answered bool     // the head of the final response has passed
	status   int      // of it
	length   int64    // Content-Length of the request; -1: none
	got      int64    // of that
	messages [2]tally // by sender
	kept     []byte   // the request, see keep
}

// streams are those that are open, by id, and those that linger: over for us, but
// their client may not know yet. Of these the oldest are forgotten.
type streams struct {
	open    map[uint32]*stream
	free    []*stream
	last    uint32 // highest id seen
	sent    uint32 // highest id that the server knows
	uploads int    // whose client has not ended, calls excepted

	ring  [lingerMax]uint32
	first int
	n     int
}

const (
	lingerMax = 256
	// keepCap is how large a buffer a stream keeps for the next.
	keepCap = 2 << 10
)

// live is how many are neither over nor lingering.
func (t *streams) live() int { return len(t.open) - t.n }

// add opens a stream.
func (t *streams) add(id uint32) *stream {
	var st *stream
	if n := len(t.free); n > 0 {
		st, t.free = t.free[n-1], t.free[:n-1]
		*st = stream{kept: st.kept[:0]}
	} else {
		st = new(stream)
	}
	st.id, st.length = id, -1
	t.open[id] = st
	return st
}

// remove forgets a stream.
func (t *streams) remove(st *stream) {
	delete(t.open, st.id)
	if cap(st.kept) > keepCap {
		st.kept = nil
	}
	t.free = append(t.free, st)
}

// linger keeps a stream that is over until its client knows.
func (t *streams) linger(st *stream) {
	if t.n == lingerMax {
		t.forget(t.ring[t.first])
	}
	st.over = true
	t.ring[(t.first+t.n)%lingerMax] = st.id
	t.n++
}

// forget ends the lingering of a stream.
func (t *streams) forget(id uint32) {
	for i := range t.n {
		at := (t.first + i) % lingerMax
		if t.ring[at] != id {
			continue
		}
		for k := i; k > 0; k-- {
			t.ring[(t.first+k)%lingerMax] = t.ring[(t.first+k-1)%lingerMax]
		}
		t.first = (t.first + 1) % lingerMax
		t.n--
		break
	}
	if st := t.open[id]; st != nil {
		t.remove(st)
	}
}

// endSide notes the last frame of a side. When both have sent theirs, the stream
// has run its course.
func (s *Session) endSide(st *stream, side parsers.Side) {
	if side == parsers.Client && !st.call {
		s.streams.uploads--
	}
	if st.ended[side] = true; st.ended[side.Peer()] {
		s.resets = max(0, s.resets-1)
		s.settle(st, nil)
		s.streams.remove(st)
	}
}

// giveUp ends a stream before its time. mute: its server was told, and may not know
// yet; otherwise it is the client who may still send.
func (s *Session) giveUp(st *stream, why error, mute bool) {
	s.settle(st, why)
	if st.mute = mute; !mute && st.ended[parsers.Client] {
		s.streams.remove(st)
		return
	}
	s.streams.linger(st)
}

// settle takes a stream out of all accounts and reports what became of it.
func (s *Session) settle(st *stream, why error) {
	if !st.ended[parsers.Client] && !st.call {
		s.streams.uploads--
	}
	s.kept -= len(st.kept)
	st.kept = st.kept[:0]
	switch {
	case st.call:
		s.hooks.Response(st.request, parsers.Answer{Status: st.status, Reset: why, Call: s.outcome(st)})
	case !st.answered:
		s.hooks.Response(st.request, parsers.Answer{Reset: why})
	}
}
