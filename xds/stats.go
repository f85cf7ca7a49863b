package xds

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Bounds of what is taken from Envoy's admin interface: the process at the other end
// parses what strangers send.
const (
	statsPatience = time.Second
	statsBytes    = 8 << 20
	statsLabels   = 256 // different clusters or listeners of policies; more are counted as "other"
)

// otherLabel stands for those that are too many, routesLabel for every listener of ours:
// their names say nothing to people.
const (
	otherLabel  = "other"
	routesLabel = "routes"
)

// Metrics collects Envoy's own statistics when it is asked, as far as they say something
// here, under names of ours.
func (b *Backend) Metrics() prometheus.Collector {
	path := b.file(adminName)
	return &stats{families: families(), refused: b.refusedNow, client: &http.Client{Timeout: statsPatience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}}}
}

// stats is a prometheus.Collector. Without Envoy it says that Envoy is not there, and no
// more: it fails nobody else's metrics.
type stats struct {
	client   *http.Client
	families []*family
	refused  func(chan<- prometheus.Metric)
	mu       sync.Mutex // one at a time asks Envoy
}

// family is one metric and where it comes from in Envoy.
type family struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	prefix  string // of Envoy's name: before what the label takes, or all but the suffix
	suffix  map[string]string
	labeled bool // what stands between is a label
}

var errTooMuch = fmt.Errorf("envoy's statistics are longer than %d bytes", statsBytes)

// Describe implements prometheus.Collector: it says nothing, as the labels depend.
func (s *stats) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (s *stats) Collect(out chan<- prometheus.Metric) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused(out)
	up := prometheus.NewDesc("headgate_envoy_up", "Whether Envoy's admin interface answered.", nil, nil)
	sums, err := s.ask()
	if err != nil {
		out <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 0)
		return
	}
	out <- prometheus.MustNewConstMetric(up, prometheus.GaugeValue, 1)
	for k, v := range sums {
		f := s.families[k.family]
		out <- prometheus.MustNewConstMetric(f.desc, f.kind, v, f.labels(k)...)
	}
}

// sumKey is one series.
type sumKey struct {
	family      int
	name, value string // what the label takes, what the suffix stands for
}

