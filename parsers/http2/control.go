package http2

import (
	"encoding/binary"

	"golang.org/x/net/http2"

	"github.com/headgate/headgate/parsers"
)

// settings sends a SETTINGS frame on, so changed that what the sides agree on can
// be carried here, and remembers what it allows.
func (s *Session) settings(from parsers.Side, f http2.FrameHeader, payload []byte) (int64, bool) {
	d, peer := &s.sides[from], &s.sides[from.Peer()]
	if f.Flags.Has(http2.FlagSettingsAck) {
		switch {
		case f.Length != 0:
			return s.fail(from, ErrFrameSize)
		case len(d.pending) == 0:
			return s.fail(from, ErrAcknowledged)
		}
		d.acknowledge()
		return s.forward(f), false
	}
	switch {
	case f.Length%6 != 0:
		return s.fail(from, ErrFrameSize)
	case len(peer.pending) >= s.limits.Unanswered:
		return s.fail(from, ErrFlood)
	}
	first := !d.greeted
	start := len(s.out)
	s.out = appendHead(s.out, 0, http2.FrameSettings, 0, 0)
	seen, now := map16(0), allowed{table: -1}
	for ; len(payload) > 0; payload = payload[6:] {
		id, v := http2.SettingID(binary.BigEndian.Uint16(payload)), binary.BigEndian.Uint32(payload[2:])
		v, pass, err := s.setting(from, id, v, &now)
		if err != nil {
			s.out = s.out[:start]
			return s.fail(from, err)
		}
		if pass {
			s.out = putSetting(s.out, start+frameHead, id, v)
			seen.add(id)
		}
	}
	if d.greeted = true; first {
		s.complete(from, seen)
	}
	peer.allow(now)
	length := len(s.out) - start - frameHead
	s.out[start], s.out[start+1], s.out[start+2] = byte(length>>16), byte(length>>8), byte(length)
	n := int64(0)
	if first && from == parsers.Client {
		n = s.move(parsers.Forward, int64(len(Preface))) // see clientPreface
	}
	n += s.move(parsers.Discard, frameHead+int64(f.Length))
	s.noise(from, 10)
	s.send(from.Peer(), start)
	return n, false
}

// setting reads one parameter and says as what it goes on, if it does.
func (s *Session) setting(from parsers.Side, id http2.SettingID, v uint32, now *allowed) (as uint32, pass bool, err *Refusal) {
	switch id {
	case http2.SettingHeaderTableSize:
		v = min(v, uint32(s.limits.Table))
		now.table = int64(v)
	case http2.SettingEnablePush:
		if v > 1 {
			return 0, false, ErrSettings
		}
		v = 0
	case http2.SettingInitialWindowSize:
		if v > maxWindow {
			return 0, false, ErrWindow
		}
		if from == parsers.Client {
			s.initial = int64(v)
		}
	case http2.SettingMaxFrameSize:
		if v < minFrame || v > 1<<24-1 {
			return 0, false, ErrSettings
		}
		now.maxFrame = v
	case http2.SettingMaxConcurrentStreams:
		if from == parsers.Server {
			v = min(v, uint32(s.limits.Streams))
		}
	case http2.SettingMaxHeaderListSize:
		v = min(v, uint32(s.limits.Head))
	case http2.SettingNoRFC7540Priorities:
		if v > 1 {
			return 0, false, ErrSettings
		}
	default:
		// Tunnels in streams (RFC 8441) are not offered, nor what is not known here: gRPC's own
		// parameter would bring bytes into fields that no field has. And whoever takes
		// this connection for HTTP/1 must find nothing in it that he could read.
		return 0, false, nil
	}
	return v, true, nil
}

// complete adds to the first SETTINGS of a side what it leaves to a default that
// does not hold here.
func (s *Session) complete(from parsers.Side, seen map16) {
	if from == parsers.Client {
		if !seen.has(http2.SettingEnablePush) {
			s.out = appendSetting(s.out, http2.SettingEnablePush, 0)
		}
		return
	}
	if !seen.has(http2.SettingMaxConcurrentStreams) {
		s.out = appendSetting(s.out, http2.SettingMaxConcurrentStreams, uint32(s.limits.Streams))
	}
	if !seen.has(http2.SettingMaxHeaderListSize) {
		s.out = appendSetting(s.out, http2.SettingMaxHeaderListSize, uint32(s.limits.Head))
	}
}

// map16 is a set of the settings that have a name.
type map16 uint16

func (m *map16) add(id http2.SettingID) {
	if id < 16 {
		*m |= 1 << id
	}
}
func (m map16) has(id http2.SettingID) bool { return m&(1<<id) != 0 }

// putSetting appends a parameter to those that begin at start, or gives one that
// is there already its last value: some receivers refuse repetitions.
func putSetting(b []byte, start int, id http2.SettingID, v uint32) []byte {
	for i := start; i < len(b); i += 6 {
		if binary.BigEndian.Uint16(b[i:]) == uint16(id) {
			binary.BigEndian.PutUint32(b[i+2:], v)
			return b
		}
	}
	return appendSetting(b, id, v)
}

func appendSetting(b []byte, id http2.SettingID, v uint32) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(id))
	return binary.BigEndian.AppendUint32(b, v)
}

