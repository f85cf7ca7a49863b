package service

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"testing"

	"github.com/headgate/headgate/bpf"
)

// fakeGate is a gate in memory.
type fakeGate struct {
	services map[uint16]bpf.Service
	addrs    map[netip.Addr]bool
	backends map[uint32]bool
	fail     error
	log      []string
}

func newFakeGate() *fakeGate {
	return &fakeGate{services: map[uint16]bpf.Service{}, addrs: map[netip.Addr]bool{}, backends: map[uint32]bool{}}
}

func (g *fakeGate) note(format string, args ...any) {
	g.log = append(g.log, fmt.Sprintf(format, args...))
}

func (g *fakeGate) SetServiceAddress(a netip.Addr, whole bool) error {
	g.note("address %s", a)
	g.addrs[a] = whole
	return g.fail
}

func (g *fakeGate) DeleteServiceAddress(a netip.Addr) error {
	g.note("delete address %s", a)
	delete(g.addrs, a)
	return g.fail
}

func (g *fakeGate) SetService(s bpf.Service) error {
	g.note("service %s", s.Addr)
	for n := range s.Backends {
		g.backends[n] = true
	}
	if g.fail != nil {
		return g.fail
	}
	g.services[s.Number] = s
	return nil
}

func (g *fakeGate) DeleteServiceBackend(n uint32) error {
	for _, s := range g.services {
		if _, used := s.Backends[n]; used {
			return fmt.Errorf("backend %d is still in use", n)
		}
	}
	delete(g.backends, n)
	return g.fail
}

func (g *fakeGate) DeleteService(s bpf.Service) error {
	g.note("delete service %s", s.Addr)
	if g.fail != nil {
		return g.fail
	}
	delete(g.services, s.Number)
	for n := range s.Backends {
		delete(g.backends, n)
	}
	return nil
}

func (g *fakeGate) CutService(number uint16, b netip.AddrPort) (int, error) {
	g.note("cut %d %s", number, b)
	return 2, g.fail
}

func (g *fakeGate) Services() (out []bpf.Service, addrs map[netip.Addr]bool, err error) {
	for _, s := range g.services {
		out = append(out, s)
	}
	return out, maps.Clone(g.addrs), g.fail
}

func wanted(t *testing.T, addr string, to ...string) Wanted {
	t.Helper()
	a := address(t, addr)
	f := Front{}
	for _, b := range to {
		f.Backends = append(f.Backends, netip.MustParseAddrPort(b))
	}
	return Wanted{Fronts: map[Address]Front{a: f}, Addresses: map[netip.Addr]bool{a.Addr(): true}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriter(t *testing.T) {
	g := newFakeGate()
	w := NewWriter(g)
	must(t, w.Load())
	one, two := "10.210.0.2:80", "10.210.0.3:80"
	must(t, w.Sync(wanted(t, "10.96.0.1:80", one, two)))
	first := g.services[1]
	if len(first.Slots) != bpf.ServiceSlots || len(first.Backends) != 2 || len(g.backends) != 2 {
		t.Fatalf("%+v", first)
	}
	g.log = nil
	must(t, w.Sync(wanted(t, "10.96.0.1:80", one, two)))
	if len(g.log) > 0 {
		t.Errorf("written though nothing changed: %v", g.log)
	}
	must(t, w.Sync(wanted(t, "10.96.0.1:80", two)))
	if s := g.services[1]; len(s.Backends) != 1 || len(g.backends) != 1 || !sameBackends(s, []netip.AddrPort{netip.MustParseAddrPort(two)}) {
		t.Errorf("%+v", s)
	}
	must(t, w.Sync(wanted(t, "10.96.0.1:80")))
	if s := g.services[1]; len(s.Slots) > 0 || len(g.backends) > 0 {
		t.Errorf("without a backend: %d slots, %v", len(s.Slots), g.backends)
	}

	// The next agent goes on with the same numbers.
	must(t, w.Sync(wanted(t, "10.96.0.1:80", one, two)))
	before := maps.Clone(g.services)
	w = NewWriter(g)
	must(t, w.Load())
	g.log = nil
	must(t, w.Sync(wanted(t, "10.96.0.1:80", one, two)))
	if len(g.log) > 0 || !reflect.DeepEqual(g.services, before) {
		t.Errorf("written by the next agent: %v", g.log)
	}

	must(t, w.Sync(wanted(t, "10.96.0.2:80", one)))
	if _, again := g.services[1]; again || g.services[2].Addr.String() != "10.96.0.2:80" || len(g.addrs) != 1 || len(g.backends) != 1 {
		t.Errorf("%+v, %v, %v", g.services, g.addrs, g.backends)
	}
	if n, err := w.Cut([]Address{address(t, "10.96.0.2:80"), address(t, "10.96.0.9:80")}, netip.MustParseAddrPort(one)); n != 2 || err != nil {
		t.Errorf("cut %d, %v", n, err)
	}
	must(t, w.Sync(Wanted{}))
	if len(g.services)+len(g.addrs)+len(g.backends) > 0 {
		t.Errorf("left: %+v, %v, %v", g.services, g.addrs, g.backends)
	}
}

// TestWriterFails: what could not be written is written later, and nothing of it is
// forgotten.
func TestWriterFails(t *testing.T) {
	g := newFakeGate()
	w := NewWriter(g)
	full := errors.New("no room")
	g.fail = full
	if err := w.Sync(wanted(t, "10.96.0.1:80", "10.210.0.2:80")); !errors.Is(err, full) {
		t.Error(err)
	}
	if err := w.Sync(wanted(t, "10.96.0.1:80", "10.210.0.3:80")); !errors.Is(err, full) {
		t.Error(err)
	}
	g.fail = nil
	must(t, w.Sync(wanted(t, "10.96.0.1:80", "10.210.0.3:80")))
	if len(g.services) != 1 || len(g.backends) != 1 || len(g.addrs) != 1 {
		t.Errorf("%+v, %v", g.services, g.backends)
	}
	g.fail = full
	if err := w.Sync(Wanted{}); !errors.Is(err, full) {
		t.Error(err)
	}
	g.fail = nil
	must(t, w.Sync(Wanted{}))
	if len(g.services)+len(g.backends) > 0 {
		t.Errorf("left: %+v, %v", g.services, g.backends)
	}
}
