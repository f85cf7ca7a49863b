package observe

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// TestKafkaSummary has what strangers sent shown so that it harms nobody.
func TestKafkaSummary(t *testing.T) {
	k := &Kafka{APIKey: 1, APIVersion: 13, CorrelationID: 7, ClientID: "app\x1b[2J", Topic: "orders", Group: "g", ErrorCode: 29, Latency: 3 * time.Millisecond}
	got := k.summary(true)
	if strings.ContainsRune(got, 0x1b) || !strings.HasPrefix(got, "Kafka fetch v13 topic orders group g client app") || !strings.HasSuffix(got, "correlation 7 error 29 3.0ms") {
		t.Errorf("%q", got)
	}
	if api := (&Kafka{APIKey: 999}).api(); api != "unknown(999)" {
		t.Errorf("%q", api)
	}
}

// TestKafkaMetricsAreBounded sends more topics, APIs and errors than there is room for.
func TestKafkaMetricsAreBounded(t *testing.T) {
	m := newKafkaMetrics()
	for i := range 1000 {
		for _, word := range []Word{Forwarded, Dropped} {
			k := &Kafka{APIKey: int16(i), Topic: fmt.Sprint("topic", i)}
			if i%3 == 0 {
				k.ErrorCode = int16(i)
			}
			r := Record{Kind: KindL7, Word: word, Reply: word == Forwarded, Kafka: k}
			d := r.Digest()
			m.observe(&d)
		}
	}
	topics, series := map[string]bool{}, 0
	collected := make(chan prometheus.Metric, 10_000)
	m.requests.Collect(collected)
	close(collected)
	for range collected {
		series++
	}
	for name := range m.topics {
		topics[name] = true
	}
	if len(topics) > maxTopicLabels || series > 1000 {
		t.Errorf("%d topics, %d series", len(topics), series)
	}
	if m.topic([]byte("topic1"), false) != "topic1" || m.topic([]byte("never allowed"), false) != "other" || m.topic(nil, false) != "" {
		t.Error("labels of topics")
	}
}
