package bpf

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// Judged tells by what the gate judges endpoints at this moment. It reads, and no more.
type Judged struct {
	endpoints *Endpoints
	subjects  *ebpf.Map
}

// OpenJudged takes the map of subjects from a descriptor that another process gave, and owns
// it. The map of endpoints is shared.
func OpenJudged(endpoints *Endpoints, subjects int) (*Judged, error) {
	m, err := ebpf.NewMapFromFD(subjects)
	if err != nil {
		return nil, fmt.Errorf("take map of subjects from descriptor %d: %w", subjects, err)
	}
	return &Judged{endpoints, m}, nil
}

// NameTable says by which table of rules about names an endpoint's address is judged; 0: by
// none, or nobody has the address.
func (j *Judged) NameTable(a netip.Addr) (uint32, error) {
	last := uint32(0)
	for {
		k := toAddr(a)
		var e gateEndpoint
		err := j.endpoints.m.Lookup(&k, &e)
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, nil
		}
		if err != nil {
			return 0, fmt.Errorf("read endpoint %s of the datapath: %w", a, err)
		}
		var s gateSubject
		err = j.subjects.Lookup(e.Subject, &s)
		switch {
		case err == nil:
			return s.Names, nil
		case !errors.Is(err, ebpf.ErrKeyNotExist):
			return 0, fmt.Errorf("read subject %d of the datapath: %w", e.Subject, err)
		case e.Subject == last: // it has no table, and everything is denied
			return 0, nil
		}
		last = e.Subject // gone just now, perhaps: then the endpoint has another
	}
}
