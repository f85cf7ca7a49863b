package bpf

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
)

// What goes past the proxy and what does not, of answers; see also question_test.go.
func TestAnswers(t *testing.T) {
	o := newResolver(t)
	for name, test := range map[string]func(*testing.T, *resolver){
		"go on":             answersGoOn,
		"odd":               oddAnswers,
		"of odd length":     answersOfOddLength,
		"not as told":       answersNotAsTold,
		"no more":           answersNoMore,
		"behind a long one": shortBehindLong,
		"at random":         randomMessages,
		"raced for":         answersRacedFor,
		"too many":          tooManyAnswers,
		"too fast":          tooFastQuestions,
	} {
		t.Run(name, func(t *testing.T) { test(t, o.in(t)) })
	}
}

// An answer that was told goes to its client on each way, however it is written.
func answersGoOn(t *testing.T, o *resolver) {
	for _, typ := range []uint16{1, typeAAAA} {
		q := ask("www", "example", "org").of(typ)
		told := addressesOf(typ, 8)
		for family, v6 := range families {
			for _, name := range ways {
				o.begin(v6, q, told...)
				w := o.way(name, v6, 40000)
				passes := func(what string, q dnsQuery, r dnsReply) {
					t.Helper()
					w.passes(fmt.Sprintf("%s, %s, type %d, %s", name, family, typ, what), q, r.bytes())
				}
				passes("one", q, q.answered(60, told[3]))
				passes("all", q, q.answered(60, told...))
				if name == "workload" {
					w.goOnWritten(passes, q, told)
				}
				w.refused("once more", w.with(q.answered(60, told...).bytes()), 179, 0)
			}
		}
	}
}

// goOnWritten are the ways to write a question and its answer.
func (w *way) goOnWritten(passes func(string, dnsQuery, dnsReply), q dnsQuery, told []netip.Addr) {
	for n := range told {
		passes("some of them", q, q.answered(60, told[:n+1]...))
		passes("others of them", q, q.answered(0, told[n:]...))
	}
	backwards := slices.Clone(told)
	slices.Reverse(backwards)
	passes("in another order", q, q.answered(60, backwards...))
	passes("one twice", q, q.answered(60, told[0], told[0]))
	upper := q
	upper.name = wireName("WwW", "eXamPLE", "ORG")
	passes("0x20", upper, upper.answered(60, told[2]))
	edns := q
	edns.adds, edns.behind = 1, opt(1232, 0, 10, 0, 2, 1, 2)
	passes("EDNS asked", edns, q.answered(60, told[1]))
	r := q.answered(60, told[1])
	r.adds, r.behind = 1, opt(4096, 0, 12, 0, 3, 0, 0, 0)
	passes("EDNS in both", edns, r)
	passes("EDNS in the answer", q, r)
	for bit := range 16 {
		if r := q.answered(60, told[1]); 1<<bit&0x05b0 != 0 {
			r.flags ^= 1 << bit
			passes(fmt.Sprintf("flag %04x", 1<<bit), q, r)
		}
	}
	w.o.tell(w.o.a.id, q, 25*time.Hour, told...)
	passes("a day", q, q.answered(86400, told[0]))
}

