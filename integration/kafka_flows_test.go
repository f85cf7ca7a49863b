package integration

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

// kafkaFlow is what a flow says of Kafka, as Hubble has it.
type kafkaFlow struct {
	Flow struct {
		Verdict string
		Summary string
		L7      struct {
			Type    string
			Latency string `json:"latency_ns"`
			Kafka   struct {
				APIKey      string `json:"api_key"`
				APIVersion  int    `json:"api_version"`
				Correlation int    `json:"correlation_id"`
				Topic       string
				ErrorCode   int `json:"error_code"`
			}
		}
	}
}

// kafkaFlows looks for what clients did among the flows and in the metrics: every
// answer has its request, a time and a code.
func kafkaFlows(t *testing.T, n *node) {
	found := map[string]bool{}
	requests, answers := 0, 0
	for _, line := range strings.Split(n.headgate(t, "observe", "--protocol", "kafka", "--last", "10000", "-o", "json"), "\n") {
		if line == "" {
			continue
		}
		var response kafkaFlow
		if err := json.Unmarshal([]byte(line), &response); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		f, k := response.Flow, response.Flow.L7.Kafka
		if f.L7.Type != "RESPONSE" {
			requests++
			found["a denied request"] = found["a denied request"] || f.Verdict == "DROPPED" && k.Topic == "secret"
			continue
		}
		answers++
		if f.L7.Latency == "" || k.APIKey == "" {
			t.Errorf("an answer without a time or an API: %s", line)
		}
		found["an answer"] = found["an answer"] || k.Topic == "orders-a" && k.ErrorCode == 0 && k.Correlation > 0 && strings.Contains(f.Summary, "client app")
		found["a topic's error"] = found["a topic's error"] || k.Topic == "secret" && k.ErrorCode == 29
		found["a transaction's error"] = found["a transaction's error"] || k.ErrorCode == 53
		found["a group's error"] = found["a group's error"] || k.ErrorCode == 30
	}
	for _, want := range []string{"a denied request", "an answer", "a topic's error", "a transaction's error", "a group's error"} {
		if !found[want] {
			t.Errorf("%s is not among the flows of %d requests and %d answers", want, requests, answers)
		}
	}
	text := n.metrics(t)
	for _, want := range []string{
		`headgate_kafka_requests_total\{api="produce",direction="ingress",error="0",topic="orders-a",verdict="forwarded"\} [1-9]`,
		`headgate_kafka_requests_total\{api="[a-z]+",direction="ingress",error="29",topic="other",verdict="[a-z]+"\} [1-9]`,
		`headgate_kafka_duration_seconds_count\{api="metadata",direction="ingress"\} [1-9]`,
	} {
		if !regexp.MustCompile(want).MatchString(text) {
			t.Errorf("no metric is %s in:\n%s", want, regexp.MustCompile(`(?m)^headgate_kafka_requests_total.*$`).FindAllString(text, -1))
		}
	}
}

// metrics is what the agent says of itself to Prometheus.
func (n *node) metrics(t *testing.T) string {
	t.Helper()
	client := http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, Dial: func(network, addr string) (c net.Conn, err error) {
		return c, n.do(func() error { c, err = net.Dial(network, addr); return err })
	}}}
	r, err := client.Get("http://127.0.0.1:9964/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
