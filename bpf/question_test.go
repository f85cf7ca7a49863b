package bpf

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const round = 7

// dnsQuery is a question of the DNS, byte by byte.
type dnsQuery struct {
	id, flags                           uint16
	questions, answers, authority, adds uint16
	name                                []byte // on the wire
	typ, class                          uint16
	behind                              []byte
}

func wireName(labels ...string) (b []byte) {
	for _, l := range labels {
		b = append(append(b, byte(len(l))), l...)
	}
	return append(b, 0)
}

func ask(labels ...string) dnsQuery {
	return dnsQuery{id: 0x1234, flags: 0x0100, questions: 1, name: wireName(labels...), typ: 1, class: 1}
}

func (q dnsQuery) bytes() (b []byte) {
	for _, v := range []uint16{q.id, q.flags, q.questions, q.answers, q.authority, q.adds} {
		b = binary.BigEndian.AppendUint16(b, v)
	}
	b = append(b, q.name...)
	b = binary.BigEndian.AppendUint16(b, q.typ)
	b = binary.BigEndian.AppendUint16(b, q.class)
	return append(b, q.behind...)
}

// opt is an OPT record (RFC 6891, 6.1.2).
func opt(size uint16, options ...byte) []byte {
	b := []byte{0, 0, 41, byte(size >> 8), byte(size), 0, 0, 0x80, 0, byte(len(options) >> 8), byte(len(options))}
	return append(b, options...)
}

// asks is a question from a to b.
func (l *lab) asks(v6 bool, message []byte) frame {
	f := l.udp(v6, 40000, 53)
	f.payload = message
	return f
}

// knows has the proxy's socket and its judgement there.
func (l *lab) knows(v6 bool, q dnsQuery) {
	l.Helper()
	at := "127.0.0.1:0"
	if v6 {
		at = "[::1]:0"
	}
	l.reset(redirecting(setDNS, 0))
	l.must(empty(l.g.objs.HgDnsAsked1))
	l.must(empty(l.g.objs.HgDnsKnown1))
	l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), datagrams(l.TB, at, redirect.MarkFromProxy)))
	l.must(l.g.Questions().SetKnownRound(round))
	l.must(l.g.Questions().Know(round, setDNS, 0, bytes.ToLower(q.name), q.typ))
}

// rules puts others in force than knows does.
func (l *lab) rules(egress, ingress uint32) {
	l.Helper()
	was, _ := redirecting(setDNS, 0)
	a, b := redirecting(egress, ingress)
	l.must(l.g.SyncPolicy(subjectA, was, a))
	l.must(l.g.SyncPolicy(subjectB, everything(), b))
}

// past sends a question that is to go on without the proxy, and takes out what is remembered.
func (l *lab) past(what string, f frame) {
	l.Helper()
	r := l.sends(l.a, f)
	l.delivered(what, r)
	message, at, ok := l.g.Questions().Take(f.source(), f.target(), binary.BigEndian.Uint16(f.payload), nil)
	if !ok || !bytes.Equal(message, f.payload) || at <= 0 {
		l.Errorf("%s: remembered %x at %v, %v", what, message, at, ok)
	}
	l.forget()
}

// waiting is how many went on before a time and were not taken.
func (l *lab) waiting(before time.Duration) (n int) {
	l.Helper()
	l.must(l.g.Questions().Before(before, func(_, _ netip.AddrPort, _ uint16) { n++ }))
	return n
}

// proxys sends one that the proxy is to have.
func (l *lab) proxys(what string, f frame) {
	l.Helper()
	if r, got := l.sends(l.a, f), l.counted(); r.action != actionShot || got != foundSocket {
		l.Errorf("%s: action %d, counted %q", what, r.action, got)
	}
	if n := l.waiting(1 << 62); n != 0 {
		l.Errorf("%s: %d are remembered", what, n)
	}
	l.forget()
}

