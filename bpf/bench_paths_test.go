package bpf

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// testRun is what BPF_PROG_TEST_RUN takes: with a context, which says by which device
// and with which mark a packet comes, it also tells how long the program took.
type testRun struct {
	prog, action       uint32
	dataSize, outSize  uint32
	data, out          uint64
	repeat, duration   uint32
	ctxSize, ctxOut    uint32
	ctxIn, ctxOutAt    uint64
	flags, cpu, batch_ uint32
	_                  uint32
}

// timed runs a program on a packet, some times over, and returns the mean in ns.
func (l *lab) timed(p *ebpf.Program, ifindex int, mark uint32, packet []byte, repeat uint32) (action, ns uint32) {
	l.Helper()
	in := skb{Mark: mark, Ifindex: uint32(ifindex)}
	run := &testRun{
		prog: uint32(p.FD()), dataSize: uint32(len(packet)), data: uint64(uintptr(unsafe.Pointer(&packet[0]))), repeat: repeat,
		ctxSize: uint32(unsafe.Sizeof(in)), ctxIn: uint64(uintptr(unsafe.Pointer(&in))),
	}
	const progTestRun = 10
	errno := unix.EINTR
	for errno == unix.EINTR {
		_, _, errno = unix.Syscall(unix.SYS_BPF, progTestRun, uintptr(unsafe.Pointer(run)), unsafe.Sizeof(*run))
	}
	runtime.KeepAlive(packet)
	runtime.KeepAlive(&in)
	if errno != 0 {
		l.Fatal("run a program:", errno)
	}
	return run.action, run.duration
}

// path is one way through a program. What a packet leaves behind is put back as it was
// before the next, which therefore runs alone and on colder caches; so it is the middle
// one that counts. What is handed from workload to workload is in BenchmarkEstablished:
// the kernel runs a program again on what it made of the packet.
type path struct {
	name    string
	program func(*gateObjects) *ebpf.Program
	ifindex func(*lab) int
	mark    uint32
	action  uint32
	again   func(*lab, frame) // nil: nothing is to be put back
	prepare func(*lab, bool) frame
}

func fromWorkload(o *gateObjects) *ebpf.Program { return o.HgFromWorkload }
func toWorkload(o *gateObjects) *ebpf.Program   { return o.HgToWorkload }
func ofA(l *lab) int                            { return l.a.ifindex }
func ofB(l *lab) int                            { return l.b.ifindex }

// forgetOpened forgets the connection that a packet has opened.
func forgetOpened(l *lab, f frame) { l.must(l.g.objs.HgCtAny1.Delete(f.key())) }

func paths() []path {
	return []path{
		{"new, allowed", fromWorkload, ofA, 0, actionSend, forgetOpened, func(l *lab, v6 bool) frame {
			l.reset(PolicyTable{egress(identityB, policy.ProtoTCP, 80, 16): allow(1)}, PolicyTable{ingress(identityA, policy.ProtoTCP, 80, 16): allow(1)})
			return l.tcp(v6, 40000, 80, syn)
		}},
		{"new, denied", fromWorkload, ofA, 0, actionShot, nil, func(l *lab, v6 bool) frame {
			l.reset(PolicyTable{}, nil)
			return l.tcp(v6, 40000, 80, syn)
		}},
		// The kernel assigns sockets at a device's ingress only, so this ends one step early.
		{"redirected", fromWorkload, ofA, 0, actionShot, nil, func(l *lab, v6 bool) frame {
			l.reset(redirecting(setOne, 0))
			addr := "127.0.0.1:0"
			if v6 {
				addr = "[::1]:0"
			}
			l.must(l.g.SetRoute(AnyRoute(1), listen(l, addr)))
			f := l.tcp(v6, 40000, 80, syn)
			l.sends(l.a, f)
			return f
		}},
		{"proxy to workload", toWorkload, ofB, redirect.MarkFromProxy, actionOK, nil, func(l *lab, v6 bool) frame {
			l.reset(PolicyTable{}, PolicyTable{})
			f := l.tcp(v6, 45000, 80, 0)
			l.gets(l.b, f.with(syn), redirect.MarkFromProxy)
			return f.with(ack)
		}},
		{"host to workload, established", toWorkload, ofA, 0, actionOK, nil, func(l *lab, v6 bool) frame {
			l.reset(nil, nil)
			f := l.fromHost(v6, syn)
			l.gets(l.a, f, 0)
			l.answers(f, syn|ack)
			f = f.with(ack)
			l.gets(l.a, f, 0)
			return f
		}},
	}
}

// BenchmarkPath is the kernel's own time of a packet on each way.
func BenchmarkPath(b *testing.B) {
	l := newLab(b)
	for _, p := range append(paths(), dnsPaths()...) {
		for _, family := range []string{"IPv4", "IPv6"} {
			b.Run(p.name+"/"+family, func(b *testing.B) {
				l := l.in(b)
				l.walk(b, p, p.prepare(l, families[family]))
			})
		}
	}
}

// exactly has n rules for a peer and a port each, port 80 among them. Tables of one
// shape differ in size alone: a range of ports more would cost a probe more.
func exactly(n int) PolicyTable {
	t := PolicyTable{egress(identityB, policy.ProtoTCP, 80, 16): allow(1)}
	for port := uint16(10_000); len(t) < n; port++ {
		t[egress(identityB, policy.ProtoTCP, port, 16)] = allow(1)
	}
	return t
}

// BenchmarkAllowed holds what a new connection costs against the number of rules.
func BenchmarkAllowed(b *testing.B) { benchSizes(b, paths()[0], 80) }

// BenchmarkUnmatched does so for one that no rule allows.
func BenchmarkUnmatched(b *testing.B) { benchSizes(b, paths()[1], 81) }

func benchSizes(b *testing.B, p path, port uint16) {
	l := newLab(b)
	for _, n := range []int{1, 100, 10_000, 50_000} {
		l.reset(exactly(n), nil)
		b.Run(fmt.Sprintf("entries=%d", n), func(b *testing.B) {
			l := l.in(b)
			l.walk(b, p, l.tcp(false, 40000, port, syn))
		})
	}
}

// walk measures one path.
func (l *lab) walk(b *testing.B, p path, f frame) {
	b.Helper()
	f.ttl = 255
	packet, program, ifindex := f.bytes(), p.program(&l.g.objs), p.ifindex(l)
	repeat := uint32(repeats)
	if p.again != nil {
		repeat = 1
	}
	var all []uint32
	for n := 0; n < b.N; n += int(repeat) {
		action, ns := l.timed(program, ifindex, p.mark, packet, repeat)
		if action != p.action {
			b.Fatalf("action %d, want %d; counted %.200s", action, p.action, l.counted())
		}
		all = append(all, ns)
		b.StopTimer()
		l.seen()
		if p.again != nil {
			p.again(l, f)
		}
		b.StartTimer()
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2]), "ns/packet")
	b.ReportMetric(0, "ns/op") // has the cost of starting each run in it
}
