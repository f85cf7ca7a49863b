package observe

import (
	"net/netip"

	flowpb "github.com/cilium/cilium/api/v1/flow"

	"github.com/headgate/headgate/policy"
)

// ends remembers endpoints within a batch of records, most of which are of a few.
type ends struct {
	builder *Builder
	ring    *Ring
	recent  [61]*knownEnd // by hash
	all     map[end]*knownEnd
}

type end struct {
	addr     netip.Addr
	identity policy.Identity
}

type knownEnd struct {
	end
	endpoint *flowpb.Endpoint
	second   int64 // of the last flow
}

// endpoint describes an end of a flow, and notes when its namespace had it.
func (k *ends) endpoint(e end, second int64) *flowpb.Endpoint {
	a := e.addr.As16()
	slot := &k.recent[(uint32(a[15])+uint32(a[14])*5+uint32(a[13])*7+uint32(e.identity))%uint32(len(k.recent))]
	found := *slot
	if found == nil || found.end != e {
		found = k.find(e)
		*slot = found
	}
	if second > found.second {
		found.second = second
		k.ring.namespaces.touch(found.endpoint, second)
	}
	return found.endpoint
}

func (k *ends) find(e end) *knownEnd {
	found := k.all[e]
	if found == nil {
		found = &knownEnd{e, k.builder.endpoint(e.addr.Unmap(), e.identity), -1 << 63}
		if k.all == nil {
			k.all = map[end]*knownEnd{}
		}
		k.all[e] = found
	}
	return found
}
