package observe

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/headgate/headgate/policy"
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
	dns      *dnsMetrics
	known    sync.Map // series → *counters
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
	m.kafka, m.dns = newKafkaMetrics(), newDNSMetrics()
	all := append([]prometheus.Collector{m.flows, m.drops, m.requests, m.duration, m.kafka.requests, m.kafka.duration, m.dns.questions, m.dns.answers, m.dns.duration}, ringCollectors(ring)...)
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

// series is what makes two records count as the same.
type series struct {
	kind           Kind
	word           Word
	direction      policy.Direction
	reason         DropReason
	http, answer   bool
	method, status string
}

// counters of a series; nil: it is not counted there.
type counters struct {
	flow, drop, request prometheus.Counter
	duration            prometheus.Observer
}

// Observe counts a record.
func (m *Metrics) Observe(r *Record) {
	s := series{kind: r.Kind, word: r.Word, direction: r.Direction, reason: r.Reason}
	if h := r.HTTP; h != nil && r.Kind == KindL7 {
		s.http, s.answer = true, r.answer()
		s.method, s.status = methodLabel(h.Method), statusLabel(uint32(max(h.Status, 0)))
	}
	if r.Kafka != nil {
		m.kafka.observe(r)
	}
	if r.DNS != nil {
		m.dns.observe(r)
	}
	found, ok := m.known.Load(s)
	if !ok {
		found, _ = m.known.LoadOrStore(s, m.countersOf(s))
	}
	c := found.(*counters)
	c.flow.Inc()
	if c.drop != nil {
		c.drop.Inc()
	}
	if c.request != nil {
		c.request.Inc()
	}
	if c.duration != nil {
		c.duration.Observe(max(r.HTTP.Latency, 0).Seconds())
	}
}

func (m *Metrics) countersOf(s series) *counters {
	v := strings.ToLower(verdict(s.word).String())
	way := strings.ToLower(direction(s.direction).String())
	c := &counters{flow: m.flows.WithLabelValues(typeLabel(s.kind), v)}
	refused := s.word == Dropped || s.word == Errored
	if refused {
		c.drop = m.drops.WithLabelValues(reasonLabel(s), way)
	}
	if s.http && (s.answer || refused) { // a request that went on is counted when its answer comes
		c.request = m.requests.WithLabelValues(s.method, s.status, v, way)
	}
	if s.answer {
		c.duration = m.duration.WithLabelValues(way)
	}
	return c
}

func typeLabel(k Kind) string {
	switch k {
	case KindDrop:
		return "drop"
	case KindL7:
		return "l7"
	}
	return "policy-verdict"
}

func reasonLabel(s series) string {
	reason := DropReason(s.reason.Desc())
	switch {
	case reason != ReasonNone:
		return reason.String()
	case s.kind != KindL7:
		return "Unknown"
	case s.word == Errored:
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
