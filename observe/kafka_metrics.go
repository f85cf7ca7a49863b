package observe

import (
	"strconv"
	"sync"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
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

func (m *kafkaMetrics) observe(f *flowpb.Flow, k *flowpb.Kafka, verdict, way string) { //nolint:staticcheck // as Hubble
	answer := f.GetL7().GetType() == flowpb.L7FlowType_RESPONSE
	denied := f.GetVerdict() == flowpb.Verdict_DROPPED || f.GetVerdict() == flowpb.Verdict_ERROR
	switch api := k.GetApiKey(); {
	case answer:
		m.requests.WithLabelValues(apiLabel(api), m.topic(k.GetTopic(), k.GetErrorCode() == 0), errorLabel(k.GetErrorCode()), verdict, way).Inc()
		m.duration.WithLabelValues(apiLabel(api), way).Observe(time.Duration(f.GetL7().GetLatencyNs()).Seconds())
	case denied: // what went on is counted when its answer comes
		m.requests.WithLabelValues(apiLabel(api), m.topic(k.GetTopic(), false), "none", verdict, way).Inc()
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
