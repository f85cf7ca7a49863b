package observe

import (
	"context"
	"slices"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// Last returns the newest events that match, oldest first; n 0 is all. It also
// returns a reader that follows on where they end.
func (r *Ring) Last(n uint64, match func(*Event) bool) ([]*Event, *Reader) {
	oldest, next := r.bounds()
	var found []*Event
	for seq := next; seq > oldest && (n == 0 || uint64(len(found)) < n); {
		seq--
		e := r.at(seq)
		if e == nil { // overwritten meanwhile, and so is all before it
			break
		}
		if match(e) {
			found = append(found, e)
		}
	}
	slices.Reverse(found)
	return found, &Reader{ring: r, next: next}
}

// First returns the oldest events that match; n 0 is all.
func (r *Ring) First(n uint64, match func(*Event) bool) []*Event {
	oldest, next := r.bounds()
	var found []*Event
	for seq := oldest; seq < next && (n == 0 || uint64(len(found)) < n); seq++ {
		if e := r.at(seq); e != nil && match(e) {
			found = append(found, e)
		}
	}
	return found
}

// Follow returns a reader of the events to come.
func (r *Ring) Follow() *Reader { return &Reader{ring: r, next: r.head.Load()} }

// Reader reads a ring from one event to the next. It belongs to one goroutine.
type Reader struct {
	ring *Ring
	next uint64
}

// Next waits for the next event. When the reader was too slow the event is the
// news of what it lost; reading then goes on a little after the oldest event that
// is left, lest it be overtaken again at once.
func (rd *Reader) Next(ctx context.Context) (*Event, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		oldest, next := rd.ring.bounds()
		if rd.next >= next {
			if err := rd.ring.sleep(ctx, rd.next); err != nil {
				return nil, err
			}
			continue
		}
		if e := rd.ring.at(rd.next); e != nil {
			rd.next++
			return e, nil
		}
		oldest = min(max(oldest, rd.next+1), next) // it may have been written over just now
		return rd.skip(min(oldest+(next-oldest)/8, next)), nil
	}
}

func (rd *Reader) skip(to uint64) *Event {
	n := to - rd.next
	rd.next = to
	source := flowpb.LostEventSource_HUBBLE_RING_BUFFER
	rd.ring.countLost(source, n)
	return &Event{Lost: &flowpb.LostEvent{Source: source, NumEventsLost: n}}
}
