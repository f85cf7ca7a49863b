package reconcile

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/headgate/headgate/agent/service"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// lookedUp are the TCP ports of services, each with what is behind all of the service's
// addresses there.
func lookedUp(w service.Wanted, of []*service.Service) []redirect.LookedUp {
	var out []redirect.LookedUp
	for _, s := range of {
		ports := map[uint16][]netip.AddrPort{}
		for _, a := range s.Addresses {
			if a.Proto != policy.ProtoTCP {
				continue
			}
			backends := ports[a.Port()]
			for _, b := range w.Fronts[a].Backends {
				if !slices.Contains(backends, b) {
					backends = append(backends, b)
				}
			}
			ports[a.Port()] = backends
		}
		for port, backends := range ports {
			slices.SortFunc(backends, netip.AddrPort.Compare)
			out = append(out, redirect.LookedUp{Namespace: s.Namespace, Name: s.Name, Port: port, Backends: backends})
		}
	}
	slices.SortFunc(out, func(a, b redirect.LookedUp) int {
		return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), cmp.Compare(a.Port, b.Port))
	})
	return out
}
