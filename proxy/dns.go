package proxy

import (
	"context"
	"errors"
	"hash/maphash"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/redirect"
)

// Datagrams says what the datapath knows of who asks whom by UDP.
type Datagrams interface {
	LookupDatagrams(source, destination netip.AddrPort) (Connection, bool)
}

// dnsServer carries questions of the DNS that come by UDP, and their answers. The gate
// assigns both to the same sockets, as many as there are processors, and marks which is
// which; both leave by raw sockets, from the address and port of the other end. So there
// is no socket to a client, datagrams are read and written many at a time, and what is
// forwarded is not copied.
type dnsServer struct {
	p         *process
	questions *questions
	workers   []*dnsWorker
	collector *dnsWorker    // of questions that take the shortcut; it has no socket
	recorder  *dnsWorker    // of those whose answers did so too; nor has it
	lost      atomic.Uint64 // the kernel did not send
	counts    *dnsCounts
	before    handover
	served    atomic.Bool // the datapath has given us something
	moving    sync.Mutex  // held while a question that went on comes to those that wait here

	late struct { // for those who are not at a worker's turn
		sync.Mutex
		sender *redirect.Sender
		writer dnsWriter
	}
}

// dnsCounts are since the start.
type dnsCounts struct {
	queries, denied, malformed, full     atomic.Uint64
	answers, unmatched, badAnswers       atomic.Uint64
	deadline, unlearnt, unanswered       atomic.Uint64
	again, unknown, stray, cut, streamed atomic.Uint64
	streams, shortcut, told              atomic.Uint64
}

// listenDNS opens the sockets for datagrams, on the same port as connections: one for each
// processor but one, which who asks and who answers need too. The fewer there are, the more
// each finds when it wakes up.
func (p *process) listenDNS(ctx context.Context, port uint16) error {
	if p.config.Datagrams == nil {
		return nil
	}
	d := &dnsServer{p: p, counts: &p.asked, questions: newQuestions(&p.config.DNS)}
	d.late.sender = d.newSender()
	d.late.writer.p = p
	for _, a := range p.config.Addresses {
		for range min(max(runtime.GOMAXPROCS(0)-1, 1), 8) {
			in, err := redirect.ListenDatagrams(ctx, netip.AddrPortFrom(a, port))
			if err != nil {
				d.close()
				return err
			}
			d.workers = append(d.workers, d.newWorker(in))
		}
	}
	d.collector, d.recorder = d.newWorker(nil), d.newWorker(nil)
	p.dns = d
	return nil
}

func (d *dnsServer) newWorker(in *redirect.Receiver) *dnsWorker {
	w := &dnsWorker{d: d, in: in, out: d.newSender(), flows: map[[2]netip.AddrPort]dnsFlow{}}
	w.writer.p = d.p
	w.short.seed = maphash.MakeSeed()
	return w
}

func (d *dnsServer) close() {
	for _, w := range d.workers {
		_ = w.in.Close()
	}
}

// waiting is how many questions have no answer yet.
func (d *dnsServer) waiting() int {
	if d == nil {
		return 0
	}
	return int(d.questions.total.Load())
}

// settles is how long datagrams that were on their way to us may take to be read.
const settles = 500 * time.Millisecond

// quiet reports whether nothing is under way, some time after others took our place.
func (d *dnsServer) quiet(since time.Time) bool {
	return d == nil || d.waiting() == 0 && time.Since(since) > settles
}

const dnsSweepEvery = 25 * time.Millisecond

// sweep ends what waited too long.
func (d *dnsServer) sweep(ctx context.Context) {
	tick := time.NewTicker(dnsSweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for i := range d.questions.shards {
				s := &d.questions.shards[i]
				for s.unanswered(d.questions, now) {
					d.counts.unanswered.Add(1)
				}
				for x, use := s.overdue(d.questions, now); x != nil; x, use = s.overdue(d.questions, now) {
					d.release(x, use, errDeadline)
				}
			}
		}
	}
}

var errDeadline = errors.New("its addresses were not in force in time")

// dnsStatus is nil where no questions are carried.
func (p *process) dnsStatus() *proxyv1.DNSStatus {
	d, c := p.dns, &p.asked
	if d == nil {
		return nil
	}
	return &proxyv1.DNSStatus{
		Waiting: uint64(d.waiting()), Queries: c.queries.Load(), Denied: c.denied.Load(), Malformed: c.malformed.Load(),
		Full: c.full.Load(), Answers: c.answers.Load(), Unmatched: c.unmatched.Load(), BadAnswers: c.badAnswers.Load(),
		Deadline: c.deadline.Load(), Unlearnt: c.unlearnt.Load(), Unanswered: c.unanswered.Load(), Again: c.again.Load(),
		Unknown: c.unknown.Load(), Cut: c.cut.Load(), Streamed: c.streamed.Load(), Lost: d.lost.Load(), Shortcut: c.shortcut.Load(), Told: c.told.Load(),
	}
}

// dnsEvents names what is counted.
func dnsEvents(s *proxyv1.DNSStatus) *redirect.DNSStatus {
	if s == nil {
		return nil
	}
	return &redirect.DNSStatus{Waiting: s.Waiting, Events: map[string]uint64{
		"query": s.Queries, "denied": s.Denied, "malformed": s.Malformed, "full": s.Full, "answer": s.Answers,
		"unmatched": s.Unmatched, "bad-answer": s.BadAnswers, "deadline": s.Deadline, "unlearnt": s.Unlearnt,
		"unanswered": s.Unanswered, "again": s.Again, "unknown": s.Unknown, "cut": s.Cut, "tcp": s.Streamed, "not-sent": s.Lost,
		"shortcut": s.Shortcut, "told": s.Told,
	}}
}
