package bpf

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/cilium/ebpf"
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
	behind("OPT begins a label", 1, changed(0, 1)...)
	behind("OPT begins a pointer", 1, changed(0, 0xc0)...)
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
