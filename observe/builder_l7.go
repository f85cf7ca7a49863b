package observe

import (
	"fmt"
	"strings"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// redacted is Hubble's word for a value that is not shown.
const redacted = "HUBBLE_REDACTED"

func layer7(r *Record, answer bool) *flowpb.Layer7 {
	l7 := &flowpb.Layer7{Type: flowpb.L7FlowType_REQUEST}
	if answer {
		l7.Type = flowpb.L7FlowType_RESPONSE
	}
	if r.Kafka != nil {
		l7.LatencyNs, l7.Record = uint64(max(r.Kafka.Latency, 0)), r.Kafka.record()
		return l7
	}
	if r.DNS != nil {
		l7.LatencyNs, l7.Record = uint64(max(r.DNS.Latency, 0)), r.DNS.record(answer)
		return l7
	}
	h := r.HTTP
	if h == nil {
		return l7
	}
	l7.LatencyNs = uint64(max(h.Latency, 0))
	l7.Record = &flowpb.Layer7_Http{Http: &flowpb.HTTP{
		Code:     uint32(max(h.Status, 0)),
		Method:   wire(h.Method, maxShort),
		Url:      wire(h.URL, maxURL),
		Protocol: wire(h.Protocol, maxShort),
		Headers:  headers(h.Headers),
	}}
	return l7
}

// headers without the credentials among them, as many as fit.
func headers(from [][2]string) []*flowpb.HTTPHeader {
	if len(from) == 0 {
		return nil
	}
	to := make([]*flowpb.HTTPHeader, 0, len(from))
	room := maxHeaders
	for _, h := range from {
		if room -= len(h[0]) + len(h[1]); room < 0 {
			break
		}
		value := wire(h[1], maxHeaders)
		if secret(h[0]) {
			value = redacted
		}
		to = append(to, &flowpb.HTTPHeader{Key: wire(h[0], maxHeaders), Value: value})
	}
	return to
}

func secret(header string) bool {
	switch strings.ToLower(header) {
	case "authorization", "proxy-authorization", "cookie", "set-cookie":
		return true
	}
	return false
}

// l7Summary in Hubble's words: "HTTP/1.1 PUT http://deathstar/v1/exhaust-port",
// and for the answer "HTTP/1.1 200 3ms (POST http://…)".
func l7Summary(r *Record, answer bool) string {
	if r.Kafka != nil {
		return r.Kafka.summary(answer)
	}
	if r.DNS != nil {
		return r.DNS.summary(answer)
	}
	if r.TLS != nil {
		return r.TLS.summary()
	}
	h := r.HTTP
	if h == nil || h.Method+h.URL == "" { // too broken to be taken apart
		return Printable(wire(r.Detail, maxDetail))
	}
	protocol := Printable(wire(h.Protocol, maxShort))
	request := Printable(wire(h.Method, maxShort) + " " + wire(h.URL, maxURL))
	if answer {
		return fmt.Sprintf("%s %d %s (%s)", protocol, h.Status, latency(h.Latency), request)
	}
	return strings.TrimSpace(protocol + " " + request)
}

// latency in milliseconds, as Hubble writes it, with a digit more where it is short.
func latency(d time.Duration) string {
	ms := float64(max(d, 0)) / float64(time.Millisecond)
	if ms < 10 {
		return fmt.Sprintf("%.1fms", ms)
	}
	return fmt.Sprintf("%.0fms", ms)
}
