package agent

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/observe"
)

// seeing is where everything that happens ends up.
type seeing struct {
	ring     *observe.Ring
	builder  *observe.Builder
	sink     *observe.Sink
	server   *observe.Server
	names    observe.Names // by which endpoints asked, for flows
	registry *prometheus.Registry

	events    *bpf.Events
	lost      atomic.Uint64 // events, as the kernel counts
	lostKnown atomic.Bool
	lostProxy atomic.Uint64

	flushing sync.Mutex // there may be two proxies
	flushed  int64      // all events of the gate before then were handed over; Unix, nanoseconds
}

func newSeeing(cfg Config, events *bpf.Events) *seeing {
	s := &seeing{events: events, ring: observe.NewRing(cfg.FlowBuffer), builder: &observe.Builder{Node: cfg.NodeName}, registry: prometheus.NewRegistry()}
	s.builder.Names = s.names.Of
	s.sink = &observe.Sink{Builder: s.builder, Ring: s.ring}
	if m, err := observe.NewMetrics(s.registry, s.ring); err == nil {
		s.sink.Metrics = m
	} else {
		cfg.Logger.Error("metrics of flows are not available", "error", err)
	}
	s.server = observe.NewServer(s.ring, observe.ServerInfo{Node: cfg.NodeName, Version: cfg.Version})
	return s
}

// proxyRecords takes what a proxy judged.
func (s *seeing) proxyRecords(batch observe.Batch, lost uint64) {
	s.flushBefore(batch.Digests)
	s.names.Learn(batch.Digests)
	s.sink.Take(batch)
	if lost > 0 {
		s.lostProxy.Add(lost)
		s.sink.LostInQueue(lost)
	}
}

// flushBefore has the gate's events handed over, which gather: a request stands after its
// connection. A batch whose requests were all there at the last time needs no other.
func (s *seeing) flushBefore(batch []observe.Digest) {
	var latest int64
	for i := range batch {
		latest = max(latest, batch[i].Time.UnixNano())
	}
	s.flushing.Lock()
	defer s.flushing.Unlock()
	now := time.Now().UnixNano()
	if latest < s.flushed && s.flushed <= now { // else the clock was set
		return
	}
	if s.events.Flush(5 * time.Millisecond) {
		s.flushed = now
	}
}