// A question that the proxy has allowed before goes to its server, once for each time it is
// asked, whichever way it is written; its answer is the proxy's.
func TestKnownQuestionsGoPast(t *testing.T) {
	l := newLab(t)
	for family, v6 := range families {
		known := ask("www", "example", "org")
		for name, change := range map[string]func(*dnsQuery){
			"plain":         func(*dnsQuery) {},
			"0x20":          func(q *dnsQuery) { q.name = wireName("wWw", "eXamPLE", "ORG") },
			"flags":         func(q *dnsQuery) { q.flags = 0x0130 },
			"no recursion":  func(q *dnsQuery) { q.flags = 0 },
			"EDNS":          func(q *dnsQuery) { q.adds, q.behind = 1, opt(1232) },
			"EDNS, option":  func(q *dnsQuery) { q.adds, q.behind = 1, opt(512, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8) },
			"EDNS, no size": func(q *dnsQuery) { q.adds, q.behind = 1, opt(0) },
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				l := l.in(t)
				l.knows(v6, known)
				q := known
				change(&q)
				f := l.asks(v6, q.bytes())
				l.past("first", f)
				l.past("again", f)
				if r, got := l.answers(f, 0), l.counted(); r.action != actionShot || got != foundSocket {
					t.Errorf("answer: action %d, counted %q", r.action, got)
				}
			})
		}
	}
}

// The longest names and types that the gate looks for, and what is known of others.
func TestQuestionsAreKnownWhole(t *testing.T) {
	l := newLab(t)
	long := []string{strings.Repeat("a", 63), strings.Repeat("b", 30)} // 96 bytes on the wire
	for name, c := range map[string]struct {
		known, asked dnsQuery
		past         bool
	}{
		"longest":         {ask(long...), ask(long...), true},
		"one more":        {ask("a"), ask(long[0], long[1]+"b"), false},
		"root":            {ask(), ask(), true},
		"label of 63":     {ask(long[0]), ask(long[0]), true},
		"shorter":         {ask("www", "example", "org"), ask("example", "org"), false},
		"longer":          {ask("example", "org"), ask("www", "example", "org"), false},
		"other labels":    {ask("a", "b"), ask("a.b"), false},
		"a length is 'A'": {ask("a"), dnsQuery{flags: 0x100, questions: 1, name: append([]byte{'A'}, bytes.Repeat([]byte{'x'}, 80)...), typ: 1, class: 1}, false},
		"other type":      {ask("a"), func() dnsQuery { q := ask("a"); q.typ = 28; return q }(), false},
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.knows(false, c.known)
			f := l.asks(false, c.asked.bytes())
			if c.past {
				l.past("asked", f)
			} else {
				l.proxys("asked", f)
			}
		})
	}
}

// Whatever is not exactly one plain question is read by the proxy, though it begins with one
// that is known.
func TestOddQuestionsAreTheProxys(t *testing.T) {
	l := newLab(t)
	known := ask("www", "example", "org")
	odd := map[string][]byte{}
	for bit := range 16 {
		if q := known; 1<<bit&0x0130 == 0 {
			q.flags |= 1 << bit
			odd[fmt.Sprintf("flag %04x", 1<<bit)] = q.bytes()
		}
	}
	for name, change := range map[string]func(*dnsQuery){
		"no question":       func(q *dnsQuery) { q.questions = 0 },
		"two questions":     func(q *dnsQuery) { q.questions = 2; q.behind = known.bytes()[dnsHeader:] },
		"256 questions":     func(q *dnsQuery) { q.questions = 256 },
		"257 questions":     func(q *dnsQuery) { q.questions = 257 },
		"an answer":         func(q *dnsQuery) { q.answers = 1 },
		"an authority":      func(q *dnsQuery) { q.authority = 1 },
		"class CH":          func(q *dnsQuery) { q.class = 3 },
		"class ANY":         func(q *dnsQuery) { q.class = 255 },
		"bytes behind":      func(q *dnsQuery) { q.behind = []byte{0} },
		"no OPT":            func(q *dnsQuery) { q.adds = 1 },
		"half an OPT":       func(q *dnsQuery) { q.adds, q.behind = 1, opt(1232)[:10] },
		"OPT takes more":    func(q *dnsQuery) { q.adds, q.behind = 1, opt(1233) },
		"two OPT":           func(q *dnsQuery) { q.adds, q.behind = 2, append(opt(512), opt(512)...) },
		"one OPT of two":    func(q *dnsQuery) { q.adds, q.behind = 1, append(opt(512), opt(512)...) },
		"OPT not counted":   func(q *dnsQuery) { q.behind = opt(512) },
		"OPT has a name":    func(q *dnsQuery) { q.adds, q.behind = 1, append([]byte{1, 'a'}, opt(512)...) },
		"OPT is longer":     func(q *dnsQuery) { q.adds, q.behind = 1, append(opt(512, 1, 2, 3, 4), 0) },
		"OPT is shorter":    func(q *dnsQuery) { q.adds, q.behind = 1, opt(512, 1, 2, 3, 4)[:14] },
		"OPT version 1":     func(q *dnsQuery) { q.adds, q.behind = 1, opt(512); q.behind[6] = 1 },
		"OPT extended code": func(q *dnsQuery) { q.adds, q.behind = 1, opt(512); q.behind[5] = 1 },
		"a signature": func(q *dnsQuery) {
			q.adds, q.behind = 1, opt(512)
			q.behind[2] = 250
		},
		"a pointer":      func(q *dnsQuery) { q.name = []byte{0xc0, 12} },
		"pointer behind": func(q *dnsQuery) { q.name = append(wireName("www")[:4], 0xc0, 12) },
		"reserved label": func(q *dnsQuery) { q.name[0] = 0x43 },
		"extended label": func(q *dnsQuery) { q.name[0] = 0x80 },
		"never ends":     func(q *dnsQuery) { q.name = bytes.Repeat([]byte{1, 'a'}, 50) },
	} {
		q := known
		q.name = slices.Clone(q.name)
		change(&q)
		odd[name] = q.bytes()
	}
	whole := known.bytes()
	for n := range len(whole) {
		odd[fmt.Sprintf("%d bytes of it", n)] = whole[:n]
	}
	l.knows(false, known)
	for name, message := range odd {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.must(empty(l.g.objs.HgCtAny1))
			l.proxys("asked", l.asks(false, message))
		})
	}
	l.past("the known one", l.asks(false, whole))
}

