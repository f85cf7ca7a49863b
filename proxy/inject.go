package proxy

import (
	"net/netip"

	"github.com/headgate/headgate/redirect"
)

// Injector is the device by which datagrams go to endpoints of this node past the host's stack.
type Injector struct {
	Descriptor int                   // of redirect.OpenInjector
	Here       func(netip.Addr) bool // whether an address is such an endpoint's
}

// newSender makes what a worker sends by.
func (d *dnsServer) newSender() *redirect.Sender {
	s := redirect.NewSender(d.p.config.Senders, &d.lost)
	if i := d.p.config.Injector; i != nil {
		s.Inject(i.Descriptor, i.Here)
	}
	return s
}
