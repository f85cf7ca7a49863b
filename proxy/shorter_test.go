package proxy

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	oracle "github.com/miekg/dns"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// fakeShortcut is the datapath, as far as the proxy sees it.
type fakeShortcut struct {
	mu       sync.Mutex
	log      []string // rounds, as they begin
	round    [2]uint64
	onRound  func(which int, round uint64) error
	known    map[knownKey]uint64
	knows    int
	tells    []toldAnswer
	wentOn   map[askedKey]askedValue
	events   chan toldEvent
	lost     atomic.Uint64
	readers  atomic.Int32
	together atomic.Bool // there were two readers at once
}

type knownKey struct {
	egress, ingress uint32
	name            string
	typ             uint16
}

type toldAnswer struct {
	round    uint64
	endpoint uint16
	name     string
	addrs    []netip.Addr
	as       []policy.Identity
	until    time.Duration
}

type askedKey struct {
	client, server netip.AddrPort
	id             uint16
}

type askedValue struct {
	message []byte
	at      time.Duration
}

type toldEvent struct {
	asked, answered time.Duration
	query, answer   []byte
}

func newFakeShortcut() *fakeShortcut {
	return &fakeShortcut{known: map[knownKey]uint64{}, wentOn: map[askedKey]askedValue{}, events: make(chan toldEvent, 1024)}
}

func (f *fakeShortcut) SetKnownRound(round uint64) error { return f.begin(0, round) }

func (f *fakeShortcut) SetToldRound(round uint64) error { return f.begin(1, round) }

func (f *fakeShortcut) begin(which int, round uint64) error {
	if f.onRound != nil {
		if err := f.onRound(which, round); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.round[which] = round
	word := "a round"
	if round == 0 {
		word = "none"
	}
	f.log = append(f.log, [2]string{"known: ", "told: "}[which]+word)
	return nil
}

func (f *fakeShortcut) rounds() (known, told uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.round[0], f.round[1]
}

func (f *fakeShortcut) Longest() int { return 96 }

func (f *fakeShortcut) Know(round uint64, egress, ingress uint32, name []byte, typ uint16) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.knows++
	f.known[knownKey{egress, ingress, string(name), typ}] = round
	return nil
}

func (f *fakeShortcut) Tell(round uint64, endpoint uint16, name []byte, _ uint16, addrs []netip.Addr, as []policy.Identity, until, floor time.Duration) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tells = append(f.tells, toldAnswer{round, endpoint, string(name), cloneAll(addrs), cloneAll(as), until})
	return nil
}

func (f *fakeShortcut) Take(client, server netip.AddrPort, id uint16, b []byte) ([]byte, time.Duration, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	k := askedKey{client, server, id}
	v, ok := f.wentOn[k]
	delete(f.wentOn, k)
	return append(b, v.message...), v.at, ok
}

func (f *fakeShortcut) Before(at time.Duration, each func(client, server netip.AddrPort, id uint16)) error {
	f.mu.Lock()
	var keys []askedKey
	for k, v := range f.wentOn {
		if v.at < at {
			keys = append(keys, k)
		}
	}
	f.mu.Unlock()
	for _, k := range keys {
		each(k.client, k.server, k.id)
	}
	return nil
}

func (f *fakeShortcut) Read(ctx context.Context, _, _ time.Duration, each func(client, server netip.AddrPort, asked, answered time.Duration, query, answer []byte)) error {
	if f.readers.Add(1) > 1 {
		f.together.Store(true)
	}
	defer f.readers.Add(-1)
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-f.events:
			each(dnsClient, dnsServerAddr, e.asked, e.answered, e.query, e.answer)
		}
	}
}

func (f *fakeShortcut) TakeLost() (uint64, error) { return f.lost.Swap(0), nil }

func (f *fakeShortcut) KnownRound() (uint64, error) {
	known, _ := f.rounds()
	return known, nil
}

// goOn has a question go on without the proxy, so long ago.
func (f *fakeShortcut) goOn(id uint16, message []byte, ago time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wentOn[askedKey{dnsClient, dnsServerAddr, id}] = askedValue{message, monotonic() - ago}
}