// dnsHeader is the length of a message's header.
const dnsHeader = 12

// The length of a datagram is not only what its header says.
func TestQuestionsOfOddLength(t *testing.T) {
	l := newLab(t)
	known := ask("www", "example", "org")
	l.knows(false, known)
	for name, change := range map[string]func(body []byte) []byte{
		"bytes behind the datagram": func(b []byte) []byte { return append(b, 0, 0, 0, 0) },
		"says more":                 func(b []byte) []byte { b[5]++; return b },
		"says less":                 func(b []byte) []byte { b[5]--; return b },
		"says nothing":              func(b []byte) []byte { b[4], b[5] = 0, 0; return b },
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.must(empty(l.g.objs.HgCtAny1))
			f := l.asks(false, known.bytes())
			f.body = change(f.transport())
			f.proto = protoUDP
			l.sends(l.a, f)
			if n := l.waiting(1 << 62); n != 0 {
				t.Errorf("%d are remembered", n)
			}
		})
	}
	for family, v6 := range families {
		t.Run("the packet says less, "+family, func(t *testing.T) {
			l := l.in(t)
			l.knows(v6, known)
			packet := l.asks(v6, known.bytes()).bytes()
			packet[lengthAt(v6)]--
			if r, got := l.run(l.g.objs.HgFromWorkload, l.a.ifindex, 0, packet), l.counted(); r.action != actionShot || got != foundSocket {
				t.Errorf("action %d, counted %q", r.action, got)
			}
		})
	}
}

// lengthAt is where a packet says how long it is, the lower byte.
func lengthAt(v6 bool) int {
	if v6 {
		return 14 + 5
	}
	return 14 + 3
}

