package bpf

import (
	"fmt"
	"unsafe"

	"github.com/cilium/ebpf"
)

// Usage is how full one map is.
type Usage struct {
	Map     string // as listings call it
	Entries uint64
	Limit   uint64
	// Evicts: it never refuses, for it drops what was longest unused.
	Evicts bool
}

// Percent of the room that is taken.
func (u Usage) Percent() uint64 {
	if u.Limit == 0 {
		return 0
	}
	return u.Entries * 100 / u.Limit
}

// Usage says how full the maps are that can fill up. It costs some microseconds,
// however much is in them: the kernel counts.
func (g *Gate) Usage() ([]Usage, error) {
	u, err := g.used()
	if err != nil {
		return nil, err
	}
	o := &g.objs
	of := func(name string, m *ebpf.Map, n uint64, evicts bool) Usage {
		return Usage{Map: name, Entries: n, Limit: uint64(m.MaxEntries()), Evicts: evicts}
	}
	return []Usage{
		of("endpoints", o.HgEndpoint1, u.Endpoint, false), of("ipcache", o.HgIpcache1, u.Ipcache, false),
		of("subjects", o.HgSubject1, u.Subject, false), of("policy", o.HgPolicy1, u.Policy, false),
		of("routes", o.HgRoute1, u.Route, false), of("ct-tcp", o.HgCtTcp1, u.CtTcp, false),
		of("ct-any", o.HgCtAny1, u.CtAny, true), of("nat-tcp", o.HgNatTcp1, u.NatTcp, false), of("nat-any", o.HgNatAny1, u.NatAny, true),
		of("names", o.HgName1, u.Name, false), of("name-rules", o.HgNameRule1, u.NameRule, false),
		of("events", o.HgEvents1, u.Events, true),
	}, nil
}

func (g *Gate) used() (gateUsage, error) {
	const size = unsafe.Sizeof(gateUsage{})
	out := make([]byte, size)
	if _, err := g.objs.HgUsage.Run(&ebpf.RunOptions{Data: make([]byte, size), DataOut: out}); err != nil {
		return gateUsage{}, fmt.Errorf("ask how full the datapath's maps are: %w", err)
	}
	return *(*gateUsage)(unsafe.Pointer(&out[0])), nil
}