func (f *fakeShortcut) under() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.wentOn)
}

// shorter is askedBy with a shortcut, in the midst of a round.
type shorter struct {
	*testing.T
	*dnsWorker
	p *process
	f *fakeShortcut
}

func shortcutBy(t *testing.T, learner Learner, limits DNSLimits) *shorter {
	t.Helper()
	w, p := askedBy(t, learner, limits)
	s := &shorter{t, w, p, newFakeShortcut()}
	p.config.Shortcut = s.f
	p.dns.collector, p.dns.recorder = p.dns.newWorker(nil), p.dns.newWorker(nil)
	s.dnsWorker = p.dns.newWorker(nil)
	for _, w := range []*dnsWorker{s.dnsWorker, p.dns.collector} {
		w.own = make([]byte, 0, 64<<10) // or the first reply is not in it
	}
	now := *p.snapshot.Load()
	now.round = newRound()
	p.snapshot.Store(&now)
	must(t, p.setKnown(now.round))
	p.tellFromNow()
	s.now = time.Now()
	return s
}

func (s *shorter) pack(m *oracle.Msg) []byte {
	s.Helper()
	b, err := m.Pack()
	must(s.T, err)
	return b
}

func queryOf(name string, id uint16) *oracle.Msg {
	q := new(oracle.Msg).SetQuestion(name, oracle.TypeA)
	q.Id = id
	return q
}

func reply(q *oracle.Msg, records ...string) *oracle.Msg {
	a := new(oracle.Msg).SetReply(q)
	for _, text := range records {
		rr, err := oracle.NewRR(text)
		if err != nil {
			panic(err)
		}
		a.Answer = append(a.Answer, rr)
	}
	return a
}

// ask and answer give the worker what came by the gate. They say what it answered itself.
func (s *shorter) ask(q *oracle.Msg) *oracle.Msg {
	return s.gives(redirect.Datagram{Source: dnsClient, Destination: dnsServerAddr, Mark: redirect.MarkToProxy, Data: s.pack(q)})
}

func (s *shorter) answer(a *oracle.Msg) *oracle.Msg {
	return s.gives(redirect.Datagram{Source: dnsServerAddr, Destination: dnsClient, Mark: redirect.MarkToProxy | redirect.MarkAnswer, Data: s.pack(a)})
}

func (s *shorter) gives(g redirect.Datagram) *oracle.Msg {
	s.Helper()
	s.own = s.own[:0]
	s.take(&g)
	s.out.Flush()
	return s.replied(s.dnsWorker)
}

func (s *shorter) replied(w *dnsWorker) *oracle.Msg {
	s.Helper()
	if len(w.own) == 0 {
		return nil
	}
	m := new(oracle.Msg)
	must(s.T, m.Unpack(w.own))
	return m
}

// sent is how many datagrams left since it was asked last.
func (s *shorter) sent() uint64 { return s.p.dns.lost.Swap(0) }

func (s *shorter) records() []observe.Record {
	s.Helper()
	b, _ := s.p.ring.pop()
	var records []observe.Record
	must(s.T, (&scanner{}).batch(b, func(part observe.Batch, _ uint64) {
		for i := range part.Digests {
			records = append(records, part.Records.Record(part.Digests[i].Place))
		}
	}))
	return records
}

// only has a rule allow a pattern from now on, as an agent would say.
func (s *shorter) only(pattern string, names *redirect.Names) error {
	id := policy.SetID{}
	copy(id[:], pattern)
	set := &policy.L7Set{ID: id, Protocol: policy.ProtocolDNS, DNS: []policy.DNSRule{{Pattern: pattern}}}
	_, err := (&api{p: s.p}).Enforce(context.Background(), snapshotToProto(redirect.Snapshot{
		Revision: uint64(time.Now().UnixNano()), Sets: map[policy.SetID]redirect.NumberedSet{id: {Number: setDNS, Set: set}}, Names: names,
	}))
	return err
}
