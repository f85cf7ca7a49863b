package observe

import (
	"github.com/miekg/dns"
	"github.com/prometheus/client_golang/prometheus"
)

// dnsMetrics counts questions and answers.
type dnsMetrics struct {
	questions *prometheus.CounterVec
	answers   *prometheus.CounterVec
	duration  *prometheus.HistogramVec
}

func newDNSMetrics() *dnsMetrics {
	return &dnsMetrics{
		questions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_dns_queries_total",
			Help: "Questions of the DNS, by type (A, AAAA or other), verdict and direction.",
		}, []string{"type", "verdict", "direction"}),
		answers: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_dns_answers_total",
			Help: "Answers of the DNS that clients got, by code and verdict; error: SERVFAIL instead of an answer whose addresses could not be put in force in time.",
		}, []string{"rcode", "verdict", "direction"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "headgate_dns_duration_seconds",
			Help:    "Time from a question of the DNS to its answer, with the time until its addresses were in force.",
			Buckets: prometheus.ExponentialBuckets(0.00005, 2, 16), // 50 µs to 1.6 s
		}, []string{"direction"}),
	}
}

// counters of a series of the DNS.
func (m *dnsMetrics) counters(s series) (prometheus.Counter, prometheus.Observer) {
	verdict, way := s.labels()
	if !s.answer {
		return m.questions.WithLabelValues(dnsTypes[s.qtype], verdict, way), nil
	}
	return m.answers.WithLabelValues(dnsCodes[s.code], verdict, way), m.duration.WithLabelValues(way)
}

var dnsTypes = [...]string{"other", "A", "AAAA"}

func dnsTypeIndex(t uint16) uint8 {
	switch t {
	case dns.TypeA:
		return 1
	case dns.TypeAAAA:
		return 2
	}
	return 0
}

// dnsCodes by number, as the IANA names them; the last is for all others.
var dnsCodes = [...]string{"NoError", "FormErr", "ServFail", "NXDomain", "NotImp", "Refused", "other"}
