package xds

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// adminOf serves what Envoy's admin interface would say.
func adminOf(t *testing.T, b *Backend, text func(filter *regexp.Regexp) string) {
	t.Helper()
	path := b.file(adminName)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		filter, err := regexp.Compile(r.URL.Query().Get("filter"))
		if err != nil || r.URL.Path != "/stats" {
			http.Error(w, "no", http.StatusBadRequest)
			return
		}
		fmt.Fprint(w, text(filter))
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

func gathered(t *testing.T, b *Backend) map[string]float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	if err := r.Register(b.Metrics()); err != nil {
		t.Fatal(err)
	}
	all, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range all {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetName() + "=" + l.GetValue()
			}
			out[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestStatistics(t *testing.T) {
	b := newTestBackend(t, Config{})
	if got := gathered(t, b); len(got) != 1 || got["headgate_envoy_up"] != 0 {
		t.Errorf("without Envoy: %v", got)
	}
	all := []string{
		"server.uptime: 7", "server.memory_allocated: 100", "server.version: 3", "listener_manager.total_listeners_active: 2",
		"http.route-00000000-01000001.downstream_rq_total: 3", "http.route-01000002-01000001.downstream_rq_total: 4",
		"http.route-00000000-01000001.downstream_rq_4xx: 2", "http.ns/c/l.downstream_rq_total: 5",
		"http.route-00000000-01000001.downstream_rq_time: P0(nan,0)", "cluster.ns/c/k.upstream_rq_total: 6", "nonsense",
	}
	adminOf(t, b, func(filter *regexp.Regexp) string {
		var out []string
		for _, line := range all {
			if name, _, _ := strings.Cut(line, ": "); filter.MatchString(name) {
				out = append(out, line)
			}
		}
		if len(out) != 8 {
			t.Errorf("the filter leaves %q", out)
		}
		return strings.Join(append(out, all[len(all)-1]), "\n")
	})
	got := gathered(t, b)
	for name, want := range map[string]float64{
		"headgate_envoy_up": 1, "headgate_envoy_uptime_seconds": 7, "headgate_envoy_memory_bytes kind=allocated": 100,
		"headgate_envoy_listeners state=active": 2, "headgate_envoy_downstream_requests_total listener=routes": 7,
		"headgate_envoy_downstream_responses_total class=4xx listener=routes": 2, "headgate_envoy_downstream_requests_total listener=ns/c/l": 5,
		"headgate_envoy_cluster_upstream_requests_total cluster=ns/c/k": 6,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v; all: %v", name, got[name], want, got)
		}
	}
}

// TestStatisticsAreBounded has the other end send more than anybody asked for.
func TestStatisticsAreBounded(t *testing.T) {
	b := newTestBackend(t, Config{})
	var text strings.Builder
	for i := range 2 * statsLabels {
		fmt.Fprintf(&text, "cluster.c%d.upstream_rq_total: 1\n", i)
	}
	answer := text.String()
	adminOf(t, b, func(*regexp.Regexp) string { return answer })
	got := gathered(t, b)
	if len(got) > statsLabels+2 || got["headgate_envoy_cluster_upstream_requests_total cluster="+otherLabel] != statsLabels {
		t.Errorf("%d series, of which %v are of others", len(got), got["headgate_envoy_cluster_upstream_requests_total cluster="+otherLabel])
	}
	answer = strings.Repeat(answer, statsBytes/len(answer)+1)
	if got := gathered(t, b); got["headgate_envoy_up"] != 0 {
		t.Errorf("what is too long was taken: %d series", len(got))
	}
}
