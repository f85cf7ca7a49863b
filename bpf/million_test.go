package bpf

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// fillConnections writes n established connections of others.
func (l *lab) fillConnections(n int) {
	l.Helper()
	keys, entries := make([]gateCtKey, 4096), make([]gateCtEntry, 4096)
	for done := 0; done < n; {
		batch := min(len(keys), n-done)
		for i := range batch {
			k := &keys[i]
			*k = gateCtKey{Port: [2]uint16{uint16(done + i), 80}, Proto: protoTCP}
			k.Addr[0].B, k.Addr[1].B = mustAddr("10.9.0.1").As16(), mustAddr("10.200.0.1").As16()
			binary.BigEndian.PutUint32(k.Addr[0].B[12:], uint32(done+i)|10<<24)
			entries[i] = gateCtEntry{Expires: math.MaxInt64, Payer: 9}
		}
		_, err := l.g.objs.HgCtTcp1.BatchUpdate(keys[:batch], entries[:batch], nil)
		l.must(err)
		done += batch
	}
}

// available is the memory that the kernel could still give, in bytes.
func available(b testing.TB) int64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		b.Fatal(err)
	}
	var kib int64
	for _, line := range strings.Split(string(text), "\n") {
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			break
		}
	}
	return kib << 10
}

// What a packet of a known connection, and a new connection, cost beside many.
func BenchmarkConnections(b *testing.B) {
	for _, n := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("open=%d", n), func(b *testing.B) {
			l := newLab(b, func(o *Options) { o.MaxConnections = 1 << 20 })
			l.a.ifindex, l.a.mac = 1, gatewayMAC
			l.reset(nil, nil)
			before := available(b)
			l.fillConnections(n)
			taken := before - available(b)
			f := l.tcp(false, 40000, 80, 0)
			l.open(f)
			l.perPacket(b, l.g.objs.HgFromWorkload, f.with(ack), actionSend)
			if n >= 1_000_000 { // less are lost in what else the machine does
				b.ReportMetric(float64(taken)/float64(n), "bytes/connection")
			}
		})
	}
}

// A pass over a million connections, with its pauses: how long it takes and how much
// of a processor.
func BenchmarkCollect(b *testing.B) {
	l := newLab(b, func(o *Options) { o.MaxConnections = 1 << 20 })
	l.fillConnections(1_000_000)
	ct := l.g.Conntrack()
	runtime.GC()
	var cpu time.Duration
	b.ResetTimer()
	for range b.N {
		before := processorTime(b)
		if n, err := ct.Collect(b.Context()); n != 0 || err != nil {
			b.Fatal(n, err)
		}
		cpu += processorTime(b) - before
	}
	b.ReportMetric(float64(cpu.Milliseconds())/float64(b.N), "cpu-ms/pass")
	b.ReportMetric(100*cpu.Seconds()/b.Elapsed().Seconds(), "%cpu")
}

func processorTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A million connections are collected and told of without being read at once, and
// those of others are found.
func TestManyConnections(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxConnections = 60_000 })
	l.fillConnections(50_000)
	if u := l.usage()["ct-tcp"]; u.Entries != 50_000 {
		t.Errorf("usage %+v", u)
	}
	if n, err := l.g.Conntrack().Collect(t.Context()); n != 0 || err != nil {
		t.Errorf("collected %d, %v", n, err)
	}
	if got := l.g.Shares(); len(got) != 1 || got[0] != (Share{9, 50_000}) {
		t.Errorf("shares %+v were not put right", got)
	}
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	l.delivered("among many", l.sends(l.a, f.with(ack)))
}
