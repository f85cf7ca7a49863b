package service

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/headgate/headgate/bpf"
)

// Gate is what the Writer writes to: *bpf.Gate.
type Gate interface {
	SetServiceAddress(a netip.Addr, whole bool) error
	DeleteServiceAddress(netip.Addr) error
	SetService(bpf.Service) error
	DeleteServiceBackend(number uint32) error
	DeleteService(bpf.Service) error
	CutService(number uint16, backend netip.AddrPort) (int, error)
	Services() ([]bpf.Service, map[netip.Addr]bool, error)
}

// Writer brings the gate from what it knows to what it is to know. Services keep
// their numbers, which open connections carry; and those are read from the gate, so
// that they outlive the agent.
type Writer struct {
	gate     Gate
	services map[Address]bpf.Service // as in the gate
	addrs    map[netip.Addr]bool
	unsure   map[Address]bool // the last write did not end well
	last     uint16           // number of a service
	lastBack uint32           // number of a backend
}

// NewWriter makes a Writer; Load comes first.
func NewWriter(g Gate) *Writer {
	return &Writer{gate: g, services: map[Address]bpf.Service{}, addrs: map[netip.Addr]bool{}, unsure: map[Address]bool{}}
}

// Load reads what is in the gate.
func (w *Writer) Load() error {
	list, addrs, err := w.gate.Services()
	if err != nil {
		return fmt.Errorf("read services from the datapath: %w", err)
	}
	w.addrs = addrs
	for _, s := range list {
		w.services[Address{s.Addr, s.Proto}] = s
		w.last = max(w.last, s.Number)
		for n := range s.Backends {
			w.lastBack = max(w.lastBack, n)
		}
	}
	return nil
}

// Sync writes what differs. Addresses come first and go last: what is sent to one
// must never pass as if it were nobody's.
func (w *Writer) Sync(want Wanted) error {
	var errs error
	for a, whole := range want.Addresses {
		if was, known := w.addrs[a]; known && was == whole {
			continue
		}
		if err := w.gate.SetServiceAddress(a, whole); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		w.addrs[a] = whole
	}
	for a := range w.services { // numbers of these are free for the others
		if _, wanted := want.Fronts[a]; !wanted {
			errs = errors.Join(errs, w.remove(a))
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(want.Fronts), compareAddresses) {
		errs = errors.Join(errs, w.write(a, want.Fronts[a]))
	}
	for a := range w.addrs {
		if _, wanted := want.Addresses[a]; wanted {
			continue
		}
		if err := w.gate.DeleteServiceAddress(a); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		delete(w.addrs, a)
	}
	return errs
}

func compareAddresses(a, b Address) int {
	return cmp.Or(a.AddrPort.Compare(b.AddrPort), cmp.Compare(a.Proto, b.Proto))
}

func (w *Writer) remove(a Address) error {
	if err := w.gate.DeleteService(w.services[a]); err != nil {
		return err
	}
	delete(w.services, a)
	delete(w.unsure, a)
	return nil
}

func (w *Writer) write(a Address, f Front) error {
	old, known := w.services[a]
	if known && !w.unsure[a] && old.Affinity == f.Affinity && old.HostOnly == f.HostOnly && sameBackends(old, f.Backends) {
		return nil
	}
	s := bpf.Service{Number: old.Number, Addr: a.AddrPort, Proto: a.Proto, HostOnly: f.HostOnly, Affinity: f.Affinity, Backends: map[uint32]netip.AddrPort{}}
	if !known {
		var err error
		if s.Number, err = w.free(); err != nil {
			return fmt.Errorf("write service %s: %w", a, err)
		}
	}
	numbers, names := make([]uint32, len(f.Backends)), make([]string, len(f.Backends))
	for i, b := range f.Backends {
		numbers[i], names[i] = w.backend(old, b), b.String()
		s.Backends[numbers[i]] = b
	}
	for _, i := range Table(names, bpf.ServiceSlots) {
		s.Slots = append(s.Slots, numbers[i])
	}
	// Whatever comes of it, these numbers may be in the gate now.
	w.services[a], w.unsure[a] = union(old, s), true
	if err := w.gate.SetService(s); err != nil {
		return err
	}
	for n := range old.Backends {
		if _, still := s.Backends[n]; still {
			continue
		}
		if err := w.gate.DeleteServiceBackend(n); err != nil {
			return fmt.Errorf("remove a backend of %s: %w", a, err)
		}
	}
	w.services[a] = s
	delete(w.unsure, a)
	return nil
}

// union is s with the backends of another besides.
func union(other, s bpf.Service) bpf.Service {
	s.Backends = maps.Clone(s.Backends)
	maps.Copy(s.Backends, other.Backends)
	return s
}

func sameBackends(s bpf.Service, want []netip.AddrPort) bool {
	return slices.Equal(slices.SortedFunc(maps.Values(s.Backends), netip.AddrPort.Compare), want)
}

// backend is the number of a backend that a service has, or a new one.
func (w *Writer) backend(old bpf.Service, b netip.AddrPort) uint32 {
	for n, known := range old.Backends {
		if known == b {
			return n
		}
	}
	w.lastBack++
	return w.lastBack
}

// free is a number that no service has. One that was given back is used again as
// late as can be.
func (w *Writer) free() (uint16, error) {
	taken := map[uint16]bool{0: true}
	for _, s := range w.services {
		taken[s.Number] = true
	}
	for range 1 << 16 {
		if w.last++; !taken[w.last] {
			return w.last, nil
		}
	}
	return 0, errors.New("no number is left: delete services")
}

// Cut ends the connections to a backend that the gate translates, behind these
// addresses, and says how many.
func (w *Writer) Cut(addresses []Address, backend netip.AddrPort) (int, error) {
	n := 0
	var errs error
	for _, a := range addresses {
		if s, ok := w.services[a]; ok {
			cut, err := w.gate.CutService(s.Number, backend)
			n, errs = n+cut, errors.Join(errs, err)
		}
	}
	return n, errs
}
