package bpf

import (
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// What is not there is not made up for by what was there before: on one processor, which
// reads messages into the same memory.
func shortBehindLong(t *testing.T, o *resolver) {
	var all, one unix.CPUSet
	o.must(unix.SchedGetaffinity(0, &all))
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	o.must(unix.SchedSetaffinity(0, &one))
	q, told := ask("www", "example", "org"), addressesOf(1, 8)
	q.adds, q.behind = 1, opt(512, 1, 2, 3, 4)
	r := q.answered(60, told...)
	r.adds, r.behind = 1, opt(512, 1, 2, 3, 4)
	o.begin(false, q, told...)
	w := o.way("workload", false, 40000)
	question, answer := q.bytes(), r.bytes()
	o.forget()
	for n := range answer {
		w.ask(q)
		if r := w.answer(answer); r.action != actionSend {
			t.Errorf("whole: action %d", r.action)
		}
		if n < len(question) {
			f := w.asks
			f.payload = question[:n]
			if r := o.sends(o.a, f); r.action != actionShot {
				t.Errorf("%d bytes of the question: action %d", n, r.action)
			}
		}
		w.oddThenPlain(fmt.Sprint(n, " bytes of it"), q, answer[:n], answer)
	}
	o.expectProxys(w, len(answer)+len(question))
	o.recorded()
}

// The gate lets an answer go on, or the proxy takes out its question: never both, and
// never neither.
func answersRacedFor(t *testing.T, o *resolver) {
	q, told := ask("www", "example", "org"), addressesOf(1, 2)
	o.begin(false, q, told...)
	w := o.way("workload", false, 40000)
	answer := q.answered(60, told...).bytes()
	const rounds = 1500
	var turn, done atomic.Int32
	var taken [rounds]bool
	defer turn.Store(rounds)
	go func() {
		for i := range int32(rounds) {
			for turn.Load() <= i {
				runtime.Gosched()
			}
			_, _, taken[i] = o.g.Questions().Take(w.asks.source(), w.server, q.id, nil)
			done.Store(i + 1)
		}
	}()
	gate := 0
	for i := range int32(rounds) {
		w.ask(q)
		turn.Store(i + 1)
		passed := w.answer(answer).action == actionSend
		for done.Load() <= i {
			time.Sleep(time.Microsecond)
		}
		if passed == taken[i] {
			t.Fatalf("round %d: it went on: %v, was taken: %v", i, passed, taken[i])
		}
		if passed {
			gate++
		}
	}
	if got := len(o.recorded()); got != gate {
		t.Errorf("%d recorded, %d went on", got, gate)
	}
}

// What finds no room to be recorded goes on all the same, and is counted; what finds none
// to be remembered is the proxy's.
func tooManyAnswers(t *testing.T, o *resolver) {
	q, told := ask("www", "example", "org"), addressesOf(typeAAAA, 8)
	q.typ = typeAAAA
	o.begin(false, q, told...)
	w := o.way("workload", false, 40000)
	r := q.answered(60, told...)
	r.adds, r.behind = 1, opt(512, make([]byte, 384-len(r.bytes())-len(opt(0)))...)
	longest := r.bytes()
	w.passes("the longest", q, longest)
	questions := o.g.Questions()
	_, err := questions.TakeLost()
	o.must(err)
	sent, lost := uint64(0), uint64(0)
	for ; lost < 3 && sent < 20_000; sent++ {
		w.ask(q)
		if r := w.answer(longest); r.action != actionSend {
			t.Fatalf("answer %d, %d lost: action %d", sent, lost, r.action)
		}
		now, err := questions.TakeLost()
		o.must(err)
		lost += now
	}
	if got := uint64(len(o.recorded())); lost != 3 || got != sent-lost {
		t.Errorf("%d of %d were lost, and %d recorded", lost, sent, got)
	}
	w.passes("there is room again", q, longest)

	var k gateDnsAskedKey
	for err = nil; err == nil; k.Id++ {
		err = o.g.objs.HgDnsAsked1.Put(&k, &gateDnsAsked{})
		if k.Id == 65535 {
			k.ClientPort++
		}
	}
	if !errors.Is(err, unix.E2BIG) {
		t.Fatal("fill:", err)
	}
	f := w.asks
	f.payload = q.bytes()
	o.forget()
	if r, got := o.sends(o.a, f), o.counted(); r.action != actionShot || got != foundSocket {
		t.Errorf("too many questions wait: action %d, counted %q", r.action, got)
	}
	w.refused("its answer", w.with(longest), 179, o.waiting(1<<62))
	o.must(empty(o.g.objs.HgDnsAsked1))

	newest(t, o, w)
}

// newest of many names is known, and was told.
func newest(t *testing.T, o *resolver, w *way) {
	told := addressesOf(1, 1)
	for _, m := range []*ebpf.Map{o.g.objs.HgDnsKnown1, o.g.objs.HgDnsTold1} {
		if n := m.MaxEntries(); n > 10_000 {
			t.Fatalf("%d find room", n)
		}
	}
	var q dnsQuery
	for i := range 12_000 {
		q = ask("www", fmt.Sprint(i))
		o.must(o.g.Questions().Know(round, setDNS, 0, q.name, 1))
		o.tell(o.a.id, q, time.Hour, told...)
	}
	w.passes("the newest", q, q.answered(60, told...).bytes())
}

// Who asks faster than the proxy takes over what waits asks the proxy; others are not
// concerned.
func tooFastQuestions(t *testing.T, o *resolver) {
	const shift, most = 27, 8192 // see DNS_PACE
	q, told := ask("www", "example", "org"), addressesOf(1, 1)
	o.begin(false, q, told...)
	w := o.way("outside", false, 40000)
	w.ask(q)
	o.must(empty(o.g.objs.HgDnsAsked1))
	f := w.asks
	f.payload = q.bytes()
	for range 1000 {
		period := uint32(monotonic() >> shift)
		o.must(o.g.objs.HgDnsPace1.Put(uint32(o.b.id), [2]uint32{period, most}))
		first := o.sends(o.a, f)
		o.must(o.g.objs.HgDnsPace1.Put(uint32(o.a.id), [2]uint32{period, most - 1}))
		o.must(empty(o.g.objs.HgDnsAsked1))
		last := o.sends(o.a, f)
		o.must(empty(o.g.objs.HgDnsAsked1))
		over := o.sends(o.a, f)
		o.must(empty(o.g.objs.HgDnsAsked1))
		if uint32(monotonic()>>shift) != period { // it is over
			continue
		}
		if first.action != actionSend || last.action != actionSend || over.action != actionShot {
			t.Errorf("while another is too fast: action %d; the last: %d; one more: %d", first.action, last.action, over.action)
		}
		w.o.must(o.g.objs.HgDnsPace1.Put(uint32(o.a.id), [2]uint32{period - 1, most}))
		w.ask(q)
		return
	}
	t.Error("no period is long enough to see anything")
}
