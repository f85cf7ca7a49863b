package observe

import (
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// Sink is where sources of events hand them in, from many goroutines.
type Sink struct {
	Builder *Builder
	Ring    *Ring
	Metrics *Metrics // nil: none
}

// Record takes one event.
func (s *Sink) Record(r *Record) { s.Take(Decoded([]Record{*r})) }

// Take takes a batch of events and keeps what it is in, but not the digests. Who is
// behind an address is looked up now, all else when somebody wants to see it.
func (s *Sink) Take(b Batch) {
	if len(b.Digests) == 0 {
		return
	}
	from := &origin{s.Builder, b.Records}
	known := ends{builder: s.Builder, ring: s.Ring}
	events := make([]Event, len(b.Digests))
	for i := range b.Digests {
		d, e := &b.Digests[i], &events[i]
		if d.Time.IsZero() {
			d.Time = time.Now()
		}
		e.at, e.from, e.place = d.Time.UnixNano(), from, d.Place
		second := d.Time.Unix()
		e.source = known.endpoint(end{d.Source.Addr(), d.SourceIdentity}, second)
		e.destination = known.endpoint(end{d.Destination.Addr(), d.DestinationIdentity}, second)
	}
	if s.Metrics != nil {
		s.Metrics.Observe(b.Digests)
	}
	s.Ring.appendFlows(events, b.Bytes)
}

// LostInKernel takes note of events that the datapath had no room to report.
func (s *Sink) LostInKernel(n uint64) {
	s.Ring.WriteLost(flowpb.LostEventSource_PERF_EVENT_RING_BUFFER, n)
}

// LostInQueue takes note of events that were dropped on the way here, by a proxy
// or before the Sink.
func (s *Sink) LostInQueue(n uint64) {
	s.Ring.WriteLost(flowpb.LostEventSource_OBSERVER_EVENTS_QUEUE, n)
}
