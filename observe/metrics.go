package observe

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts flows for Prometheus. No label takes a value from the wire, but for
// the names of a few topics that are allowed: the number of series is bounded
// whatever clients send.
type Metrics struct {
	flows    *prometheus.CounterVec
	drops    *prometheus.CounterVec
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	kafka    *kafkaMetrics
}

// NewMetrics registers the collectors, those of the ring among them.
func NewMetrics(to prometheus.Registerer, ring *Ring) (*Metrics, error) {
	m := &Metrics{
		flows: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_flows_total",
			Help: "Flows observed, by type of event and verdict.",
		}, []string{"type", "verdict"}),
		drops: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_drops_total",
			Help: "Flows dropped or refused, by reason and direction.",
		}, []string{"reason", "direction"}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_http_requests_total",
			Help: "HTTP requests answered or refused, by method, class of status (none if refused without one), verdict and direction.",
		}, []string{"method", "status", "verdict", "direction"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "headgate_http_duration_seconds",
			Help:    "Time from the head of an HTTP request to the head of its answer.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"direction"}),
	}
	m.kafka = newKafkaMetrics()
	all := append([]prometheus.Collector{m.flows, m.drops, m.requests, m.duration, m.kafka.requests, m.kafka.duration}, ringCollectors(ring)...)
	for _, c := range all {
		if err := to.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics of flows: %w", err)
		}
	}
	return m, nil
}

func ringCollectors(ring *Ring) []prometheus.Collector {
	gauge := func(name, help string, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: name, Help: help}, value)
	}
	all := []prometheus.Collector{
		gauge("headgate_flows_per_second", "Flows observed a second, over the last ten.",
			func() float64 { return ring.Rate(10 * time.Second) }),
		gauge("headgate_flow_ring_events", "Events that the ring holds.",
			func() float64 { return float64(ring.Len()) }),
		gauge("headgate_flow_ring_capacity", "Events that the ring can hold.",
			func() float64 { return float64(ring.Cap()) }),
	}
	for source := flowpb.LostEventSource(0); source < lostSources; source++ {
		all = append(all, prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "headgate_lost_events_total",
			Help:        "Events lost, by where; in hubble_ring_buffer those that readers of the API were too slow for.",
			ConstLabels: prometheus.Labels{"source": strings.ToLower(source.String())},
		}, func() float64 { return float64(ring.Lost(source)) }))
	}
	return all
}

// Observe counts a flow.
func (m *Metrics) Observe(f *flowpb.Flow) {
	v := strings.ToLower(f.GetVerdict().String())
	way := strings.ToLower(f.GetTrafficDirection().String())
	m.flows.WithLabelValues(typeLabel(f), v).Inc()
	if verdict := f.GetVerdict(); verdict == flowpb.Verdict_DROPPED || verdict == flowpb.Verdict_ERROR {
		m.drops.WithLabelValues(reasonLabel(f), way).Inc()
	}
	if k := f.GetL7().GetKafka(); k != nil { //nolint:staticcheck // deprecated, and still what Hubble shows
		m.kafka.observe(f, k, v, way)
	}
	h := f.GetL7().GetHttp()
	if h == nil {
		return
	}
	answer := f.GetL7().GetType() == flowpb.L7FlowType_RESPONSE
	refused := !answer && (f.GetVerdict() == flowpb.Verdict_DROPPED || f.GetVerdict() == flowpb.Verdict_ERROR)
	if answer || refused { // a request that went on is counted when its answer comes
		m.requests.WithLabelValues(methodLabel(h.GetMethod()), statusLabel(h.GetCode()), v, way).Inc()
	}
	if answer {
		m.duration.WithLabelValues(way).Observe(time.Duration(f.GetL7().GetLatencyNs()).Seconds())
	}
}

func typeLabel(f *flowpb.Flow) string {
	switch f.GetEventType().GetType() {
	case EventDrop:
		return "drop"
	case EventVerdict:
		return "policy-verdict"
	case EventL7:
		return "l7"
	}
	return "other"
}

func reasonLabel(f *flowpb.Flow) string {
	reason := DropReason(f.GetDropReasonDesc())
	switch {
	case reason != ReasonNone:
		return reason.String()
	case f.GetL7() == nil:
		return "Unknown"
	case f.GetVerdict() == flowpb.Verdict_ERROR:
		return "Invalid request"
	}
	return ReasonPolicyDenied.String()
}

func methodLabel(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
		http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace:
		return method
	}
	return "other"
}

func statusLabel(code uint32) string {
	switch {
	case code == 0:
		return "none"
	case code >= 100 && code < 600:
		return strconv.Itoa(int(code/100)) + "xx"
	}
	return "other"
}

// Handler serves what is registered, for Prometheus.
func Handler(from prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(from, promhttp.HandlerOpts{})
}
