package agent

import (
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	agentv1 "github.com/headgate/headgate/api/agent/v1"
	"github.com/headgate/headgate/bpf"
)

// Percent of a map at which people are warned, and at which it is not well: the
// last part is kept for denies. Maps that evict are never full.
const (
	warnAt = 80
	sickAt = 95
)

// reportMaps says how full the gate's maps are.
func (a *Agent) reportMaps(r *agentv1.StatusResponse) *agentv1.Part {
	p := &agentv1.Part{Name: "maps", Ok: true}
	all, err := a.gate.Usage()
	if err != nil {
		p.Ok, p.Detail = false, err.Error()
		return p
	}
	for _, u := range all {
		r.Maps = append(r.Maps, &agentv1.MapUsage{Map: u.Map, Entries: u.Entries, Limit: u.Limit, Evicts: u.Evicts})
	}
	p.Ok, p.Detail = pressure(all)
	return p
}

func pressure(all []bpf.Usage) (bool, string) {
	ok := true
	var words []string
	fullest := bpf.Usage{}
	for _, u := range all {
		if u.Evicts {
			continue
		}
		if u.Percent() >= fullest.Percent() {
			fullest = u
		}
		if u.Percent() >= warnAt {
			words = append(words, fmt.Sprintf("%s %d%% full (%d of %d)", u.Map, u.Percent(), u.Entries, u.Limit))
		}
		ok = ok && u.Percent() < sickAt
	}
	if len(words) == 0 {
		return ok, fmt.Sprintf("room in every map, fullest %s %d%%", fullest.Map, fullest.Percent())
	}
	slices.Sort(words)
	if ok {
		return ok, "warning: " + strings.Join(words, ", ")
	}
	return ok, strings.Join(words, ", ") + ": what is new is refused there, soon or already"
}

// mapMetrics tells Prometheus how full the maps are, asked when it asks.
type mapMetrics struct {
	usage          func() ([]bpf.Usage, error)
	entries, limit *prometheus.Desc
}

func newMapMetrics(usage func() ([]bpf.Usage, error)) *mapMetrics {
	label := []string{"map"}
	return &mapMetrics{
		usage:   usage,
		entries: prometheus.NewDesc("headgate_map_entries", "Entries in a map of the datapath (bytes waiting, for events).", label, nil),
		limit:   prometheus.NewDesc("headgate_map_limit", "Entries that a map of the datapath has room for (bytes, for events).", label, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *mapMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.entries
	to <- m.limit
}

// Collect implements prometheus.Collector.
func (m *mapMetrics) Collect(to chan<- prometheus.Metric) {
	all, err := m.usage()
	if err != nil {
		to <- prometheus.NewInvalidMetric(m.entries, err)
		return
	}
	for _, u := range all {
		to <- prometheus.MustNewConstMetric(m.entries, prometheus.GaugeValue, float64(u.Entries), u.Map)
		to <- prometheus.MustNewConstMetric(m.limit, prometheus.GaugeValue, float64(u.Limit), u.Map)
	}
}
