package observe

import flowpb "github.com/cilium/cilium/api/v1/flow"

// Sink is where sources of events hand them in, from many goroutines.
type Sink struct {
	Builder *Builder
	Ring    *Ring
	Metrics *Metrics // nil: none
}

// Record takes one event. It does not keep the record.
func (s *Sink) Record(r *Record) {
	f := s.Builder.Build(r)
	if s.Metrics != nil {
		s.Metrics.Observe(f)
	}
	s.Ring.Write(f)
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
