package bpf

import (
	"context"
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/headgate/headgate/policy"
)

// dnsPaths are those of questions and answers: past the proxy, to its socket, and of
// datagrams that are not its business.
func dnsPaths() []path {
	q := ask("www", "example", "org")
	q.adds, q.behind = 1, opt(1232)
	told := addressesOf(1, 4)
	reply := q.answered(60, told...)
	reply.adds, reply.behind = 1, opt(1232)
	begin := func(l *lab, v6 bool) (asks, answers frame) {
		l.knows(v6, q)
		asks = l.asks(v6, q.bytes())
		answers = asks.reversed(0)
		answers.srcMAC, answers.dstMAC, answers.payload = l.b.mac, gatewayMAC, reply.bytes()
		return asks, answers
	}
	remembered := func(l *lab, f frame, again bool) {
		k := gateDnsAskedKey{Client: toAddr(f.dst), Server: toAddr(f.src), ClientPort: f.dport, ServerPort: f.sport, Id: q.id}
		v := gateDnsAsked{At: uint64(monotonic()), Length: uint32(len(q.bytes())), Name: uint32(len(q.name))}
		copy(v.Message[:], q.bytes())
		l.must(ignoreMissing(l.g.objs.HgDnsAsked1.Delete(&k)))
		if again {
			l.must(l.g.objs.HgDnsAsked1.Put(&k, &v))
		}
	}
	nothing, sent := func(*lab, frame) {}, 0
	return []path{
		{"question, not the proxy's", fromWorkload, ofA, 0, actionSend, nothing, func(l *lab, v6 bool) frame {
			l.reset(nil, nil)
			f := l.asks(v6, q.bytes())
			l.sends(l.a, f)
			return f
		}},
		{"question, to the proxy", fromWorkload, ofA, 0, actionShot, nothing, func(l *lab, v6 bool) frame {
			f, _ := begin(l, v6)
			l.must(empty(l.g.objs.HgDnsKnown1))
			l.sends(l.a, f)
			return f
		}},
		{"question, past it", fromWorkload, ofA, 0, actionSend, func(l *lab, f frame) {
			if _, _, ok := l.g.Questions().Take(f.source(), f.target(), binary.BigEndian.Uint16(f.payload), nil); !ok {
				l.Fatal("it is not remembered")
			}
			l.must(l.g.objs.HgDnsPace1.Put(uint32(l.a.id), [2]uint32{}))
		}, func(l *lab, v6 bool) frame {
			f, _ := begin(l, v6)
			l.sends(l.a, f)
			l.must(empty(l.g.objs.HgDnsAsked1))
			return f
		}},
		{"answer, to the proxy", fromWorkload, ofB, 0, actionShot, nothing, func(l *lab, v6 bool) frame {
			asks, answers := begin(l, v6)
			l.sends(l.a, asks)
			remembered(l, answers, false)
			return answers
		}},
		{"answer, past it", fromWorkload, ofB, 0, actionSend, func(l *lab, f frame) {
			remembered(l, f, true)
			if sent++; sent%5000 == 0 { // which find room
				l.heard()
			}
		}, func(l *lab, v6 bool) frame {
			asks, answers := begin(l, v6)
			l.must(l.g.Questions().SetToldRound(round))
			l.must(l.g.Questions().Tell(round, l.a.id, q.name, q.typ, told, make([]policy.Identity, len(told)), 1<<62, 0))
			l.sends(l.a, asks)
			l.heard()
			return answers
		}},
	}
}

// heard empties what is told of answers.
func (l *lab) heard() {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	l.must(l.g.Questions().Read(over, 1, 1, func(netip.AddrPort, netip.AddrPort, time.Duration, time.Duration, []byte, []byte) {}))
}
