package observe

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// DefaultRingSize is how many events a Ring keeps if nothing else is said.
const DefaultRingSize = 65536

const (
	// eventBytes is how much memory a Ring takes for each event that it can keep: several
	// times what they mostly need.
	eventBytes   = 2048
	minRingBytes = 1 << 20
)

// Event is what a Ring holds: a flow, or the news that some were lost before they
// got here.
type Event struct {
	Lost *flowpb.LostEvent

	seq  uint64
	at   int64 // Unix, nanoseconds
	flow atomic.Pointer[flowpb.Flow]

	// What the flow is made of when somebody first asks for it; most are written over
	// without having been looked at. The ends are those of the record.
	from                *origin // nil: the flow is there
	source, destination *flowpb.Endpoint
	place               uint32
}

// origin is what a batch of events came in.
type origin struct {
	builder *Builder
	records Encoded
}

// Flow is nil for the news of a loss.
func (e *Event) Flow() *flowpb.Flow {
	f := e.flow.Load()
	if f != nil || e.from == nil {
		return f
	}
	r := e.from.records.Record(e.place)
	e.flow.CompareAndSwap(nil, e.from.builder.build(&r, e.time(), e.source, e.destination)) // who comes second sees the first one's
	return e.flow.Load()
}

func (e *Event) time() time.Time { return time.Unix(0, e.at) }

// Ring keeps the last events. Writers append in turn; readers look without locks:
// a slot holds a pointer to an event that knows its own number, so a reader sees
// by one load whether it got what it came for, or came too late.
type Ring struct {
	slots []atomic.Pointer[Event]
	head  atomic.Uint64 // number of the next event; they count from 0
	floor atomic.Uint64 // what came before was given up for want of memory

	mu         sync.Mutex
	wake       chan struct{} // closed by the next write; nil when nobody sleeps
	rate       rate
	held       held
	namespaces namespaces

	flows atomic.Uint64
	lost  [lostSources]atomic.Uint64
}

// lostSources is one more than the highest flowpb.LostEventSource.
const lostSources = 4

// NewRing returns a ring for size events; DefaultRingSize if size is not positive.
func NewRing(size int) *Ring {
	if size <= 0 {
		size = DefaultRingSize
	}
	r := &Ring{slots: make([]atomic.Pointer[Event], size), held: held{max: max(size*eventBytes, minRingBytes)}}
	r.rate.start = time.Now()
	return r
}

// Write appends a flow, which must not change any more.
func (r *Ring) Write(f *flowpb.Flow) {
	at := f.GetTime().AsTime()
	r.namespaces.saw(f.GetSource(), f.GetDestination(), at)
	events := make([]Event, 1)
	events[0].at = at.UnixNano()
	events[0].flow.Store(f)
	r.appendFlows(events, recordSize)
}

// appendFlows appends events that are flows. They stay in memory, with the bytes that
// they are made of, as long as the last of them.
func (r *Ring) appendFlows(events []Event, bytes int) {
	r.flows.Add(uint64(len(events)))
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.rate.add(now, uint64(len(events)))
	r.append(events, bytes)
}

// WriteLost appends the news that n events were lost at the source.
func (r *Ring) WriteLost(source flowpb.LostEventSource, n uint64) {
	if n == 0 {
		return
	}
	r.countLost(source, n)
	lost := &flowpb.LostEvent{Source: source, NumEventsLost: n}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.append([]Event{{Lost: lost, at: time.Now().UnixNano()}}, 0)
}

// append is called with mu held. Readers hear of all events at once.
func (r *Ring) append(events []Event, bytes int) {
	next := r.head.Load()
	for i := range events {
		e := &events[i]
		e.seq = next
		r.slot(next).Store(e)
		next++
	}
	r.head.Store(next)
	r.wakeUp()
	r.hold(next, bytes+len(events)*int(unsafe.Sizeof(Event{})))
}

func (r *Ring) wakeUp() {
	if r.wake != nil {
		close(r.wake)
		r.wake = nil
	}
}

func (r *Ring) slot(seq uint64) *atomic.Pointer[Event] {
	return &r.slots[seq%uint64(len(r.slots))]
}

// at returns the event with that number, nil if it is gone or not there yet.
func (r *Ring) at(seq uint64) *Event {
	if e := r.slot(seq).Load(); e != nil && e.seq == seq {
		return e
	}
	return nil
}

// bounds are the numbers of the oldest event and of the one to come.
func (r *Ring) bounds() (oldest, next uint64) {
	next = r.head.Load()
	if size := uint64(len(r.slots)); next > size {
		oldest = next - size
	}
	return min(max(oldest, r.floor.Load()), next), next
}

// sleep returns when there is an event with that number, or one after it.
func (r *Ring) sleep(ctx context.Context, seq uint64) error {
	r.mu.Lock()
	if r.head.Load() > seq {
		r.mu.Unlock()
		return nil
	}
	if r.wake == nil {
		r.wake = make(chan struct{})
	}
	wake := r.wake
	r.mu.Unlock()
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Len is how many events the ring holds.
func (r *Ring) Len() int {
	oldest, next := r.bounds()
	return int(next - oldest)
}

// Cap is how many events the ring can hold.
func (r *Ring) Cap() int { return len(r.slots) }

// Seen is how many flows were ever written.
func (r *Ring) Seen() uint64 { return r.flows.Load() }

// Lost is how many events were lost at a source since the start; for
// HUBBLE_RING_BUFFER those that readers were too slow for, each reader counted.
func (r *Ring) Lost(source flowpb.LostEventSource) uint64 {
	if source < 0 || source >= lostSources {
		source = flowpb.LostEventSource_UNKNOWN_LOST_EVENT_SOURCE
	}
	return r.lost[source].Load()
}

func (r *Ring) countLost(source flowpb.LostEventSource, n uint64) {
	if source < 0 || source >= lostSources {
		source = flowpb.LostEventSource_UNKNOWN_LOST_EVENT_SOURCE
	}
	r.lost[source].Add(n)
}

// Rate is flows a second over the last whole seconds, at most a minute of them.
func (r *Ring) Rate(window time.Duration) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.rate.over(window, time.Now())
}
