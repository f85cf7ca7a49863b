package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// oddOnes are answers that differ a little from one that goes on.
func oddOnes(q dnsQuery, told []netip.Addr) map[string][]byte {
	odd := map[string][]byte{}
	add := func(what string, change func(*dnsReply)) {
		r := q.answered(60, told[0], told[1])
		r.name = slices.Clone(r.name)
		for i := range r.records {
			r.records[i].owner = slices.Clone(r.records[i].owner)
		}
		change(&r)
		odd[what] = r.bytes()
	}
	whole := q.answered(60, told[0], told[1]).bytes()
	for n := range whole {
		odd[fmt.Sprintf("%d bytes of it", n)] = whole[:n]
	}
	for bit := range 16 {
		if 1<<bit&0x05b0 == 0 {
			add(fmt.Sprintf("flag %04x", 1<<bit), func(r *dnsReply) { r.flags ^= 1 << bit })
		}
		add(fmt.Sprintf("bit %d of the id", bit), func(r *dnsReply) { r.id ^= 1 << bit })
		add(fmt.Sprintf("bit %d of the type", bit), func(r *dnsReply) { r.typ ^= 1 << bit })
		add(fmt.Sprintf("bit %d of the class", bit), func(r *dnsReply) { r.class ^= 1 << bit })
		for i := range 2 {
			add(fmt.Sprintf("record %d, bit %d of the type", i, bit), func(r *dnsReply) { r.records[i].typ ^= 1 << bit })
			add(fmt.Sprintf("record %d, bit %d of the class", i, bit), func(r *dnsReply) { r.records[i].class ^= 1 << bit })
			add(fmt.Sprintf("record %d, bit %d of the length", i, bit), func(r *dnsReply) { r.records[i].length ^= 1 << bit })
			add(fmt.Sprintf("record %d, bit %d of the owner", i, bit), func(r *dnsReply) { r.records[i].owner[bit/8] ^= 1 << (bit % 8) })
		}
	}
	for i := range q.name {
		for _, bit := range []byte{0x01, 0x20, 0x80} {
			add(fmt.Sprintf("byte %d of the name, bit %02x", i, bit), func(r *dnsReply) { r.name[i] ^= bit })
		}
	}
	for _, n := range []uint16{0, 2, 255, 256, 257, 65535} {
		add(fmt.Sprint(n, " questions"), func(r *dnsReply) { r.questions = n })
	}
	for _, n := range []uint16{0, 1, 3, 8, 9, 256, 258, 512, 65535} {
		add(fmt.Sprint(n, " answers"), func(r *dnsReply) { r.answers = n })
	}
	for _, n := range []uint16{1, 2, 256, 65535} {
		add(fmt.Sprint(n, " in authority"), func(r *dnsReply) { r.authority = n })
		add(fmt.Sprint(n, " more"), func(r *dnsReply) { r.adds = n })
		add(fmt.Sprint(n, " in authority, which are there"), func(r *dnsReply) {
			r.authority, r.records = n, append(r.records, slices.Repeat(r.records[:1], int(n)%4)...)
		})
	}
	oddRecords(add, q, told)
	oddEnds(add)
	return odd
}

