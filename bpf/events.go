package bpf

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/headgate/headgate/policy"
)

// EventKind says what an Event tells.
type EventKind uint8

const (
	EventVerdict EventKind = 1 // one direction of a new connection was let through
	EventDrop    EventKind = 2 // a packet was dropped
)

// Event is one thing that the gate decided.
type Event struct {
	Kind                                EventKind
	Time                                time.Time
	Source, Destination                 netip.AddrPort
	SourceIdentity, DestinationIdentity policy.Identity
	Ifindex, Length                     uint32
	Rule                                uint32 // number of the rule, 0: none
	Set                                 uint32 // number of the L7 set
	Verdict                             policy.Verdict
	Reason                              uint8
	Direction                           policy.Direction
	Proto                               policy.Proto
	TCPFlags, ICMPType, ICMPCode        uint8
	Match                               uint8 // Hubble's policy_match_type
	Audit                               bool  // let through, and a policy that audits would deny it
	DestinationMAC, SourceMAC           [6]byte
}

// pollInterval is how long an event may wait: the gate wakes the reader only when
// a batch has gathered, since a wake-up an event costs it a quarter of its speed.
const pollInterval = 100 * time.Millisecond

// Events reads what the gate decided.
type Events struct {
	ring    *ringbuf.Reader
	flushed chan struct{} // a value for each flush that is done
}

// Events opens the ring. Only one reader gets an event.
func (g *Gate) Events() (*Events, error) {
	r, err := ringbuf.NewReader(g.objs.HgEvents1)
	if err != nil {
		return nil, fmt.Errorf("open the datapath's events: %w", err)
	}
	return &Events{ring: r, flushed: make(chan struct{}, 1)}, nil
}

// Run calls f with each event until the context ends. f must not keep the slice.
func (e *Events) Run(ctx context.Context, f func([]Event)) error {
	defer e.ring.Close()
	stop := context.AfterFunc(ctx, func() { e.ring.Close() })
	defer stop()
	boot := time.Now().UnixNano() - monotonic()
	batch := make([]Event, 0, 256)
	var rec ringbuf.Record
	for {
		if len(batch) == 0 {
			e.ring.SetDeadline(time.Now().Add(pollInterval))
		}
		err := e.ring.ReadInto(&rec)
		switch {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			boot = time.Now().UnixNano() - monotonic()
		case errors.Is(err, ringbuf.ErrFlushed):
		case err != nil:
			return fmt.Errorf("read the datapath's events: %w", err)
		case len(rec.RawSample) >= int(unsafe.Sizeof(gateEvent{})):
			batch = append(batch, event((*gateEvent)(unsafe.Pointer(&rec.RawSample[0])), boot))
		}
		if len(batch) > 0 && (err != nil || rec.Remaining == 0 || len(batch) == cap(batch)) {
			f(batch)
			batch = batch[:0]
		}
		if errors.Is(err, ringbuf.ErrFlushed) {
			select {
			case e.flushed <- struct{}{}:
			default:
			}
		}
	}
}

// Flush makes Run hand over what the gate has written so far, and waits for it,
// but no longer than wait: then it is not done. Callers take turns.
func (e *Events) Flush(wait time.Duration) (done bool) {
	select { // one that nobody waited for
	case <-e.flushed:
	default:
	}
	if e.ring.Flush() != nil {
		return false
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-e.flushed:
		return true
	case <-t.C:
		return false
	}
}

func event(e *gateEvent, boot int64) Event {
	out := Event{
		Kind: EventKind(e.Kind), Time: time.Unix(0, boot+int64(e.Time)),
		Source:         netip.AddrPortFrom(fromAddr(e.Source), e.SourcePort),
		Destination:    netip.AddrPortFrom(fromAddr(e.Destination), e.DestinationPort),
		SourceIdentity: policy.Identity(e.SourceIdentity), DestinationIdentity: policy.Identity(e.DestinationIdentity),
		Ifindex: e.Ifindex, Length: e.Length, Rule: e.Rule, Set: e.Set, Verdict: policy.Verdict(e.Verdict),
		Reason: e.Reason, Direction: policy.Direction(e.Direction), Proto: policy.Proto(e.Proto),
		Match: e.Match, Audit: e.Audit != 0, TCPFlags: e.TcpFlags, ICMPType: e.IcmpType, ICMPCode: e.IcmpCode,
	}
	copy(out.DestinationMAC[:], e.Mac[:6])
	copy(out.SourceMAC[:], e.Mac[6:])
	return out
}

// Drop counts packets by reason and direction. Reason 0: let through.
type Drop struct {
	Reason         uint8
	Direction      policy.Direction
	Packets, Bytes uint64
}

// Drops are the counters that are not zero.
func (g *Gate) Drops() ([]Drop, error) {
	var out []Drop
	var per []gateCounter
	for i := range g.objs.HgDrops1.MaxEntries() {
		if err := g.objs.HgDrops1.Lookup(i, &per); err != nil {
			return nil, fmt.Errorf("read drop counters: %w", err)
		}
		d := Drop{Reason: uint8(i / 2), Direction: policy.Direction(i % 2)}
		for _, c := range per {
			d.Packets += c.Packets
			d.Bytes += c.Bytes
		}
		if d.Packets > 0 {
			out = append(out, d)
		}
	}
	return out, nil
}

// Lost is how many events found the ring full.
func (g *Gate) Lost() (uint64, error) {
	var per []uint64
	if err := g.objs.HgLost1.Lookup(uint32(0), &per); err != nil {
		return 0, fmt.Errorf("read lost events: %w", err)
	}
	var n uint64
	for _, c := range per {
		n += c
	}
	return n, nil
}