// ask reads the statistics that a family wants, and adds up those that are one series.
func (s *stats) ask() (map[sumKey]float64, error) {
	resp, err := s.client.Get("http://envoy/stats?filter=" + url.QueryEscape(s.filter()))
	if err != nil {
		return nil, fmt.Errorf("ask Envoy for its statistics: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("ask Envoy for its statistics: %s", resp.Status)
	}
	body := &io.LimitedReader{R: resp.Body, N: statsBytes}
	sums := map[sumKey]float64{}
	known := map[string]bool{}
	lines := bufio.NewScanner(body)
	for lines.Scan() {
		name, text, ok := strings.Cut(lines.Text(), ": ")
		if !ok {
			continue
		}
		value, err := strconv.ParseFloat(text, 64)
		if err != nil {
			continue
		}
		for i, f := range s.families {
			if k, ok := f.match(name); ok {
				k.family = i
				if k.name != "" && !known[k.name] {
					if len(known) >= statsLabels {
						k.name = otherLabel
					}
					known[k.name] = true
				}
				sums[k] += value
			}
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("read Envoy's statistics: %w", err)
	}
	if body.N == 0 {
		return nil, errTooMuch
	}
	return sums, nil
}

// match reports whether a statistic of Envoy's is of the family, and as what.
func (f *family) match(name string) (sumKey, bool) {
	rest, ok := strings.CutPrefix(name, f.prefix)
	if !ok {
		return sumKey{}, false
	}
	if !f.labeled {
		value, ok := f.suffix[rest]
		return sumKey{value: value}, ok
	}
	i := strings.LastIndexByte(rest, '.')
	if i < 0 {
		return sumKey{}, false
	}
	value, ok := f.suffix[rest[i+1:]]
	label := rest[:i]
	if strings.HasPrefix(label, "route-") && !strings.Contains(label, "/") {
		label = routesLabel
	}
	return sumKey{name: label, value: value}, ok
}

func (f *family) labels(k sumKey) []string {
	var out []string
	if f.labeled {
		out = append(out, k.name)
	}
	if len(f.suffix) > 1 {
		out = append(out, k.value)
	}
	return out
}

// filter is the expression that Envoy leaves out by what no family wants.
func (s *stats) filter() string {
	var all []string
	for _, f := range s.families {
		var ends []string
		for suffix := range f.suffix {
			ends = append(ends, strings.ReplaceAll(suffix, ".", `\.`))
		}
		between := ""
		if f.labeled {
			between = `.+\.`
		}
		all = append(all, strings.ReplaceAll(f.prefix, ".", `\.`)+between+"("+strings.Join(ends, "|")+")")
	}
	return "^(" + strings.Join(all, "|") + ")$"
}

// families are what is taken.
func families() []*family {
	const counter, gauge = prometheus.CounterValue, prometheus.GaugeValue
	classes := func(before string) map[string]string {
		m := map[string]string{}
		for _, c := range []string{"1xx", "2xx", "3xx", "4xx", "5xx"} {
			m[before+c] = c
		}
		return m
	}
	one := func(suffix string) map[string]string { return map[string]string{suffix: ""} }
	var out []*family
	add := func(kind prometheus.ValueType, name, help, prefix, label, value string, suffix map[string]string) {
		var labels []string
		for _, l := range []string{label, value} {
			if l != "" {
				labels = append(labels, l)
			}
		}
		out = append(out, &family{
			desc: prometheus.NewDesc("headgate_envoy_"+name, help, labels, nil), kind: kind, prefix: prefix, suffix: suffix, labeled: label != "",
		})
	}
	add(gauge, "uptime_seconds", "Since when Envoy runs.", "server.", "", "", one("uptime"))
	add(gauge, "memory_bytes", "Memory that Envoy has.", "server.", "", "kind", map[string]string{"memory_allocated": "allocated", "memory_heap_size": "heap", "memory_physical_size": "physical"})
	add(gauge, "listeners", "Listeners of Envoy, one for each pair of L7 rules that connections have.", "listener_manager.total_listeners_", "", "state", map[string]string{"active": "active", "warming": "warming", "draining": "draining"})
	add(counter, "listener_updates_total", "Changes of listeners that Envoy was given.", "listener_manager.lds.update_", "", "result", map[string]string{"success": "success", "rejected": "rejected"})
	add(counter, "cluster_updates_total", "Changes of clusters that Envoy was given.", "cluster_manager.cds.update_", "", "result", map[string]string{"success": "success", "rejected": "rejected"})
	add(gauge, "connected", "Whether Envoy is connected to the agent.", "control_plane.", "", "", one("connected_state"))
	add(counter, "downstream_connections_total", "Connections of clients, by listener; routes are all that judge L7 rules.", "http.", "listener", "", one("downstream_cx_total"))
	add(gauge, "downstream_connections", "Connections of clients that are open.", "http.", "listener", "", one("downstream_cx_active"))
	add(counter, "downstream_requests_total", "Requests of clients.", "http.", "listener", "", one("downstream_rq_total"))
	add(counter, "downstream_responses_total", "Answers to clients, by class of status.", "http.", "listener", "class", classes("downstream_rq_"))
	add(counter, "downstream_protocol_errors_total", "Connections of clients that ended by what could not be read.", "http.", "listener", "", one("downstream_cx_protocol_error"))
	add(counter, "cluster_upstream_connections_total", "Connections to servers, by cluster.", "cluster.", "cluster", "", one("upstream_cx_total"))
	add(gauge, "cluster_upstream_connections", "Connections to servers that are open.", "cluster.", "cluster", "", one("upstream_cx_active"))
	add(counter, "cluster_upstream_connect_failures_total", "Connections to servers that did not come about.", "cluster.", "cluster", "", one("upstream_cx_connect_fail"))
	add(counter, "cluster_upstream_requests_total", "Requests to servers.", "cluster.", "cluster", "", one("upstream_rq_total"))
	add(counter, "cluster_upstream_responses_total", "Answers of servers, by class of status.", "cluster.", "cluster", "class", classes("upstream_rq_"))
	return out
}
