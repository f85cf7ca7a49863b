package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// Questions are those of the DNS that go on without the proxy, and their answers: it says
// what it has allowed and told, takes out what the gate has let pass, and reads what it has
// answered. It needs no privilege beyond the descriptors of the maps.
type Questions struct {
	known, told, state, asked, events *ebpf.Map
	spare                             sync.Pool
}

// Questions are those of this gate.
func (g *Gate) Questions() *Questions {
	m := g.QuestionMaps()
	return &Questions{known: m[0], told: m[1], state: m[2], asked: m[3], events: m[4]}
}

// QuestionMaps are those that a proxy needs: what is allowed, what was told, since when, what
// was asked, and what was answered, in this order.
func (g *Gate) QuestionMaps() []*ebpf.Map {
	o := &g.objs
	return []*ebpf.Map{o.HgDnsKnown1, o.HgDnsTold1, o.HgDnsState1, o.HgDnsAsked1, o.HgDnsEvent1}
}

// OpenQuestions takes the maps from descriptors that another process gave, in the order of
// Gate.QuestionMaps, and owns them.
func OpenQuestions(fds [5]int) (*Questions, error) {
	q := &Questions{}
	for i, to := range []**ebpf.Map{&q.known, &q.told, &q.state, &q.asked, &q.events} {
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

const (
	stateKnown    = uint32(0)
	stateTold     = uint32(1)
	stateLost     = uint32(2)
	stateLostTold = uint32(3)
)

// KnownRound is the one that holds.
func (q *Questions) KnownRound() (round uint64, err error) {
	if err = q.state.Lookup(stateKnown, &round); err != nil {
		return 0, fmt.Errorf("read the round of questions: %w", err)
	}
	return round, nil
}

// SetKnownRound says which round's Know holds; 0: none does.
func (q *Questions) SetKnownRound(round uint64) error { return q.setRound(stateKnown, round) }

// SetToldRound says which round's Tell holds; 0: none does.
func (q *Questions) SetToldRound(round uint64) error { return q.setRound(stateTold, round) }

func (q *Questions) setRound(which uint32, round uint64) error {
	if err := q.state.Put(which, round); err != nil {
		return fmt.Errorf("begin a round of questions: %w", err)
	}
	return nil
}

// Know says that a question is allowed by two sets, in one round. The name is as on the
// wire, in small letters, and no longer than Longest.
func (q *Questions) Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error {
	k := gateDnsKnownKey{Round: round, Set: [2]uint32{ingress, egress}, Type: typ, Length: uint16(len(name))}
	if copy(k.Name[:], name) != len(name) {
		return fmt.Errorf("remember a question: its name has %d bytes, more than %d", len(name), q.Longest())
	}
	if egress == 0 && ingress == 0 {
		return errors.New("remember a question: no set allows it, and without one the datapath denies")
	}
	if err := q.known.Put(&k, uint8(1)); err != nil {
		return fmt.Errorf("remember a question: %w", err)
	}
	return nil
}

// MostAddresses is how many addresses of a name can be told.
const MostAddresses = len(gateDnsTold{}.Addr)

// Tell says what an endpoint was told of a name, in one round: addresses, as what the maps of
// names have each, and until when, by CLOCK_MONOTONIC, they all stay there. An answer counts for
// floor at least. The name is as for Know.
func (q *Questions) Tell(round uint64, endpoint uint16, name []byte, typ uint16, addrs []netip.Addr, as []policy.Identity, until, floor time.Duration) error {
	k := gateDnsToldKey{Endpoint: uint32(endpoint), Type: typ, Length: uint16(len(name))}
	v := gateDnsTold{Round: round, Until: uint64(max(until, 0)), Count: uint32(len(addrs)), Floor: uint32((floor + time.Second - 1) / time.Second)}
	if copy(k.Name[:], name) != len(name) || len(addrs) > MostAddresses || len(addrs) != len(as) {
		return fmt.Errorf("remember an answer: its name has %d bytes of at most %d, and %d addresses of at most %d", len(name), q.Longest(), len(addrs), MostAddresses)
	}
	for i, a := range addrs {
		v.Addr[i], v.Identity[i] = toAddr(a), uint32(as[i])
	}
	if err := q.told.Put(&k, &v); err != nil {
		return fmt.Errorf("remember an answer: %w", err)
	}
	return nil
}

// askedScratch is memory to read with.
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

// TakeLost is how many of those that Read tells of found no room since it was last asked,
// whichever process did.
func (q *Questions) TakeLost() (uint64, error) {
	var lost, told uint64
	err := q.state.Lookup(stateLost, &lost)
	if err == nil {
		err = q.state.Lookup(stateLostTold, &told)
	}
	if err == nil && lost != told {
		err = q.state.Put(stateLostTold, lost)
	}
	if err != nil {
		return 0, fmt.Errorf("read how many answers were not reported: %w", err)
	}
	return lost - told, nil
}

// Read calls f for each question that the gate has let go on and whose answer it has let go
// too, with both messages, until the context ends. It looks every least, and less often up to
// most while there is nothing. There must be one reader at a time, of all processes.
func (q *Questions) Read(ctx context.Context, least, most time.Duration,
	f func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte),
) error {
	ring, err := ringbuf.NewReader(q.events)
	if err != nil {
		return fmt.Errorf("open what the datapath tells of questions: %w", err)
	}
	defer ring.Close()
	const head = int(unsafe.Offsetof(gateDnsEvent{}.Answer))
	ring.SetDeadline(time.Unix(0, 1))                                                // what is there, without waiting
	rec := ringbuf.Record{RawSample: make([]byte, 0, unsafe.Sizeof(gateDnsEvent{}))} // a whole one, for what is shorter too
	for pause, found := least, false; ; {
		err := ring.ReadInto(&rec)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			if pause = min(2*pause, most); found {
				pause = least
			}
			found = false
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(pause):
			}
			continue
		case err != nil:
			return fmt.Errorf("read what the datapath tells of questions: %w", err)
		case len(rec.RawSample) < head:
			continue
		}
		found = true
		e := (*gateDnsEvent)(unsafe.Pointer(&rec.RawSample[0])) // of which Answer may be shorter
		answer := rec.RawSample[head:]
		f(netip.AddrPortFrom(fromAddr(e.Client), e.ClientPort), netip.AddrPortFrom(fromAddr(e.Server), e.ServerPort),
			time.Duration(e.Asked), time.Duration(e.Answered),
			e.Query[:min(int(e.QueryLength), len(e.Query))], answer[:min(int(e.AnswerLength), len(answer))])
	}
}
