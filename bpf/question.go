package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Questions are those of the DNS that go on without the proxy: it says which it has
// allowed, and takes out what the gate has let pass. It needs no privilege beyond the
// descriptors of the maps.
type Questions struct {
	known, round, asked *ebpf.Map
	spare               sync.Pool
}

// Questions are those of this gate.
func (g *Gate) Questions() *Questions {
	return &Questions{known: g.objs.HgDnsKnown1, round: g.objs.HgDnsRound1, asked: g.objs.HgDnsAsked1}
}

// QuestionMaps are those that the proxy writes: what is allowed, the round, what was asked.
func (g *Gate) QuestionMaps() []*ebpf.Map {
	return []*ebpf.Map{g.objs.HgDnsKnown1, g.objs.HgDnsRound1, g.objs.HgDnsAsked1}
}

// OpenQuestions takes the maps from descriptors that another process gave, in the order of
// Gate.QuestionMaps, and owns them.
func OpenQuestions(fds [3]int) (*Questions, error) {
	q := &Questions{}
	for i, to := range []**ebpf.Map{&q.known, &q.round, &q.asked} {
		m, err := ebpf.NewMapFromFD(fds[i])
		if err != nil {
			return nil, fmt.Errorf("take map of questions from descriptor %d: %w", fds[i], err)
		}
		*to = m
	}
	return q, nil
}

// Longest is that of the names on the wire, the last label included, that the gate looks for.
func (q *Questions) Longest() int { return len(gateDnsKnownKey{}.Name) }

// SetRound says which round's judgements hold; 0: none do.
func (q *Questions) SetRound(round uint64) error {
	if err := q.round.Put(uint32(0), round); err != nil {
		return fmt.Errorf("begin a round of questions: %w", err)
	}
	return nil
}

// Know says that a question is allowed by two sets, in one round. The name is as on the
// wire, in small letters, and no longer than Longest.
func (q *Questions) Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error {
	k := gateDnsKnownKey{Set: [2]uint32{ingress, egress}, Type: typ, Length: uint16(len(name))}
	if copy(k.Name[:], name) != len(name) {
		return fmt.Errorf("remember a question: its name has %d bytes, more than %d", len(name), q.Longest())
	}
	v := gateDnsKnown{Round: round}
	if err := q.known.Put(&k, &v); err != nil {
		return fmt.Errorf("remember a question: %w", err)
	}
	return nil
}

// asked is memory to read with.
type askedScratch struct {
	key   gateDnsAskedKey
	value gateDnsAsked
}

// Take takes out a question that went on, so that nobody else does, and appends its message
// to b. False: there is none.
func (q *Questions) Take(client, server netip.AddrPort, id uint16, b []byte) (message []byte, at time.Duration, ok bool) {
	s, _ := q.spare.Get().(*askedScratch)
	if s == nil {
		s = &askedScratch{}
	}
	defer q.spare.Put(s)
	s.key = gateDnsAskedKey{Client: toAddr(client.Addr()), Server: toAddr(server.Addr()), ClientPort: client.Port(), ServerPort: server.Port(), Id: id}
	if q.asked.LookupAndDelete(&s.key, &s.value) != nil {
		return b, 0, false
	}
	return append(b, s.value.message()...), time.Duration(s.value.At), true
}

func (v *gateDnsAsked) message() []byte { return v.Message[:min(int(v.Length), len(v.Message))] }

// Before calls f for each question that went on before a time, by CLOCK_MONOTONIC. They are
// still to be taken; f may.
func (q *Questions) Before(at time.Duration, f func(client, server netip.AddrPort, id uint16)) error {
	const batch = 256
	var cursor ebpf.MapBatchCursor
	keys, values := make([]gateDnsAskedKey, batch), make([]gateDnsAsked, batch)
	for {
		n, err := q.asked.BatchLookup(&cursor, keys, values, nil)
		last := errors.Is(err, ebpf.ErrKeyNotExist)
		if err != nil && !last && !errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("read questions of the datapath: %w", err)
		}
		for i := range n {
			k := &keys[i]
			if time.Duration(values[i].At) < at {
				f(netip.AddrPortFrom(fromAddr(k.Client), k.ClientPort), netip.AddrPortFrom(fromAddr(k.Server), k.ServerPort), k.Id)
			}
		}
		if err != nil {
			return nil
		}
	}
}
