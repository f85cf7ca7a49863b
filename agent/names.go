package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/redirect"
)

// namesDir is where the proxy keeps what it learns of names, in the state directory.
const namesDir = "names"

// Learner is a backend that learns names: headgate's own proxy.
type Learner interface {
	// Learnt says what it knows.
	Learnt(ctx context.Context, limit uint32) (*proxyv1.ListNamesResponse, error)
	// LearntStats is how it is with names, as it was last told; nil: it was not.
	LearntStats() *proxyv1.NameStats
	// StuckEndpoints are numbers that must not be given to endpoints yet.
	StuckEndpoints() []uint32
	// MissingSets waits until it misses sets of rules.
	MissingSets(ctx context.Context) ([]redirect.MissingSet, error)
}

// learner is the one among the backends; nil: none learns.
func (bs *backends) learner() Learner {
	for _, b := range bs.all {
		if l, ok := b.(Learner); ok {
			return l
		}
	}
	return nil
}

// learnt asks whoever learns names.
func (a *Agent) learnt(ctx context.Context, limit uint32) (*proxyv1.ListNamesResponse, error) {
	l := a.backend.learner()
	if l == nil {
		return nil, errors.New("no proxy learns names")
	}
	return l.Learnt(ctx, limit)
}

// reportNames says how it is with names, as the proxy told last; empty: it did not.
func (a *Agent) reportNames() string {
	l := a.backend.learner()
	if l == nil {
		return ""
	}
	s := l.LearntStats()
	if s == nil {
		return ""
	}
	words := fmt.Sprintf("%d names, %d addresses, %d in force", s.Names, s.Addresses, s.InKernel)
	if s.Answers > 0 {
		words += fmt.Sprintf(", answers in force after %s (p99 %s)", round(s.P50Ns), round(s.P99Ns))
	}
	if s.Refused > 0 {
		words += fmt.Sprintf(", %d refused", s.Refused)
	}
	if s.Stuck > 0 {
		words += fmt.Sprintf(", %d of endpoints or names that are gone stay in the datapath; it is tried again", s.Stuck)
	}
	return words
}

// stuckEndpoints are the numbers that whoever learns names does not want given out yet.
func (a *Agent) stuckEndpoints() []uint32 {
	if l := a.backend.learner(); l != nil {
		return l.StuckEndpoints()
	}
	return nil
}

func round(ns int64) time.Duration { return time.Duration(ns).Round(time.Microsecond) }

// nameMetrics tells Prometheus what is known of names, as the proxy told last.
type nameMetrics struct {
	stats func() *proxyv1.NameStats
	descs []*prometheus.Desc
}

func newNameMetrics(stats func() *proxyv1.NameStats) *nameMetrics {
	m := &nameMetrics{stats: stats}
	for _, d := range [][2]string{
		{"names", "Names that endpoints have learnt."},
		{"addresses", "Addresses that endpoints know by names."},
		{"addresses_in_force", "Those of them that a rule is about, in the datapath's maps."},
		{"addresses_held", "Addresses that only open connections keep."},
		{"identities", "Identities of such addresses: a prefix and the selectors that pick its names."},
		{"answers_waiting", "Answers that wait for rules of the agent."},
		{"answers_total", "Answers put in force."},
		{"answers_refused_total", "Answers that could not be put in force, for want of room or in time."},
		{"addresses_stuck", "Addresses that are nobody's any more and that the datapath does not forget; it is tried again."},
		{"write_seconds_p50", "Time from an answer to the datapath's maps, median of the last 4096."},
		{"write_seconds_p99", "Time from an answer to the datapath's maps, of all but one in a hundred."},
	} {
		m.descs = append(m.descs, prometheus.NewDesc("headgate_fqdn_"+d[0], d[1], nil, nil))
	}
	return m
}

// Describe implements prometheus.Collector.
func (m *nameMetrics) Describe(to chan<- *prometheus.Desc) {
	for _, d := range m.descs {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (m *nameMetrics) Collect(to chan<- prometheus.Metric) {
	s := m.stats()
	if s == nil {
		return
	}
	values := []float64{
		float64(s.Names), float64(s.Addresses), float64(s.InKernel), float64(s.Held), float64(s.Identities), float64(s.Waiting),
		float64(s.Answers), float64(s.Refused), float64(s.Stuck), float64(s.P50Ns) / 1e9, float64(s.P99Ns) / 1e9,
	}
	for i, v := range values {
		kind := prometheus.GaugeValue
		if i == 6 || i == 7 {
			kind = prometheus.CounterValue
		}
		to <- prometheus.MustNewConstMetric(m.descs[i], kind, v)
	}
}

// makeMissingSets makes the sets of rules for requests that only names bring together.
// Connections that have them are refused until then, and the answers wait.
func (a *Agent) makeMissingSets(ctx context.Context) {
	l := a.backend.learner()
	for l != nil && ctx.Err() == nil {
		missing, err := l.MissingSets(ctx)
		if err == nil {
			err = a.engine.AddMissing(ctx, missing)
			a.control.note("names", err, true)
			for err != nil && wait(ctx) {
				err = a.engine.Retry(ctx)
				a.control.note("names", err, true)
			}
		}
		if err != nil {
			wait(ctx)
		}
	}
}

// wait waits a moment. False: there is no point in it any more.
func wait(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(time.Second):
		return true
	}
}
