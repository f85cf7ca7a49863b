package bpf

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// shares are how many established connections each workload has, in memory that
// the gate writes too.
type shares []byte

// mapShares maps them. They go with the process that mapped them.
func mapShares(m *ebpf.Map) (shares, error) {
	b, err := unix.Mmap(m.FD(), 0, int(m.MaxEntries())*int(m.ValueSize()), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the datapath's shares: %w", err)
	}
	return b, nil
}

func (s shares) of(payer uint16) *int64 {
	return (*int64)(unsafe.Pointer(&s[int(payer)*8]))
}

func (s shares) give(payer uint16) { atomic.AddInt64(s.of(payer), -1) }

// right puts counters right that drifted: the gate counts without locks, so what
// two processors do to one connection at once may be counted twice. Only what did
// not change while all connections were read is known well enough.
func (s shares) right(before []int64, counted map[uint16]int64) {
	for id := range before {
		if is, was := counted[uint16(id)], before[id]; is != was {
			atomic.CompareAndSwapInt64(s.of(uint16(id)), was, is)
		}
	}
}

func (s shares) copy() []int64 {
	out := make([]int64, len(s)/8)
	for id := range out {
		out[id] = atomic.LoadInt64(s.of(uint16(id)))
	}
	return out
}

// Who has a share without being an endpoint, as in src/lib/share.h.
const (
	ShareHost    = 0      // what this machine opens
	ShareAsked   = 0xfffe // what others open to it
	ShareTransit = 0xffff // connections between others that pass it, by a node port
)

// Share is somebody's part of the room for connections.
type Share struct {
	Endpoint uint16 // or ShareHost, ShareAsked, ShareTransit
	Open     int64
}

// Shares lists those that have connections.
func (g *Gate) Shares() []Share {
	var out []Share
	for id, n := range g.shares.copy() {
		if n != 0 {
			out = append(out, Share{uint16(id), n})
		}
	}
	return out
}