// allow notes what the side's peer has said that it allows.
func (d *side) allow(a allowed) {
	d.pending = append(d.pending, a)
	d.maxFrame = max(d.maxFrame, a.maxFrame)
	if a.table > d.table {
		d.decoder.SetAllowedMaxDynamicTableSize(uint32(a.table))
	}
}

// acknowledge lets the oldest of that bind.
func (d *side) acknowledge() {
	a := d.pending[0]
	d.pending = append(d.pending[:0], d.pending[1:]...)
	if a.maxFrame != 0 {
		d.maxFrame = a.maxFrame
	}
	if a.table >= 0 {
		if a.table < d.table && (d.due < 0 || a.table < d.due) {
			d.due = a.table
		}
		d.table = a.table
	}
	most := d.table
	for _, p := range d.pending { // sent later: may be used already
		d.maxFrame, most = max(d.maxFrame, p.maxFrame), max(most, p.table)
	}
	d.decoder.SetAllowedMaxDynamicTableSize(uint32(most))
}

func (s *Session) ping(from parsers.Side, f http2.FrameHeader) (int64, bool) {
	if f.Flags.Has(http2.FlagPingAck) {
		peer := &s.sides[from.Peer()]
		if peer.pings == 0 {
			return s.drop(from, f, 10), false
		}
		peer.pings--
		return s.forward(f), false
	}
	d := &s.sides[from]
	if d.pings++; d.pings > s.limits.Unanswered {
		return s.fail(from, ErrFlood)
	}
	return s.forward(f), false
}

// priority drops what RFC 9113 section 5.3 deprecates, once it is well-formed.
func (s *Session) priority(from parsers.Side, f http2.FrameHeader, data []byte) (int64, bool) {
	var err *Refusal
	if f.Length != 5 {
		err = ErrPriority
	} else if binary.BigEndian.Uint32(data[frameHead:])&(1<<31-1) == f.StreamID {
		err = ErrDependency
	}
	if err != nil && from == parsers.Client {
		return s.wrong(f, err), false
	}
	return s.drop(from, f, 10), false
}

// wrong is a frame with which the client broke a rule on a stream.
func (s *Session) wrong(f http2.FrameHeader, err *Refusal) int64 {
	st := s.streams.open[f.StreamID]
	request := s.id
	if st != nil {
		request = st.request
	}
	if s.passes(request, parsers.Client, err) {
		return 0
	}
	n := s.drop(parsers.Client, f, 100)
	if st != nil {
		s.abort(st, err)
	} else {
		s.tell(parsers.Client, f.StreamID, err.Code)
	}
	return n
}

// reset takes RST_STREAM.
func (s *Session) reset(from parsers.Side, f http2.FrameHeader, payload []byte) (int64, bool) {
	code := http2.ErrCode(binary.BigEndian.Uint32(payload))
	st := s.streams.open[f.StreamID]
	switch {
	case st == nil && (f.StreamID > s.streams.last || f.StreamID%2 == 0):
		return s.fail(from, ErrStreamIdle)
	case st == nil:
		return s.drop(from, f, 10), false
	case st.over:
		n := s.drop(from, f, 1)
		if from == parsers.Client {
			s.lateEnd(st, true)
		}
		return n, false
	}
	n := s.forward(f)
	switch {
	case st.ended[parsers.Server]: // answered: nobody wants the rest of the request (section 8.1)
		s.giveUp(st, nil, false)
	case from == parsers.Client:
		s.giveUp(st, &Reset{By: from, Code: code}, false)
		s.streams.forget(st.id)
		s.premature()
	default:
		s.giveUp(st, &Reset{By: from, Code: code}, false)
		s.premature()
	}
	return n, false
}

// premature counts a stream that was reset before its answer was complete, by
// whomever: clients can make servers do it.
func (s *Session) premature() {
	if s.resets++; s.resets > s.limits.Resets {
		s.fail(parsers.Client, ErrResets)
	}
}

// windowUpdate takes WINDOW_UPDATE. That of the connection by the client is kept
// back as far as the server must not know of it.
func (s *Session) windowUpdate(from parsers.Side, f http2.FrameHeader, payload []byte) (int64, bool) {
	n := int64(binary.BigEndian.Uint32(payload) & maxWindow)
	if f.StreamID != 0 {
		st := s.streams.open[f.StreamID]
		switch {
		case st == nil && (f.StreamID > s.streams.last || f.StreamID%2 == 0):
			return s.fail(from, ErrStreamIdle)
		case st == nil || st.over:
			return s.drop(from, f, 1), false
		case n == 0 && from == parsers.Client:
			return s.wrong(f, ErrIncrement), false
		}
		s.noise(from, 1)
		return s.forward(f), false
	}
	if n == 0 {
		return s.fail(from, ErrIncrement)
	}
	if from == parsers.Server {
		return s.forward(f), false
	}
	s.noise(from, 1)
	if s.window += n; s.window > maxWindow {
		return s.fail(from, ErrWindow)
	}
	keep := s.debt
	if n >= 1<<16 {
		keep += reserve
	}
	if keep = min(keep, n); keep <= 0 {
		return s.forward(f), false
	}
	s.debt -= keep
	size := s.move(parsers.Discard, frameHead+int64(f.Length))
	if n > keep {
		start := len(s.out)
		s.out = appendWindowUpdate(s.out, 0, uint32(n-keep))
		s.send(parsers.Server, start)
	}
	return size, false
}

// reserve is kept back of a client's window for answers made here.
const reserve = 4 << 10
