package agent

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/redirect"
)

// dnsMetrics is what the proxy counts of questions and answers that never become flows.
type dnsMetrics struct {
	of      func() *redirect.DNSStatus
	events  *prometheus.Desc
	waiting *prometheus.Desc
}

func newDNSMetrics(of func() *redirect.DNSStatus) *dnsMetrics {
	return &dnsMetrics{
		of: of,
		events: prometheus.NewDesc("headgate_dns_events_total",
			"What became of questions and answers of the DNS, since the proxy started: unmatched and bad-answer were dropped, deadline and unlearnt were SERVFAIL, full was refused for want of room; shortcut went on in the kernel, told together with their answers.",
			[]string{"event"}, nil),
		waiting: prometheus.NewDesc("headgate_dns_waiting", "Questions by UDP that have no answer yet.", nil, nil),
	}
}

// Describe implements prometheus.Collector.
func (m *dnsMetrics) Describe(to chan<- *prometheus.Desc) {
	to <- m.events
	to <- m.waiting
}

// Collect implements prometheus.Collector.
func (m *dnsMetrics) Collect(to chan<- prometheus.Metric) {
	d := m.of()
	if d == nil {
		return
	}
	to <- prometheus.MustNewConstMetric(m.waiting, prometheus.GaugeValue, float64(d.Waiting))
	for event, n := range d.Events {
		to <- prometheus.MustNewConstMetric(m.events, prometheus.CounterValue, float64(n), event)
	}
}

// dns is what the backend that carries the DNS counts; nil: it does not say.
func (bs *backends) dns() *redirect.DNSStatus {
	for _, b := range bs.all {
		if d := b.Status().DNS; d != nil {
			return d
		}
	}
	return nil
}
