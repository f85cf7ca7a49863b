package observe

import (
	"strings"

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

func (m *dnsMetrics) observe(r *Record) {
	verdict, way := strings.ToLower(verdict(r.Word).String()), strings.ToLower(direction(r.Direction).String())
	if !r.answer() {
		kind := "other"
		if t := r.DNS.qtype(); t == "A" || t == "AAAA" {
			kind = t
		}
		m.questions.WithLabelValues(kind, verdict, way).Inc()
		return
	}
	code := "other"
	if int(r.DNS.Rcode) < len(dnsCodes) {
		code = dnsCodes[r.DNS.Rcode]
	}
	m.answers.WithLabelValues(code, verdict, way).Inc()
	m.duration.WithLabelValues(way).Observe(max(r.DNS.Latency, 0).Seconds())
}

// dnsCodes by number, as the IANA names them.
var dnsCodes = [...]string{"NoError", "FormErr", "ServFail", "NXDomain", "NotImp", "Refused"}