func oddRecords(add func(string, func(*dnsReply)), q dnsQuery, told []netip.Addr) {
	size := uint16(len(told[0].AsSlice()))
	add("nothing there", func(r *dnsReply) { *r = q.answered(60) })
	add("nine", func(r *dnsReply) { *r = q.answered(60, slices.Repeat(told[:1], 9)...) })
	add("another's address", func(r *dnsReply) { r.records[0].data = told[0].Prev().Prev().AsSlice() })
	add("another's address behind", func(r *dnsReply) { r.records[1].data = told[1].Next().Next().AsSlice() })
	add("no address", func(r *dnsReply) { r.records[1].data = make([]byte, size) })
	for i := range 2 {
		for _, ttl := range []uint32{86401, 1 << 24, 1 << 31, 1<<31 | 60, 1<<32 - 1} {
			add(fmt.Sprintf("record %d, TTL %d", i, ttl), func(r *dnsReply) { r.records[i].ttl = ttl })
		}
		add(fmt.Sprintf("record %d, owner written out", i), func(r *dnsReply) { r.records[i].owner = q.name })
		add(fmt.Sprintf("record %d, the root's", i), func(r *dnsReply) { r.records[i].owner = []byte{0} })
		add(fmt.Sprintf("record %d, an alias", i), func(r *dnsReply) {
			r.records[i] = dnsRecord{[]byte{0xc0, 12}, 5, 1, 60, 2, []byte{0xc0, 12}}
		})
		add(fmt.Sprintf("record %d, shorter", i), func(r *dnsReply) {
			r.records[i].length, r.records[i].data = size-1, r.records[i].data[1:]
		})
		add(fmt.Sprintf("record %d, longer", i), func(r *dnsReply) {
			r.records[i].length, r.records[i].data = size+1, append(r.records[i].data[:size:size], 0)
		})
		add(fmt.Sprintf("record %d, empty", i), func(r *dnsReply) { r.records[i].length, r.records[i].data = 0, nil })
	}
	add("of the other type", func(r *dnsReply) {
		other := addressesOf(q.typ^1^typeAAAA, 1)[0].AsSlice()
		r.records[1].typ, r.records[1].length, r.records[1].data = q.typ^1^typeAAAA, uint16(len(other)), other
	})
	add("an alias before", func(r *dnsReply) {
		target := wireName("elsewhere")
		r.answers, r.records = 3, append([]dnsRecord{{[]byte{0xc0, 12}, 5, 1, 60, uint16(len(target)), target}}, r.records...)
	})
}

// oddEnds change what stands behind the records.
func oddEnds(add func(string, func(*dnsReply))) {
	behind := func(what string, n uint16, bytes ...byte) {
		add(what, func(r *dnsReply) { r.adds, r.behind = n, bytes })
	}
	changed := func(at int, to byte) []byte {
		b := opt(512, 1, 2, 3, 4)
		b[at] = to
		return b
	}
	behind("a byte behind", 0, 0)
	behind("OPT not counted", 0, opt(512)...)
	behind("a byte for an OPT", 1, 0)
	behind("half an OPT", 1, opt(512)[:10]...)
	behind("two OPT", 2, append(opt(512), opt(512)...)...)
	behind("one OPT of two", 1, append(opt(512), opt(512)...)...)
	behind("OPT has a name", 1, append([]byte{1, 'a'}, opt(512)...)...)
	behind("OPT has a pointer", 1, append([]byte{0xc0, 12}, opt(512)[1:]...)...)
	behind("OPT of another type", 1, changed(2, 40)...)
	behind("OPT of another type, upper byte", 1, changed(1, 1)...)
	behind("OPT with an error", 1, changed(5, 1)...)
	behind("OPT of version 1", 1, changed(6, 1)...)
	behind("OPT longer than said", 1, append(opt(512, 1, 2, 3, 4), 0)...)
	behind("OPT shorter than said", 1, opt(512, 1, 2, 3, 4)[:14]...)
	behind("OPT much shorter than said", 1, changed(9, 1)...)
	add("OPT among the answers", func(r *dnsReply) {
		r.answers, r.behind = 3, opt(512)
	})
	add("more than is read", func(r *dnsReply) {
		r.adds, r.behind = 1, opt(512, make([]byte, 385-len(r.bytes())-len(opt(0)))...)
	})
}

// Whatever is not to the letter what was told is read by the proxy, with its question. The
// plain answer, which comes next, goes on.
func oddAnswers(t *testing.T, o *resolver) {
	for _, typ := range []uint16{1, typeAAAA} {
		q := ask("wWw", "eXample", "org").of(typ)
		told := addressesOf(typ, 4)[1:3]
		whole := q.answered(60, told[1]).bytes()
		for name, v6 := range map[string]bool{"workload": false, "outside": true} {
			o.begin(v6, q, told...)
			o.tell(o.a.id, q, 1e9*time.Second, told...)
			w := o.way(name, v6, 40000)
			odd := oddOnes(q, told)
			o.forget()
			for what, message := range odd {
				w.oddThenPlain(what, q, message, whole)
			}
			o.expectProxys(w, len(odd))
			if got := len(o.recorded()); got != len(odd) {
				t.Errorf("%d answers recorded, %d went on", got, len(odd))
			}
			w.passes("the plain one", q, whole)
		}
	}
}

