package bpf

import (
	"errors"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// keptForDenies is the part of a map, in percent, that only denies may take: a deny
// that found no room would be an allow.
const keptForDenies = 5

// room is what is left of a map.
type room struct {
	m       *ebpf.Map
	used    func() (uint64, error)
	allowed uint64 // entries until which anything may be written
	now     uint64 // entries, at most
	known   bool
}

func newRoom(m *ebpf.Map, used func() (uint64, error)) *room {
	limit := uint64(m.MaxEntries())
	return &room{m: m, used: used, allowed: limit - limit*keptForDenies/100}
}

// put writes an entry, and into what is kept for denies a deny alone. What is there
// already can always be replaced. ErrFull: there is no room for it.
func (r *room) put(key, value any, deny bool) error {
	flags := ebpf.UpdateAny
	if !deny {
		full, err := r.full()
		if err != nil {
			return err
		}
		if full {
			flags = ebpf.UpdateExist
		}
	}
	err := r.m.Update(key, value, flags)
	if errors.Is(err, unix.E2BIG) || errors.Is(err, unix.ENOSPC) || flags == ebpf.UpdateExist && errors.Is(err, ebpf.ErrKeyNotExist) {
		return ErrFull
	}
	r.now++
	return err
}

// full counts only when it may be so.
func (r *room) full() (bool, error) {
	if r.known && r.now < r.allowed {
		return false, nil
	}
	n, err := r.used()
	r.now, r.known = n, true
	return n >= r.allowed, err
}
