package observe

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
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
	sink.LostInKernel(3)
	sink.LostInQueue(4)
	answer := httptest.NewRecorder()
	Handler(registry).ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	var lines []string
	for line := range strings.Lines(answer.Body.String()) {
		if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, "headgate_flows_per_second") && !strings.Contains(line, "_bucket") {
			lines = append(lines, line)
		}
	}
	golden(t, "metrics.txt", strings.Join(lines, ""))
	if _, err := NewMetrics(registry, ring); err == nil {
		t.Error("metrics were registered twice")
	}
}
