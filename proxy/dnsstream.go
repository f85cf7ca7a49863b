package proxy

import (
	"net/netip"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/dns"
	"github.com/headgate/headgate/policy"
)

// dnsStream is what a session of the DNS asks: questions that come by TCP are judged, and
// answers held, as those by UDP are.
type dnsStream struct {
	c        *conn
	writer   dnsWriter
	asked    map[uint64]*dnsExchange
	outcome  map[uint64]*outcome
	name     [4 * 256]byte
	request  policy.DNSRequest
	learning []LearntAddress
}

// outcome of learning what an answer says.
type outcome struct {
	state atomic.Int32 // learning, holding or told
	err   error        // once told
	rcode uint16
	found dns.Found
}

var _ dns.Hooks = (*dnsStream)(nil)

func newDNSSession(c *conn) parsers.Session {
	c.p.asked.streams.Add(1)
	h := &dnsStream{c: c, writer: dnsWriter{p: c.p}, asked: map[uint64]*dnsExchange{}, outcome: map[uint64]*outcome{}}
	return dns.New(h, c.p.config.DNS.Deadline)
}

// Question implements dns.Hooks.
func (h *dnsStream) Question(id uint64, m *dns.Message) (allowed bool, rcode uint16) {
	c := h.c
	c.requests.Add(1)
	c.p.requests.Add(1)
	c.p.asked.queries.Add(1)
	c.p.asked.streamed.Add(1)
	c.last = id
	name := m.AppendName(h.name[:0])
	h.request = policy.DNSRequest{Name: unsafe.String(unsafe.SliceData(name), len(name)), Type: m.Type}
	decision, direction := c.judge(&h.request)
	h.request.Name = ""
	x := &dnsExchange{client: c.source, server: c.destination, known: c.known, at: time.Now(), name: append([]byte(nil), name...), typ: m.Type}
	x.decide(&decision, direction)
	h.writer.question(x)
	if decision.Verdict != policy.Allow {
		c.p.denied.Add(1)
		c.p.asked.denied.Add(1)
		c.condemn = c.condemned // told, the connection ends
		return false, c.p.config.DNS.denial()
	}
	if d := c.p.dns; d != nil && !d.questions.streamed(h.client()) {
		h.Full()
		return false, dns.Refused
	}
	h.asked[id] = x
	return true, 0
}

// client is whose share of room the questions take.
func (h *dnsStream) client() netip.Addr { return h.c.source.Addr().Unmap() }

// Full implements dns.Hooks.
func (h *dnsStream) Full() { h.c.p.asked.full.Add(1) }

// Closed implements dns.Hooks.
func (h *dnsStream) Closed() {
	if d := h.c.p.dns; d != nil {
		d.questions.streamEnds(h.client(), len(h.asked))
	}
	clear(h.asked)
}

// Unreadable implements dns.Hooks.
func (h *dnsStream) Unreadable(from parsers.Side, err error) (pass bool) {
	if from == parsers.Server {
		h.c.p.asked.badAnswers.Add(1)
		return false
	}
	h.c.p.asked.malformed.Add(1)
	return h.c.Malformed(h.c.last+1, from, err)
}

// Unmatched implements dns.Hooks.
func (h *dnsStream) Unmatched() { h.c.p.asked.unmatched.Add(1) }

// Answer implements dns.Hooks.
func (h *dnsStream) Answer(id uint64, m *dns.Message, f *dns.Found) (now bool) {
	c := h.c
	c.p.asked.answers.Add(1)
	learner := c.p.config.Learner
	if learner == nil || len(f.Records) == 0 || !c.known.learns() {
		h.answered(id, m.Rcode, f, nil)
		return true
	}
	o := &outcome{rcode: m.Rcode, found: dns.Found{Chain: cloneAll(f.Chain), Records: cloneAll(f.Records), TTL: f.TTL}}
	h.outcome[id] = o
	h.learning = appendLearnt(h.learning[:0], f)
	learner.Learn(Learnt{
		Client: c.source.Addr(), Name: string(m.AppendName(h.name[:0])), Chain: f.Chain, Addresses: h.learning, At: time.Now(),
	}, func(err error) {
		o.err = err
		if o.state.Swap(told) == holding { // else Answer has not returned
			go c.wake(parsers.Server, id) // who tells may hold what Learn waits for
		}
	})
	if o.state.CompareAndSwap(learning, holding) {
		return false
	}
	if o.err == nil {
		return h.Outcome(id) == nil
	}
	// Its client is told when the hold ends, which is at once.
	go c.wake(parsers.Server, id)
	return false
}

// Outcome implements dns.Hooks.
func (h *dnsStream) Outcome(id uint64) error {
	o := h.outcome[id]
	delete(h.outcome, id)
	if o == nil {
		return errDeadline
	}
	err := errDeadline
	if o.state.Load() == told {
		err = o.err
	}
	rcode, found := o.rcode, &o.found
	if err != nil {
		rcode, found = dns.ServFail, &dns.Found{}
		if err == errDeadline {
			h.c.p.asked.deadline.Add(1)
		} else {
			h.c.p.asked.unlearnt.Add(1)
		}
	}
	h.answered(id, rcode, found, err)
	return err
}

func (h *dnsStream) answered(id uint64, rcode uint16, f *dns.Found, err error) {
	x := h.asked[id]
	delete(h.asked, id)
	if x == nil {
		return
	}
	if d := h.c.p.dns; d != nil {
		d.questions.streamEnds(h.client(), 1)
	}
	h.writer.reply(x, rcode, f, time.Now(), err)
}