// What the proxy knows holds for the sets and the round it was judged in, while the proxy is
// there, and while the connection may be.
func TestQuestionsThatDoNotGoPast(t *testing.T) {
	l := newLab(t)
	known := ask("www", "example", "org")
	f := l.asks(false, known.bytes())
	q := l.g.Questions()
	for name, change := range map[string]func(*lab){
		"another round":    func(l *lab) { l.must(q.SetKnownRound(round + 1)) },
		"no round":         func(l *lab) { l.must(q.SetKnownRound(0)) },
		"of no round":      func(l *lab) { l.must(q.SetKnownRound(0)); l.must(q.Know(0, setDNS, 0, known.name, 1)) },
		"another set":      func(l *lab) { l.rules(setDNS+1, 0) },
		"ingress set too":  func(l *lab) { l.rules(setDNS, setDNS) },
		"of the other end": func(l *lab) { l.must(empty(l.g.objs.HgDnsKnown1)); l.must(q.Know(round, 0, setDNS, known.name, 1)) },
	} {
		t.Run(name, func(t *testing.T) {
			l := l.in(t)
			l.knows(false, known)
			change(l)
			l.proxys("asked", f)
		})
	}
	t.Run("the proxy is dead", func(t *testing.T) {
		l := l.in(t)
		l.knows(false, known)
		l.must(l.g.SetRoute(AnyRoute(policy.ProtocolDNS), deadPort))
		if r, got := l.sends(l.a, f), l.counted(); r.action != actionShot || got != "0 egress, 232 egress" {
			t.Errorf("asked: action %d, counted %q", r.action, got)
		}
	})
	t.Run("asked twice under one id", func(t *testing.T) { // the second is the proxy's, which may know it is the same
		l := l.in(t)
		l.knows(false, known)
		l.delivered("first", l.sends(l.a, f))
		l.forget()
		if r, got := l.sends(l.a, f), l.counted(); r.action != actionShot || got != foundSocket {
			t.Errorf("second: action %d, counted %q", r.action, got)
		}
	})
	t.Run("to the host", func(t *testing.T) {
		l := l.in(t)
		l.knows(false, known)
		l.proxys("asked", f.to(host4))
	})
	t.Run("one hop left", func(t *testing.T) { // the proxy sends it anew
		l := l.in(t)
		l.knows(false, known)
		f := f
		f.ttl = 1
		l.proxys("asked", f)
	})
	t.Run("by no set", func(t *testing.T) {
		if q.Know(round, 0, 0, known.name, 1) == nil {
			t.Error("it is known")
		}
	})
	t.Run("denied since", func(t *testing.T) {
		l := l.in(t)
		l.knows(false, known)
		l.past("before", f)
		a, _ := redirecting(setDNS, 0)
		l.must(l.g.SyncPolicy(subjectA, a, PolicyTable{}))
		l.must(l.g.SetRevision(2))
		k := gateDnsKnownKey{Round: round, Type: known.typ, Length: uint16(len(known.name))} // of no set
		copy(k.Name[:], known.name)
		l.must(l.g.objs.HgDnsKnown1.Put(&k, uint8(1)))
		l.sends(l.a, f)
		if n := l.waiting(1 << 62); n != 0 {
			t.Errorf("%d are remembered", n)
		}
	})
}

// Both sets count, each on its side.
func TestQuestionsBySetsOfBothEnds(t *testing.T) {
	l := newLab(t)
	known := ask("www", "example", "org")
	l.knows(false, known)
	l.must(empty(l.g.objs.HgDnsKnown1))
	l.rules(setDNS, setDNS+1)
	l.must(l.g.Questions().Know(round, setDNS, setDNS+1, known.name, 1))
	l.past("asked", l.asks(false, known.bytes()))
}

// Those that wait can be listed by how long they do.
func TestQuestionsBefore(t *testing.T) {
	l := newLab(t)
	known := ask("www", "example", "org")
	l.knows(true, known)
	for port := range uint16(700) {
		f := l.asks(true, known.bytes())
		f.sport = 1000 + port
		l.sends(l.a, f)
	}
	q := l.g.Questions()
	if n := l.waiting(1 << 62); n != 700 {
		t.Fatalf("%d wait", n)
	}
	var first, last time.Duration
	l.must(q.Before(1<<62, func(client, server netip.AddrPort, id uint16) {
		if id != known.id || server.Port() != 53 || client.Addr() != l.a.v6 {
			t.Fatalf("asked: %s of %s as %#x", client, server, id)
		}
		if client.Port() != 1000 && client.Port() != 1699 {
			return
		}
		_, at, ok := q.Take(client, server, id, nil)
		if !ok {
			t.Fatalf("%s of %s cannot be taken", client, server)
		}
		if client.Port() == 1000 {
			first = at
		} else {
			last = at
		}
		if _, _, ok := q.Take(client, server, id, nil); ok {
			t.Fatalf("%s of %s is taken twice", client, server)
		}
	}))
	if n := l.waiting(first); n != 0 || first == 0 {
		t.Errorf("%d before the first, at %v", n, first)
	}
	if n := l.waiting(last); n != 698 {
		t.Errorf("%d before the last, at %v", n, last)
	}
}
