package fqdn

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

const (
	saveAfter = 200 * time.Millisecond // of the first change
	saveRest  = 20                     // times as long as the last one took
	magic     = "headgate names 1\n"
)

// saved is an endpoint as it stands on disk.
type saved struct {
	id    uint16
	name  string
	names []savedName
}

type savedName struct {
	name  string
	addrs []learnt
}

func (s *Store) dirty() {
	if s.changed.IsZero() {
		s.changed = s.now()
	}
}

// saveDue reports whether there is something to be written, and it is time to.
func (s *Store) saveDue() bool {
	if s.config.Disk == nil || s.changed.IsZero() || s.over || s.names == nil || !s.sweepAt.IsZero() {
		return false // until the sweep the file is that of the process before
	}
	now := s.now()
	if now.Sub(s.changed) < saveAfter || now.Sub(s.savedAt) < time.Duration(s.stats.saveTook.Load())*saveRest {
		return false
	}
	s.changed, s.savedAt = time.Time{}, now
	return true
}

// collect encodes what is known, and lets others work in between.
func (s *Store) collect() []byte {
	s.begin()
	defer s.end()
	t := s.startTurn()
	defer s.endTurn(&t)
	return s.encode(func() { s.pause(&t) })
}

// encode is everything that is known. It calls pause after each name: what changes meanwhile
// may be in it or not.
func (s *Store) encode(pause func()) []byte {
	if s.config.Disk == nil || s.names == nil { // what was restored is nobody's yet
		return nil
	}
	b := make([]byte, 0, 64+32*s.addresses)
	b = append(b, magic...)
	b = binary.AppendUvarint(b, uint64(len(s.hosts)))
	for _, h := range slices.Collect(maps.Values(s.hosts)) {
		b = binary.AppendUvarint(b, uint64(h.id))
		b = appendText(b, h.name)
		at := len(b) // its names are counted when they are there
		b = append(b, make([]byte, countSize)...)
		n := uint64(0)
		for _, e := range h.known {
			b = appendText(b, e.name)
			b = binary.AppendUvarint(b, uint64(len(e.addrs)))
			for _, l := range e.addrs {
				b = binary.BigEndian.AppendUint32(append(b, l.addr[:]...), l.expires)
			}
			n++
			pause()
		}
		putCount(b[at:at+countSize], n)
	}
	return b
}

// countSize is how many bytes a count takes that was left room for.
const countSize = 5

// putCount writes a Uvarint of that length.
func putCount(b []byte, n uint64) {
	for i := range b {
		b[i] = byte(n) | 0x80
		n >>= 7
	}
	b[len(b)-1] &^= 0x80
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

// save writes what was encoded, with a sum at its end. After the last there is none more.
func (s *Store) save(data []byte, last bool) {
	s.disk.Lock()
	defer s.disk.Unlock()
	if data == nil || s.saved {
		return
	}
	s.saved = last
	sum := sha256.Sum256(data)
	err := s.config.Disk.Save(append(data, sum[:]...))
	if failing := err != nil; failing != s.stats.saveFails.Swap(failing) && failing {
		s.log.Error("names are not kept for after a restart", "error", err)
	}
}

// restore reads what an earlier process has learnt. What cannot be read whole is not
// read at all: it would admit who knows what.
func (s *Store) restore() {
	if s.config.Disk == nil {
		return
	}
	data, err := s.config.Disk.Load()
	if err == nil && data == nil {
		return
	}
	if err == nil {
		s.restored, err = decode(data)
	}
	if err != nil {
		s.restored = nil
		s.log.Error("start without the names that were remembered", "error", err)
	}
}

var errCorrupt = errors.New("the file of names is damaged")

// reader reads what encode writes; after the first fault it reads nothing.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number(most uint64) int {
	n, size := binary.Uvarint(r.b)
	if r.bad || size <= 0 || n > most {
		r.bad = true
		return 0
	}
	r.b = r.b[size:]
	return int(n)
}

func (r *reader) bytes(n int) []byte {
	if r.bad || n > len(r.b) {
		r.bad = true
		return make([]byte, n)
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func decode(data []byte) ([]saved, error) {
	body := len(data) - sha256.Size
	if body < len(magic) || !bytes.HasPrefix(data, []byte(magic)) {
		return nil, fmt.Errorf("%w: it does not begin as one", errCorrupt)
	}
	if sum := sha256.Sum256(data[:body]); !bytes.Equal(sum[:], data[body:]) {
		return nil, fmt.Errorf("%w: its sum is wrong", errCorrupt)
	}
	r := reader{b: data[len(magic):body]}
	var out []saved
	for range r.number(1 << 16) {
		h := saved{id: uint16(r.number(1<<16 - 1)), name: string(r.bytes(r.number(1 << 12)))}
		for range r.number(1 << 24) {
			n := savedName{name: string(r.bytes(r.number(255)))}
			for range r.number(1 << 24) {
				l := learnt{}
				copy(l.addr[:], r.bytes(len(l.addr)))
				l.expires = binary.BigEndian.Uint32(r.bytes(4))
				if r.bad {
					return nil, errCorrupt
				}
				n.addrs = append(n.addrs, l)
			}
			h.names = append(h.names, n)
		}
		out = append(out, h)
	}
	if r.bad || len(r.b) > 0 {
		return nil, errCorrupt
	}
	return out, nil
}

// readmit gives an endpoint what it knew before a restart. What has run out since counts
// for the grace once more: clients may not have heard of it.
func (s *Store) readmit(h *host) {
	for _, old := range s.restored {
		if old.id != h.id || old.name != h.name {
			continue
		}
		for _, n := range old.names {
			e := h.known[n.name]
			if e == nil {
				e = &entry{name: n.name, pick: s.none}
			}
			for _, l := range n.addrs {
				if isSomebody(addrOf(l)) {
					s.recall(h, e, l)
				}
			}
		}
	}
}

func (s *Store) recall(h *host, e *entry, l learnt) {
	until := time.Unix(int64(max(l.expires, uint32(s.now().Unix())))-1, 0)
	if err := s.remember(h, e, addrOf(l), until); err != nil {
		s.log.Warn("not every name that was remembered has room", "endpoint", h.name, "error", err)
	}
}
