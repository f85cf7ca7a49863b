package observe

import (
	"strconv"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// maxTopicLabels is how many topics have a label of their own; the rest are "other".
const maxTopicLabels = 100

// kafkaMetrics counts requests by API and topic.
type kafkaMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec

	mu     sync.Mutex
	topics map[string]bool
}

func newKafkaMetrics() *kafkaMetrics {
	return &kafkaMetrics{
		topics: map[string]bool{},
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_kafka_requests_total",
			Help: "Kafka requests answered or denied, by API, topic (of the first hundred that were allowed, else other), error code (none if denied), verdict and direction.",
		}, []string{"api", "topic", "error", "verdict", "direction"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "headgate_kafka_duration_seconds",
			Help:    "Time from the head of a Kafka request to the head of its answer, by API.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 15), // 0.5 ms to 8 s
		}, []string{"api", "direction"}),
	}
}

func (m *kafkaMetrics) observe(r *Record) {
	k := r.Kafka
	verdict, way := strings.ToLower(verdict(r.Word).String()), strings.ToLower(direction(r.Direction).String())
	switch api := apiLabel(k.api()); {
	case r.answer():
		m.requests.WithLabelValues(api, m.topic(wire(k.Topic, maxShort), k.ErrorCode == 0), errorLabel(int32(k.ErrorCode)), verdict, way).Inc()
		m.duration.WithLabelValues(api, way).Observe(max(k.Latency, 0).Seconds())
	case r.Word == Dropped || r.Word == Errored: // what went on is counted when its answer comes
		m.requests.WithLabelValues(api, m.topic(wire(k.Topic, maxShort), false), "none", verdict, way).Inc()
	}
}

// topic is the label of a topic: its name if it has one, or may get one.
func (m *kafkaMetrics) topic(name string, known bool) string {
	if name == "" {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.topics[name] {
		if !known || len(m.topics) >= maxTopicLabels {
			return "other"
		}
		m.topics[name] = true
	}
	return Printable(name)
}

// apiLabel is the name of an API that is known; the numbers of others are many.
func apiLabel(api string) string {
	if len(api) > 7 && api[:8] == "unknown(" {
		return "unknown"
	}
	return api
}

// errorLabel is an error code of those that there are.
func errorLabel(code int32) string {
	if code < -1 || code > 200 {
		return "other"
	}
	return strconv.Itoa(int(code))
}
