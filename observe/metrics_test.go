package observe

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/policy"
)

func TestMetrics(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	ring := NewRing(64)
	m, err := NewMetrics(registry, ring)
	if err != nil {
		t.Fatal(err)
	}
	sink := &Sink{Builder: &Builder{}, Ring: ring, Metrics: m}
	for _, r := range records() {
		sink.Record(r)
	}
	for _, method := range []string{"A", "B", "GET\xff", "get"} { // one series, whatever is sent
		sink.Record(record(func(r *Record) {
			r.Kind, r.Word = KindL7, Forwarded
			r.HTTP = &HTTP{Method: method, Status: 999}
		}))
	}
	for _, word := range []Word{Forwarded, Dropped} {
		for _, reply := range []bool{false, true} {
			l7 := func(change func(*Record)) {
				sink.Record(record(func(r *Record) { r.Kind, r.Word, r.Reply = KindL7, word, reply; change(r) }))
			}
			for _, d := range []DNS{{Type: 1}, {Type: 28, Rcode: 3}, {Type: 15, Rcode: 23}} {
				l7(func(r *Record) { r.DNS, r.Direction = &d, policy.Egress })
			}
			for _, k := range []Kafka{{Topic: "a\x1b"}, {APIKey: 999, Topic: "b", ErrorCode: 29}, {APIKey: 1, Topic: "a\x1b", ErrorCode: -7}} {
				k.Latency = time.Millisecond
				l7(func(r *Record) { r.Kafka = &k })
			}
		}
	}
	sink.LostInKernel(3)
	sink.LostInQueue(4)
	answer := httptest.NewRecorder()
	Handler(registry).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "headgate_flows_per_second") && !strings.HasPrefix(line, "headgate_flow_ring_bytes") && !strings.Contains(line, "_bucket") {
			lines = append(lines, line)
		}
	}
	golden(t, "metrics.txt", strings.Join(lines, ""))
	if _, err := NewMetrics(registry, ring); err == nil {
		t.Error("metrics were registered twice")
	}
}
