package agent

import (
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
func (s *seeing) proxyRecords(records []observe.Record, lost uint64) {
	// The gate's events gather in batches; a request stands after its connection.
	s.events.Flush(5 * time.Millisecond)
	for i := range records {
		s.names.Learn(&records[i])
	}
	s.sink.Records(records)
	if lost > 0 {
		s.lostProxy.Add(lost)
		s.sink.LostInQueue(lost)
	}
}
