package observe

import (
	"fmt"
	"net/http"
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

	mu    sync.Mutex
	known map[series]*counters
	last  [2]struct { // of requests and of answers
		series
		counters *counters
	}
}

// NewMetrics registers the collectors, those of the ring among them.
func NewMetrics(to prometheus.Registerer, ring *Ring) (*Metrics, error) {
	m := &Metrics{
		known: map[series]*counters{},
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
		gauge("headgate_flow_ring_bytes", "About how much memory the ring's events take, as they came.",
			func() float64 { return float64(ring.Bytes()) }),
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

// maxSeries is how many series are remembered with their counters; a node has a few dozen.
const maxSeries = 4096

// series is what makes two records count as the same.
type series struct {
	kind           Kind
	verdict        uint8 // flowpb.Verdict
	egress         bool
	layer          Layer
	answer         bool
	refused        bool
	reason         DropReason // of what is refused
	method, status uint8      // of HTTP: indices of methods and statuses
	qtype, code    uint8      // of the DNS: indices of dnsTypes and dnsCodes
}

func seriesOf(d *Digest) series {
	s := series{
		kind: d.Kind, verdict: uint8(verdict(d.Word)), egress: d.Direction == policy.Egress,
		layer: d.Layer, answer: d.answer(), refused: d.refused(),
	}
	if s.refused {
		s.reason = d.Reason
	}
	switch {
	case d.Layer == LayerHTTP && d.Kind == KindL7:
		s.method, s.status = methodIndex(d.Method), statusIndex(d.Status)
	case d.Layer == LayerDNS:
		s.qtype, s.code = dnsTypeIndex(d.Type), uint8(min(int(d.Rcode), len(dnsCodes)-1))
	}
	return s
}

// counters of a series; nil: it is not counted there.
type counters struct {
	flow, drop, request prometheus.Counter
	duration            prometheus.Observer
}

// Observe counts records.
func (m *Metrics) Observe(digests []Digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := range digests {
		d := &digests[i]
		c := m.of(seriesOf(d))
		c.flow.Inc()
		if c.drop != nil {
			c.drop.Inc()
		}
		if c.request != nil {
			c.request.Inc()
		}
		if c.duration != nil {
			c.duration.Observe(max(d.Latency, 0).Seconds())
		}
		if d.Layer == LayerKafka {
			m.kafka.observe(d)
		}
	}
}

// of remembers the counters of a series. Most records are like the one before of their kind.
func (m *Metrics) of(s series) *counters {
	last := &m.last[0]
	if s.answer {
		last = &m.last[1]
	}
	if last.counters != nil && last.series == s {
		return last.counters
	}
	c := m.known[s]
	if c == nil {
		if len(m.known) >= maxSeries {
			clear(m.known)
		}
		c = m.countersOf(s)
		m.known[s] = c
	}
	last.series, last.counters = s, c
	return c
}

func (m *Metrics) countersOf(s series) *counters {
	v, way := s.labels()
	c := &counters{flow: m.flows.WithLabelValues(typeLabel(s.kind), v)}
	if s.refused {
		c.drop = m.drops.WithLabelValues(reasonLabel(s), way)
	}
	switch {
	case s.layer == LayerHTTP && s.kind == KindL7:
		if s.answer || s.refused { // a request that went on is counted when its answer comes
			c.request = m.requests.WithLabelValues(methods[s.method], statuses[s.status], v, way)
		}
		if s.answer {
			c.duration = m.duration.WithLabelValues(way)
		}
	case s.layer == LayerDNS:
		c.request, c.duration = m.dns.counters(s)
	}
	return c
}

// labels are the verdict and the direction.
func (s series) labels() (verdict, way string) {
	way = "ingress"
	if s.egress {
		way = "egress"
	}
	return strings.ToLower(flowpb.Verdict(s.verdict).String()), way
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
	switch {
	case s.reason != ReasonNone:
		return s.reason.String()
	case s.kind != KindL7:
		return "Unknown"
	case flowpb.Verdict(s.verdict) == flowpb.Verdict_ERROR:
		return "Invalid request"
	}
	return ReasonPolicyDenied.String()
}

var methods = [...]string{
	"other", http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch,
	http.MethodDelete, http.MethodConnect, http.MethodOptions, http.MethodTrace,
}

func methodIndex(method []byte) uint8 {
	for i, m := range methods {
		if string(method) == m && i > 0 {
			return uint8(i)
		}
	}
	return 0
}

var statuses = [...]string{"none", "1xx", "2xx", "3xx", "4xx", "5xx", "other"}

func statusIndex(code int) uint8 {
	switch {
	case code <= 0:
		return 0
	case code >= 100 && code < 600:
		return uint8(code / 100)
	}
	return uint8(len(statuses) - 1)
}

// Handler serves what is registered, for Prometheus.
func Handler(from prometheus.Gatherer) http.Handler {
	return promhttp.HandlerFor(from, promhttp.HandlerOpts{})
}
