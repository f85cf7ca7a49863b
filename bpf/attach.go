package bpf

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
)

// ErrNotAttached says that no gate is attached to the interface.
var ErrNotAttached = errors.New("no headgate program is attached")

// Maps are the maps of an attached gate, found again by another process.
type Maps struct {
	byName map[string]*ebpf.Map
}

// Close closes the descriptors.
func (m *Maps) Close() {
	for _, x := range m.byName {
		x.Close()
	}
}

// AttachedMaps finds the maps of the gate that is attached to an interface: its
// programs name them. ErrNotAttached: there is none.
func AttachedMaps(ifindex int) (*Maps, error) {
	found := &Maps{byName: map[string]*ebpf.Map{}}
	known, err := loadGate()
	if err != nil {
		return nil, fmt.Errorf("read the datapath object: %w", err)
	}
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		progs, err := ours(ifindex, at)
		if err != nil {
			return nil, err
		}
		for _, p := range progs {
			err = errors.Join(err, found.add(p, known))
			p.Close()
		}
		if err != nil {
			found.Close()
			return nil, err
		}
	}
	if len(found.byName) == 0 {
		return nil, ErrNotAttached
	}
	return found, nil
}

// add takes the maps of a program that this build knows by name and layout.
func (m *Maps) add(p *ebpf.Program, known *ebpf.CollectionSpec) error {
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("read what is attached: %w", err)
	}
	ids, _ := info.MapIDs()
	for _, id := range ids {
		x, err := ebpf.NewMapFromID(id)
		if err != nil {
			return fmt.Errorf("open map %d of what is attached: %w", id, err)
		}
		mi, err := x.Info()
		if err != nil || known.Maps[mi.Name] == nil || m.byName[mi.Name] != nil || strings.HasPrefix(mi.Name, ".") {
			x.Close()
			continue
		}
		m.byName[mi.Name] = x
	}
	return nil
}

// ours are headgate's programs at one hook of an interface.
func ours(ifindex int, at ebpf.AttachType) ([]*ebpf.Program, error) {
	res, err := query(link.QueryOptions{Target: ifindex, Attach: at})
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}
		return nil, fmt.Errorf("ask what is attached to interface %d: %w", ifindex, err)
	}
	var out []*ebpf.Program
	for _, ap := range res.Programs {
		p, err := ebpf.NewProgramFromID(ap.ID)
		if err != nil {
			return out, fmt.Errorf("open attached program %d: %w", ap.ID, err)
		}
		if info, err := p.Info(); err == nil && strings.HasPrefix(info.Name, "hg_") {
			out = append(out, p)
			continue
		}
		p.Close()
	}
	return out, nil
}

// AttachWorkload puts the gate on the host side of a workload's veth, in place of
// an earlier one. There is no moment without.
func (g *Gate) AttachWorkload(ifindex int) error {
	if err := attach(ifindex, ebpf.AttachTCXIngress, g.objs.HgFromWorkload); err != nil {
		return err
	}
	return attach(ifindex, ebpf.AttachTCXEgress, g.objs.HgToWorkload)
}

// AttachHost puts the gate on the device by which packets of the host enter again.
// Its program holds every map, so that a later agent finds them.
func (g *Gate) AttachHost(ifindex int) error {
	if err := attach(ifindex, ebpf.AttachTCXIngress, g.objs.HgFromHost); err != nil {
		return err
	}
	// Nothing is ever sent out there; it is attached to be found.
	return attach(ifindex, ebpf.AttachTCXEgress, g.objs.HgToWorkload)
}

// AttachInjector puts the gate on the device that the proxy writes to.
func (g *Gate) AttachInjector(ifindex int) error {
	return attach(ifindex, ebpf.AttachTCXIngress, g.objs.HgFromInjector)
}

func attach(ifindex int, at ebpf.AttachType, p *ebpf.Program) error {
	old, err := ours(ifindex, at)
	if err != nil {
		return err
	}
	defer closeAll(old)
	o := link.RawAttachProgramOptions{Target: ifindex, Attach: at, Program: p}
	if len(old) > 0 {
		if same(old[0], p) {
			return nil // the kernel does not replace a program by itself
		}
		o.Anchor = link.ReplaceProgram(old[0])
	} else {
		o.Anchor = link.Head()
	}
	if err := link.RawAttachProgram(o); err != nil {
		return fmt.Errorf("attach the datapath to interface %d: %w", ifindex, err)
	}
	return nil
}

func same(a, b *ebpf.Program) bool {
	x, errX := a.Info()
	y, errY := b.Info()
	if errX != nil || errY != nil {
		return false
	}
	m, okM := x.ID()
	n, okN := y.ID()
	return okM && okN && m == n
}

// Detach takes every program of ours off an interface.
func Detach(ifindex int) error {
	var errs error
	for _, at := range []ebpf.AttachType{ebpf.AttachTCXIngress, ebpf.AttachTCXEgress} {
		progs, err := ours(ifindex, at)
		errs = errors.Join(errs, err)
		for _, p := range progs {
			errs = errors.Join(errs, link.RawDetachProgram(link.RawDetachProgramOptions{Target: ifindex, Attach: at, Program: p}))
		}
		closeAll(progs)
	}
	return errs
}

func closeAll(ps []*ebpf.Program) {
	for _, p := range ps {
		p.Close()
	}
}
