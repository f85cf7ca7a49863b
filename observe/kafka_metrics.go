package observe

import (
	"strconv"
	"unicode/utf8"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/policy"
)

// maxTopicLabels is how many topics have a label of their own; the rest are "other".
const maxTopicLabels = 100

// kafkaMetrics counts requests by API and topic. It is called by one goroutine at a time.
type kafkaMetrics struct {
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec

	topics map[string]string // labels of those that have one
	known  map[kafkaSeries]*counters
}

// kafkaSeries is what makes two records count as the same.
type kafkaSeries struct {
	series
	api, code int16
	topic     string
}

const (
	unknownAPI = -1 // any that has no name
	otherError = 201
)

func newKafkaMetrics() *kafkaMetrics {
	return &kafkaMetrics{
		topics: map[string]string{}, known: map[kafkaSeries]*counters{},
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

func (m *kafkaMetrics) observe(d *Digest) {
	answer := d.answer()
	if !answer && !d.refused() { // what went on is counted when its answer comes
		return
	}
	s := kafkaSeries{api: d.APIKey, code: d.ErrorCode, topic: m.topic(d.Topic, answer && d.ErrorCode == 0)}
	s.answer, s.verdict, s.egress = answer, uint8(verdict(d.Word)), d.Direction == policy.Egress
	if policy.KafkaAPIName(s.api) == "" {
		s.api = unknownAPI
	}
	if s.code < -1 || s.code > 200 {
		s.code = otherError
	}
	c := m.known[s]
	if c == nil {
		if len(m.known) >= maxSeries {
			clear(m.known)
		}
		c = m.countersOf(s)
		m.known[s] = c
	}
	c.request.Inc()
	if c.duration != nil {
		c.duration.Observe(max(d.Latency, 0).Seconds())
	}
}

func (m *kafkaMetrics) countersOf(s kafkaSeries) *counters {
	verdict, way := s.labels()
	api, code := "unknown", "none"
	if s.api != unknownAPI {
		api = policy.KafkaAPIName(s.api)
	}
	if !s.answer {
		return &counters{request: m.requests.WithLabelValues(api, s.topic, code, verdict, way)}
	}
	if code = strconv.Itoa(int(s.code)); s.code == otherError {
		code = "other"
	}
	return &counters{request: m.requests.WithLabelValues(api, s.topic, code, verdict, way), duration: m.duration.WithLabelValues(api, way)}
}

// topic is the label of a topic: its name if it has one, or may get one.
func (m *kafkaMetrics) topic(name []byte, known bool) string {
	if len(name) == 0 {
		return ""
	}
	if len(name) > maxShort || !utf8.Valid(name) {
		name = []byte(wire(string(name), maxShort))
	}
	label, ok := m.topics[string(name)]
	if !ok {
		if !known || len(m.topics) >= maxTopicLabels {
			return "other"
		}
		label = Printable(string(name))
		m.topics[string(name)] = label
	}
	return label
}
