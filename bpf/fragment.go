package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/headgate/headgate/policy"
)

// Fragment is a datagram whose first fragment was let through: the later ones follow.
type Fragment struct {
	Source, Destination netip.AddrPort
	Proto               policy.Proto
	ID                  uint32
	End                 uint16        // of the first, in the datagram
	Expires             time.Duration // from now
}

// Fragments calls f for each, until it returns false.
func (g *Gate) Fragments(f func(Fragment) bool) error {
	var k gateFragmentKey
	var v gateFragmentEntry
	now := monotonic()
	it := g.objs.HgFragment1.Iterate()
	for it.Next(&k, &v) {
		if !f(Fragment{
			Source: netip.AddrPortFrom(fromAddr(k.Source), v.SourcePort), Destination: netip.AddrPortFrom(fromAddr(k.Destination), v.DestinationPort),
			Proto: policy.Proto(v.Proto), ID: k.Id, End: v.End, Expires: time.Duration(int64(v.Expires) - now),
		}) {
			return nil
		}
	}
	if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
		return fmt.Errorf("read fragments: %w", err)
	}
	return nil
}
