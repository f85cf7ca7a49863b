package bpf

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// A delivered packet loses a hop each time that the kernel repeats the program.
const repeats = 200

// perPacket reports the kernel's own time of a packet that a sends. The ring is
// emptied in between, unmeasured, so that events cost what they cost with a reader.
func (l *lab) perPacket(b *testing.B, p *ebpf.Program, f frame, action uint32) {
	b.Helper()
	f.ttl = 255
	packet := f.bytes()
	var total time.Duration
	n := 0
	b.ResetTimer()
	for n < b.N {
		got, mean, err := p.Benchmark(packet, repeats, nil)
		if err != nil || got != action {
			b.Fatalf("action %d, %v; counted %.200s", got, err, l.counted())
		}
		total += mean * repeats
		n += repeats
		b.StopTimer()
		l.seen()
		b.StartTimer()
	}
	b.ReportMetric(float64(total.Nanoseconds())/float64(n), "ns/packet")
	b.ReportMetric(0, "ns/op") // has the cost of starting each run in it
}

// benchLab has a on the loopback device: it is what the kernel takes for a packet
// that names none, and a benchmark cannot name one. Its link address is the
// gateway's: that stands in a packet that was delivered, and comes again.
func benchLab(b *testing.B, a, c PolicyTable) *lab {
	b.Helper()
	l := newLab(b)
	l.a.ifindex, l.a.mac = 1, gatewayMAC
	l.reset(a, c)
	return l
}

func BenchmarkEstablished(b *testing.B) {
	for family, v6 := range families {
		b.Run(family, func(b *testing.B) {
			l := benchLab(b, nil, nil)
			f := l.tcp(v6, 40000, 80, 0)
			l.open(f)
			l.perPacket(b, l.g.objs.HgFromWorkload, f.with(ack), actionSend)
		})
	}
}

// tableOf has n entries for other peers and ports, then one for everybody.
func tableOf(n int, last PolicyEntry) PolicyTable {
	t := PolicyTable{egress(0, 0, 0, 0): last, ingress(0, 0, 0, 0): allow(1)}
	for i := 1; len(t) <= n; i++ {
		bits := uint8(16 - i%4) // ranges as well
		t[egress(policy.Identity(5000+i/1000), policy.ProtoTCP, uint16(i%1000)<<(16-bits), bits)] = allow(1)
	}
	return t
}

// A new connection each time: to denied packets nothing is remembered.
func BenchmarkDenied(b *testing.B) {
	for _, n := range []int{1, 1000, 50_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			l := benchLab(b, tableOf(n, deny(1)), nil)
			l.perPacket(b, l.g.objs.HgFromWorkload, l.tcp(false, 40000, 80, syn), actionShot)
		})
	}
}

// What a packet costs before policy is asked: parsing, who sent it, conntrack, and
// the event of its drop.
func BenchmarkNoConnection(b *testing.B) {
	l := benchLab(b, nil, nil)
	l.perPacket(b, l.g.objs.HgFromWorkload, l.tcp(false, 40000, 80, ack), actionShot)
}

// The size of the table is nothing to a connection that is known.
func BenchmarkEstablishedTables(b *testing.B) {
	for _, n := range []int{1, 1000, 50_000} {
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			l := benchLab(b, tableOf(n, allow(1)), nil)
			f := l.tcp(false, 40000, 80, 0)
			l.open(f)
			l.perPacket(b, l.g.objs.HgFromWorkload, f.with(ack), actionSend)
		})
	}
}

// What the host's own traffic pays for being passed by.
func BenchmarkHostPasses(b *testing.B) {
	for family, v6 := range families {
		l := benchLab(b, nil, nil)
		l.must(l.g.SetNodeAddresses([]netip.Addr{node4, node6}))
		f := l.tcp(v6, 40000, 443, ack).to(pick(v6, world4, world6))
		f.src = pick(v6, node4, node6)
		b.Run(family+" leaving", func(b *testing.B) { l.perPacket(b, l.g.objs.HgToNetwork, f, actionNext) })
		f = f.reversed(ack)
		f.dstMAC = make([]byte, 6) // the loopback device's
		b.Run(family+" entering", func(b *testing.B) { l.perPacket(b, l.g.objs.HgFromNetwork, f, actionNext) })
	}
}
