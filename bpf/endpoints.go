package bpf

import (
	"fmt"
	"net/netip"
	"os"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// EndpointsToRead is a descriptor of the map of endpoints that cannot write it: for who is to
// know which addresses are here, and may say of none whose it is.
func (g *Gate) EndpointsToRead() (*os.File, error) { return toRead(g.objs.HgEndpoint1, "endpoints") }

// SubjectsToRead is one of the map of subjects, which tells the tables that they have.
func (g *Gate) SubjectsToRead() (*os.File, error) { return toRead(g.objs.HgSubject1, "subjects") }

// toRead opens a map once more, so that it cannot be written.
func toRead(m *ebpf.Map, name string) (*os.File, error) {
	info, err := m.Info()
	if err != nil {
		return nil, fmt.Errorf("open the map of %s: %w", name, err)
	}
	id, ok := info.ID()
	if !ok {
		return nil, fmt.Errorf("open the map of %s: the kernel does not number it", name)
	}
	attr := struct{ id, next, flags uint32 }{id: uint32(id), flags: unix.BPF_F_RDONLY}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_MAP_GET_FD_BY_ID, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil, fmt.Errorf("open the map of %s: %w", name, errno)
	}
	return os.NewFile(fd, name), nil
}

// Endpoints is the map of endpoints, to be read.
type Endpoints struct{ m *ebpf.Map }

// OpenEndpoints takes the map from a descriptor that another process gave, and owns it.
func OpenEndpoints(fd int) (*Endpoints, error) {
	m, err := ebpf.NewMapFromFD(fd)
	if err != nil {
		return nil, fmt.Errorf("take map of endpoints from descriptor %d: %w", fd, err)
	}
	return &Endpoints{m}, nil
}

// Has reports whether an address is that of an endpoint of this node.
func (e *Endpoints) Has(a netip.Addr) bool {
	k := toAddr(a)
	var v gateEndpoint
	return e.m.Lookup(&k, &v) == nil
}
