package bpf

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
)

var hooks = []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress}

// attached are the ids of the programs at a hook, first to last.
func (l *lab) attached(ifindex int, at ebpf.AttachType) []ebpf.ProgramID {
	l.Helper()
	res, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: at})
	l.must(err)
	var out []ebpf.ProgramID
	for _, p := range res.Programs {
		out = append(out, p.ID)
	}
	return out
}

func programID(t testing.TB, p *ebpf.Program) ebpf.ProgramID {
	t.Helper()
	info, err := p.Info()
	if err != nil {
		t.Fatal(err)
	}
	id, _ := info.ID()
	return id
}

func (l *lab) reload(maps *Maps) *Gate {
	l.Helper()
	g, err := Load(Options{Gateway4: gateway4, Gateway6: gateway6, GatewayMAC: gatewayMAC, HostIfindex: l.host}, maps)
	l.must(err)
	l.Cleanup(func() { g.Close() })
	return g
}

// Whoever comes next finds every map by what is attached, on a workload's device
// as on the host's.
func TestAttachedMaps(t *testing.T) {
	l := newLab(t)
	if _, err := AttachedMaps(l.a.ifindex); !errors.Is(err, ErrNotAttached) {
		t.Fatalf("nothing is attached, but: %v", err)
	}
	l.must(l.g.AttachWorkload(l.a.ifindex))
	l.must(l.g.AttachHost(l.host))
	spec, err := loadGate()
	l.must(err)
	var want []string
	for name := range spec.Maps {
		if !strings.HasPrefix(name, ".") {
			want = append(want, name)
		}
	}
	slices.Sort(want)
	for name, ifindex := range map[string]int{"workload": l.a.ifindex, "host": l.host} {
		found, err := AttachedMaps(ifindex)
		l.must(err)
		var got []string
		for name := range found.byName {
			got = append(got, name)
		}
		slices.Sort(got)
		found.Close()
		if !slices.Equal(got, want) {
			t.Errorf("%s: found %v, want %v", name, got, want)
		}
	}
	if _, err := AttachedMaps(l.b.ifindex); !errors.Is(err, ErrNotAttached) {
		t.Errorf("nothing is attached there, but: %v", err)
	}
}

// A gate is replaced by the next with all that it knows, and what is attached
// outlives who attached it.
func TestAdopt(t *testing.T) {
	l := newLab(t, func(o *Options) { o.MaxConnections, o.MaxPolicy = 1000, 2000 })
	f := l.tcp(false, 40000, 80, 0)
	l.open(f)
	l.must(l.g.SetRevision(9))
	l.must(l.g.AttachWorkload(l.a.ifindex))
	l.must(l.g.Close())
	for _, at := range hooks {
		if n := len(l.attached(l.a.ifindex, at)); n != 1 {
			t.Fatalf("%d programs at %s after the gate was closed", n, at)
		}
	}
	found, err := AttachedMaps(l.a.ifindex)
	l.must(err)
	defer found.Close()
	before := l.attached(l.a.ifindex, ebpf.AttachTCXIngress)
	l.g = l.reload(found)
	l.must(l.g.AttachWorkload(l.a.ifindex))
	if now := l.attached(l.a.ifindex, ebpf.AttachTCXIngress); len(now) != 1 || now[0] == before[0] {
		t.Errorf("attached: %v, before %v", now, before)
	}
	if n := l.g.objs.HgCtTcp1.MaxEntries(); n != 1000 {
		t.Errorf("room for %d connections; those of the gate before are 1000", n)
	}
	if n, err := l.g.Revision(); n != 9 || err != nil {
		t.Errorf("revision %d, %v", n, err)
	}
	if eps, err := l.g.Endpoints(); len(eps) != 4 || err != nil {
		t.Errorf("%d endpoints, %v", len(eps), err)
	}
	l.delivered("a packet of the connection", l.sends(l.a, f.with(ack)))
}

// There is no moment without a gate, however often it is replaced.
func TestReplaceHasNoGap(t *testing.T) {
	l := newLab(t)
	l.must(l.g.AttachWorkload(l.a.ifindex))
	found, err := AttachedMaps(l.a.ifindex)
	l.must(err)
	defer found.Close()
	gates := []*Gate{l.reload(found), l.g}
	done := make(chan error)
	go func() {
		l := l.in(t)
		for i := range 200 {
			if err := gates[i%2].AttachWorkload(l.a.ifindex); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for {
		select {
		case err := <-done:
			l.must(err)
			return
		default:
		}
		for _, at := range hooks {
			if n := len(l.attached(l.a.ifindex, at)); n != 1 {
				t.Errorf("%d programs at %s", n, at)
			}
		}
	}
}

func TestAttachTwice(t *testing.T) {
	l := newLab(t)
	for range 3 {
		l.must(l.g.AttachWorkload(l.a.ifindex))
		l.must(l.g.AttachHost(l.host))
	}
	for _, at := range hooks {
		if n := len(l.attached(l.a.ifindex, at)); n != 1 {
			t.Errorf("%d programs at %s", n, at)
		}
	}
}

// Programs of others stay, and the gate stands before them.
func TestDetachLeavesOthers(t *testing.T) {
	l := newLab(t)
	other, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "other", Type: ebpf.SchedCLS, License: "MIT",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, -1), asm.Return()}, // TCX_NEXT
	})
	l.must(err)
	defer other.Close()
	id := programID(t, other)
	for _, at := range hooks {
		l.must(link.RawAttachProgram(link.RawAttachProgramOptions{Target: l.a.ifindex, Attach: at, Program: other}))
	}
	if _, err := AttachedMaps(l.a.ifindex); !errors.Is(err, ErrNotAttached) {
		t.Errorf("only somebody else's program is attached, but: %v", err)
	}
	l.must(l.g.AttachWorkload(l.a.ifindex))
	want := map[ebpf.AttachType]ebpf.ProgramID{
		ebpf.AttachTCXIngress: programID(t, l.g.objs.HgFromWorkload), ebpf.AttachTCXEgress: programID(t, l.g.objs.HgToWorkload),
	}
	for _, at := range hooks {
		if got := l.attached(l.a.ifindex, at); !slices.Equal(got, []ebpf.ProgramID{want[at], id}) {
			t.Errorf("at %s: %v, want %v before %v", at, got, want[at], id)
		}
	}
	for range 2 { // the second time there is nothing left to do
		l.must(Detach(l.a.ifindex))
		for _, at := range hooks {
			if got := l.attached(l.a.ifindex, at); !slices.Equal(got, []ebpf.ProgramID{id}) {
				t.Errorf("at %s after detaching: %v, want %v", at, got, id)
			}
		}
	}
}

func TestAttachToNothing(t *testing.T) {
	l := newLab(t)
	if err := l.g.AttachWorkload(9999); err == nil {
		t.Error("attached to a device that is not there")
	}
}

func TestProbe(t *testing.T) {
	privateThread(t)
	for _, n := range Probe() {
		if n.Err != nil {
			t.Errorf("%s: %v (%s)", n.Name, n.Err, n.Hint)
		}
	}
}