// oddThenPlain asks, and wants an odd answer not to reach the client, but to leave the question
// there for the plain one.
func (w *way) oddThenPlain(what string, q dnsQuery, odd, plain []byte) {
	o := w.o
	o.Helper()
	w.ask(q)
	if r := w.answer(odd); r.action != actionShot {
		o.Errorf("%s: action %d", what, r.action)
	}
	if r := w.answer(plain); r.action != actionSend {
		o.Errorf("the plain one after %s: action %d", what, r.action)
		o.must(empty(o.g.objs.HgDnsAsked1))
	}
}

// expectProxys wants so many packets from the server to have been the proxy's since forget, and
// no others to have been refused.
func (o *resolver) expectProxys(w *way, n int) {
	o.Helper()
	drops, err := o.g.Drops()
	o.must(err)
	for _, d := range drops {
		if d.Reason != 0 && (d.Reason != 179 || d.Direction != w.direction() || d.Packets != uint64(n)) {
			o.Errorf("refused %+v; want %d for the proxy", d, n)
		}
		if d.Reason == 179 {
			n = 0
		}
	}
	if n != 0 {
		o.Errorf("%d not refused", n)
	}
}

// Lengths that do not agree, parts of datagrams, and what has no hop left, are not read.
func answersOfOddLength(t *testing.T, o *resolver) {
	q, told := ask("www", "example", "org"), addressesOf(1, 1)
	for name, v6 := range map[string]bool{"workload": false, "outside": true} {
		o.begin(v6, q, told...)
		w := o.way(name, v6, 40000)
		whole := w.with(q.answered(60, told...).bytes())
		unread := func(what string, packet []byte, size uint32) {
			t.Helper()
			w.ask(q)
			program, in := o.g.objs.HgFromWorkload, [48]uint32{10: uint32(o.b.ifindex), 44: size} // see skb
			if !w.local {
				program, in[10] = o.g.objs.HgFromNetwork, uint32(o.uplink)
			}
			opts := ebpf.RunOptions{Data: packet, DataOut: make([]byte, len(packet)+256), Context: in, Repeat: 1}
			action, err := program.Run(&opts)
			if err != nil || action != actionShot {
				t.Errorf("%s, %s: action %d, %v", name, what, action, err)
			}
			if n, got := o.waiting(1<<62), o.recorded(); n != 1 || len(got) != 0 {
				t.Errorf("%s, %s: %d wait, recorded %+v", name, what, n, got)
			}
			o.must(empty(o.g.objs.HgDnsAsked1))
		}
		if !w.local {
			whole.dstMAC = o.mac
		}
		plain := whole.bytes()
		changed := func(at int, by byte) []byte {
			b := bytes.Clone(plain)
			b[at] += by
			return b
		}
		udp := len(plain) - len(whole.payload) - 3 // the lower byte of its length
		unread("bytes behind", append(bytes.Clone(plain), 0, 0), 0)
		unread("IP says less", changed(lengthAt(v6), 255), 0)
		unread("UDP says more", changed(udp, 1), 0)
		unread("UDP says less", changed(udp, 255), 0)
		unread("several segments", plain, 30)
		for what, fragment := range map[string]uint16{"first of fragments": map[bool]uint16{false: 0x2000, true: 1}[v6]} {
			f := whole
			f.fragment, f.datagram = fragment, 9
			unread(what, f.bytes(), 0)
		}
		last := whole
		last.ttl = 1
		unread("one hop left", last.bytes(), 0)
		w.passes("plain", q, whole.payload)
	}
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
		"nothing told":            {forget, ttl(60, 60), false},
		"no address told":         {func() { o.tell(o.a.id, q, time.Hour) }, ttl(60, 60), false},
		"one told":                {func() { o.tell(o.a.id, q, time.Hour, told[0]) }, ttl(60, 60), false},
		"told to another":         {func() { forget(); o.tell(o.b.id, q, time.Hour, told...) }, ttl(60, 60), false},
		"told to nobody":          {func() { forget(); o.tell(0, q, time.Hour, told...) }, ttl(60, 60), false},
		"told for another type":   {func() { forget(); o.tell(o.a.id, q.of(typeAAAA), time.Hour, told...) }, ttl(60, 60), false},
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
