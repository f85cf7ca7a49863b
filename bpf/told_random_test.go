package bpf

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers/dns"
)

// messages makes messages of the DNS, and changes them.
type messages struct {
	*rand.Rand
	names [][]string
	told  map[uint16][]netip.Addr
}

var someBytes = []byte{0, 1, 2, 5, 12, 28, 41, 63, 64, 0x7f, 0x80, 0xc0, 0xff}

func (m messages) some() byte { return someBytes[m.IntN(len(someBytes))] }

// mutate changes a message in up to three places, or not at all.
func (m messages) mutate(b []byte) []byte {
	for range m.IntN(4) {
		if len(b) == 0 {
			return b
		}
		at := m.IntN(len(b))
		switch m.IntN(8) {
		case 0:
			b[at] ^= 1 << m.IntN(8)
		case 1:
			b[at] = m.some()
		case 2:
			b = slices.Insert(b, at, bytes.Repeat([]byte{m.some()}, 1+m.IntN(4))...)
		case 3:
			b = slices.Delete(b, at, min(len(b), at+1+m.IntN(4)))
		case 4:
			b = b[:at]
		case 5:
			b = append(b, b[at:min(len(b), at+m.IntN(20))]...)
		case 6: // a count or the flags
			if at = 2 + m.IntN(10); at < len(b) {
				b[at] = m.some()
			}
		case 7: // the case of a letter
			b[at] ^= 0x20
		}
	}
	return b
}

func (m messages) question() dnsQuery {
	q := ask(m.names[m.IntN(len(m.names))]...)
	q.id = uint16(m.Uint32())
	q.flags = uint16(m.Uint32()) & 0x0130
	if m.IntN(2) == 0 {
		q.typ = typeAAAA
	}
	for i, c := range q.name {
		if 'a' <= c && c <= 'z' && m.IntN(3) == 0 {
			q.name[i] -= 'a' - 'A'
		}
	}
	if room := 128 - len(q.bytes()); m.IntN(2) == 0 && room > 11 {
		q.adds, q.behind = 1, opt(uint16(m.IntN(1300)), make([]byte, m.IntN(room-10))...)
	}
	return q
}

func (m messages) answer(q dnsQuery) dnsReply {
	told := slices.Clone(m.told[q.typ])
	m.Shuffle(len(told), func(i, j int) { told[i], told[j] = told[j], told[i] })
	r := q.answered(uint32(m.IntN(100)), told[:1+m.IntN(len(told))]...)
	switch m.IntN(12) {
	case 0:
		r.records[0].data = r.records[0].data[1:]
		r.records[0].length--
	case 1:
		r.records[0].owner = q.name
	case 2:
		r.records[0] = dnsRecord{[]byte{0xc0, 12}, dns.TypeCNAME, 1, 60, 3, []byte{1, 'x', 0}}
	case 3:
		r.records[0].ttl = m.Uint32()
	case 4:
		r.records[0].data = bytes.Repeat([]byte{9}, len(r.records[0].data))
	case 5, 6, 7:
		r.adds, r.behind = 1, opt(uint16(m.Uint32()), make([]byte, m.IntN(20))...)
	}
	r.flags ^= uint16(m.Uint32()) & 0x05b0
	return r
}

// Whatever the gate lets go on, of thousands of messages that are wrong in some place, the
// proxy would have read too, and taken for what the gate took it for.
func randomMessages(t *testing.T, o *resolver) {
	const seed, rounds, fewest = 20261121, 6000, 300
	m := messages{rand.New(rand.NewPCG(seed, 1)), [][]string{
		{"a"}, {"www", "example", "org"}, {"wwx", "example", "org"}, {string(bytes.Repeat([]byte{'y'}, 63)), string(bytes.Repeat([]byte{'z'}, 30))},
	}, map[uint16][]netip.Addr{1: addressesOf(1, 5), typeAAAA: addressesOf(typeAAAA, 5)}}
	o.begin(false, ask("unused"))
	known := map[string]bool{}
	for _, name := range m.names {
		for typ, told := range m.told {
			q := ask(name...).of(typ)
			known[string(q.name)] = true
			o.must(o.g.Questions().Know(round, setDNS, 0, q.name, typ))
			o.tell(o.a.id, q, time.Hour, told...)
		}
	}
	w := o.way("workload", false, 40000)
	asks := func(message []byte) bool {
		f := w.asks
		f.payload = message
		return o.sends(o.a, f).action == actionSend
	}
	went, came := 0, 0
	for range rounds {
		message := m.mutate(m.question().bytes())
		if !asks(message) {
			continue
		}
		went++
		var read dns.Message
		if err := read.ParseQuery(message); err != nil || !read.Plain() || read.Takes() > dns.MaxUDP {
			t.Fatalf("question %x went on: %v", message, err)
		}
		name := read.Question()[:len(read.Question())-4]
		if !known[string(bytes.ToLower(name))] || m.told[read.Type] == nil || read.ID != binary.BigEndian.Uint16(message) {
			t.Fatalf("question %x went on, which is for type %d of %q", message, read.Type, read.AppendName(nil))
		}
		got, _, ok := o.g.Questions().Take(w.asks.source(), w.server, read.ID, nil)
		if !ok || !bytes.Equal(got, message) {
			t.Fatalf("question %x went on, remembered as %x", message, got)
		}
	}
	for range rounds {
		q := m.question()
		if !asks(q.bytes()) {
			continue
		}
		message := m.mutate(m.answer(q).bytes())
		if w.answer(message).action != actionSend {
			o.must(empty(o.g.objs.HgDnsAsked1))
			continue
		}
		came++
		m.isAsTold(t, q, message)
	}
	events := o.recorded()
	if len(events) != came {
		t.Errorf("%d answers went on, %d were recorded", came, len(events))
	}
	if t.Logf("of %d each, %d questions and %d answers went on", rounds, went, came); went < fewest || came < fewest {
		t.Error("that shows nothing")
	}
}

// isAsTold reads an answer that went on as the proxy does.
func (m messages) isAsTold(t *testing.T, q dnsQuery, message []byte) {
	t.Helper()
	var asked, answer dns.Message
	var found dns.Found
	err := asked.ParseQuery(q.bytes())
	if err == nil {
		err = answer.ParseAnswer(message)
	}
	if err == nil {
		err = answer.Find(&found)
	}
	if err != nil {
		t.Fatalf("answer %x went on: %v", message, err)
	}
	if answer.ID != asked.ID || !bytes.Equal(answer.Question(), asked.Question()) || len(message) > asked.Takes() || answer.Truncated() {
		t.Fatalf("answer %x went on, which is none to %x", message, q.bytes())
	}
	if answer.Rcode != dns.NoError || len(found.Chain) != 0 || len(found.Records) == 0 || answer.Answers > MostAddresses {
		t.Fatalf("answer %x went on, which says %+v", message, found)
	}
	for _, r := range found.Records {
		if !slices.Contains(m.told[q.typ], r.Addr) || r.TTL > 3600 {
			t.Fatalf("answer %x went on, which says %+v", message, r)
		}
	}
}
