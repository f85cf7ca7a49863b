package proxy

import (
	"testing"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/parsers/dns"
)

// Questions that come by TCP take of the share that a client has, until they are answered
// or their connection ends.
func TestStreamedQuestionsTakeTheirShare(t *testing.T) {
	w, p := askedBy(t, nil, DNSLimits{PerEndpoint: 4, Questions: 100})
	c := newConn(p, -1, dnsClient, dnsServerAddr)
	c.known, c.judgedBy = Connection{Egress: setDNS}, p.snapshot.Load()
	h := &dnsStream{c: c, writer: dnsWriter{p: p}, asked: map[uint64]*dnsExchange{}, outcome: map[uint64]*outcome{}}
	b, err := new(oracle.Msg).SetQuestion("a.example.", oracle.TypeA).Pack()
	must(t, err)
	var m dns.Message
	must(t, m.ParseQuery(b))
	for i := range uint64(6) {
		if allowed, rcode := h.Question(i, &m); allowed != (i < 4) || !allowed && rcode != dns.Refused {
			t.Errorf("question %d: %v, %d", i, allowed, rcode)
		}
	}
	if p.asked.full.Load() != 2 || p.dns.waiting() != 4 {
		t.Errorf("%d found no room, %d wait", p.asked.full.Load(), p.dns.waiting())
	}
	h.Answer(0, &m, &dns.Found{})
	if allowed, _ := h.Question(7, &m); !allowed {
		t.Error("what is answered takes room still")
	}
	w.talk(t, "b.example.")
	if p.asked.full.Load() != 3 {
		t.Error("a question by UDP has room of its own")
	}
	h.Closed()
	h.Closed()
	if p.dns.waiting() != 0 {
		t.Errorf("%d questions of a connection that ended wait", p.dns.waiting())
	}
}