// What was told holds for one endpoint, name and type, in its round, as long as was said, and
// while the addresses stand as they stood.
func answersNotAsTold(t *testing.T, o *resolver) {
	q, told := ask("www", "example", "org"), addressesOf(1, 2)
	ttl := func(seconds ...uint32) []byte {
		r := q.answered(0, told...)
		for i := range seconds {
			r.records[i].ttl = seconds[i]
		}
		return r.bytes()
	}
	other := named + 1
	as := func(until time.Duration, as ...policy.Identity) {
		o.must(o.g.Questions().Tell(round, o.a.id, q.name, 1, told, as, time.Duration(monotonic())+until, 0))
	}
	atLeast := func(floor time.Duration) {
		o.must(o.g.Questions().Tell(round, o.a.id, q.name, 1, told, make([]policy.Identity, 2), time.Duration(monotonic())+1000*time.Second, floor))
	}
	forget := func() { o.must(empty(o.g.objs.HgDnsTold1)) }
	number := func(id uint16) {
		a := o.a
		a.id = id
		o.put(a, true)
	}
	for name, c := range map[string]struct {
		before func()
		answer []byte
		passes bool
	}{
		"as told":                {func() {}, ttl(60, 60), true},
		"another round":          {func() { o.must(o.g.Questions().SetToldRound(round + 1)) }, ttl(60, 60), false},
		"no round":               {func() { o.must(o.g.Questions().SetToldRound(0)) }, ttl(60, 60), false},
		"the round of questions": {func() { o.must(o.g.Questions().SetKnownRound(round + 1)) }, ttl(60, 60), true},
		"told in no round": {func() {
			o.must(o.g.Questions().SetToldRound(0))
			o.must(o.g.Questions().Tell(0, o.a.id, q.name, 1, told, make([]policy.Identity, 2), 1<<62, 0))
		}, ttl(60, 60), false},
		"nothing told":           {forget, ttl(60, 60), false},
		"no address told":        {func() { o.tell(o.a.id, q, time.Hour) }, ttl(60, 60), false},
		"one told":               {func() { o.tell(o.a.id, q, time.Hour, told[0]) }, ttl(60, 60), false},
		"told to another":        {func() { forget(); o.tell(o.b.id, q, time.Hour, told...) }, ttl(60, 60), false},
		"told to nobody":         {func() { forget(); o.tell(0, q, time.Hour, told...) }, ttl(60, 60), false},
		"is another":             {func() { number(7) }, ttl(60, 60), false},
		"told to who is another": {func() { forget(); number(7); o.tell(7, q, time.Hour, told...) }, ttl(60, 60), true},
		"told for another type":  {func() { forget(); o.tell(o.a.id, q.of(typeAAAA), time.Hour, told...) }, ttl(60, 60), false},
		"of another type, which was told": {func() {
			aaaa := q.of(typeAAAA)
			o.must(o.g.Questions().Know(round, setDNS, 0, q.name, typeAAAA))
			o.tell(o.a.id, aaaa, time.Hour, addressesOf(typeAAAA, 2)...)
		}, q.of(typeAAAA).answered(60, addressesOf(typeAAAA, 2)...).bytes(), false},
		"told of another name":    {func() { forget(); o.tell(o.a.id, ask("wwx", "example", "org"), time.Hour, told...) }, ttl(60, 60), false},
		"told of a shorter name":  {func() { forget(); o.tell(o.a.id, ask("www", "example"), time.Hour, told...) }, ttl(60, 60), false},
		"in time":                 {func() { o.tell(o.a.id, q, 1000*time.Second, told...) }, ttl(60, 900), true},
		"in time, the other":      {func() { o.tell(o.a.id, q, 1000*time.Second, told...) }, ttl(900, 60), true},
		"by a moment too long":    {func() { o.tell(o.a.id, q, 1000*time.Second, told...) }, ttl(60, 1000), false},
		"too long, the other":     {func() { o.tell(o.a.id, q, 1000*time.Second, told...) }, ttl(1000, 60), false},
		"its time is over":        {func() { o.tell(o.a.id, q, 0, told...) }, ttl(0, 0), false},
		"a day is not 32 bits":    {func() { o.tell(o.a.id, q, 5*time.Second, told...) }, ttl(86400, 86400), false},
		"counts for less":         {func() { atLeast(900 * time.Second) }, ttl(0, 60), true},
		"counts for too long":     {func() { atLeast(1000 * time.Second) }, ttl(0, 60), false},
		"counts for more seconds": {func() { atLeast(999*time.Second + 1) }, ttl(0, 60), false},
		"known as then":           {func() { o.learn(named, told...); as(time.Hour, named, named) }, ttl(60, 60), true},
		"one known as then":       {func() { o.learn(named, told[1]); as(time.Hour, 0, named) }, ttl(60, 60), true},
		"known otherwise":         {func() { o.learn(named, told...); as(time.Hour, named, other) }, ttl(60, 60), false},
		"not known any more":      {func() { o.learn(named, told[0]); as(time.Hour, named, named) }, ttl(60, 60), false},
		"known now":               {func() { o.learn(named, told...); as(time.Hour, named, 0) }, ttl(60, 60), false},
		"another knows it": {func() {
			_, err := o.g.Names().Put([]NameKey{{Endpoint: o.b.id, Addr: told[0]}, {Endpoint: o.b.id, Addr: told[1]}}, []policy.Identity{named, named})
			o.must(err)
			as(time.Hour, named, named)
		}, ttl(60, 60), false},
		"another's address": {func() { o.tell(o.a.id, q, time.Hour, told[0], told[1].Next()) }, ttl(60, 60), false},
	} {
		o.begin(false, q, told...)
		w := o.way("workload", false, 40000)
		c.before()
		if c.passes {
			o.must(o.g.Questions().Know(round+1, setDNS, 0, q.name, 1)) // whatever the round
			w.passes(name, q, c.answer)
			continue
		}
		w.ask(q)
		w.isProxys(name, w.with(c.answer))
	}
}

// Without its question, the proxy, the client's rules or the connection, there is no shortcut.
func answersNoMore(t *testing.T, o *resolver) {
	q, told := ask("www", "example", "org"), addressesOf(1, 2)
	whole := q.answered(60, told...).bytes()
	for name, v6 := range map[string]bool{"workload": false, "outside": true} {
		begin := func(port uint16) *way {
			t.Helper()
			o.begin(v6, q, told...)
			w := o.way(name, v6, port)
			w.ask(q)
			return w
		}
		w := begin(40000)
		_, _, ok := o.g.Questions().Take(w.asks.source(), w.server, q.id, nil)
		if w.refused("taken by the proxy", w.with(whole), 179, 0); !ok {
			t.Error("it could not be taken")
		}
		w = begin(40000)
		other := o.way(name, v6, 40001)
		another := q
		another.id++
		other.ask(another)
		other.refused("the id of another port", other.with(whole), 179, 2)
		w.o.must(o.g.SetRoute(AnyRoute(policy.ProtocolDNS), deadPort))
		w.refused("the proxy is dead", w.with(whole), 232, 2)
		w = begin(40000)
		a, _ := redirecting(setDNS, 0)
		o.must(o.g.SyncPolicy(subjectA, a, PolicyTable{}))
		o.must(o.g.SetRevision(2))
		o.forget()
		if r := w.answer(whole); r.action != actionShot || o.waiting(1<<62) != 1 || len(o.recorded()) != 0 {
			t.Errorf("denied since: action %d", r.action)
		}
	}
	for _, c := range []struct {
		egress, ingress uint32
		passes          bool
	}{{setDNS, 0, true}, {setDNS, setDNS + 1, true}, {0, setDNS, false}} {
		o.begin(false, q, told...)
		o.rulesOf(false, c.egress, c.ingress)
		o.must(o.g.Questions().Know(round, c.egress, c.ingress, q.name, 1))
		o.tell(o.a.id, q, time.Hour, told...)
		w := o.way("workload", false, 40000)
		if what := fmt.Sprintf("sets %x and %x", c.egress, c.ingress); c.passes {
			w.passes(what, q, whole)
		} else {
			w.ask(q)
			w.isProxys(what, w.with(whole))
		}
	}
}
