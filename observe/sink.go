package observe

import flowpb "github.com/cilium/cilium/api/v1/flow"

// Sink is where sources of events hand them in, from many goroutines.
type Sink struct {
	Builder *Builder
	Ring    *Ring
	Metrics *Metrics // nil: none
}

// Record takes one event.
func (s *Sink) Record(r *Record) { s.Records([]Record{*r}) }

// Records takes a batch of events and keeps it. Who is behind an address is looked up
// now, all else when somebody wants to see it.
func (s *Sink) Records(batch []Record) {
	events, prepared, known := make([]Event, len(batch)), make([]late, len(batch)), make(ends, 4)
	for i := range batch {
		l := &prepared[i]
		*l = s.Builder.prepare(&batch[i], known)
		if s.Metrics != nil {
			s.Metrics.Observe(&batch[i])
		}
		s.Ring.namespaces.saw(l.source, l.destination, l.at)
		events[i].late, events[i].at = l, l.at
	}
	if len(events) > 0 {
		s.Ring.appendFlows(events)
	}
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
