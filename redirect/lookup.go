package redirect

import "net/netip"

// LookedUp is one port of a service, for those who look services up by xDS.
type LookedUp struct {
	Namespace, Name string
	Port            uint16
	Backends        []netip.AddrPort
}

// Guide is a Backend that tells clients of services.
type Guide interface{ Guide([]LookedUp) error }
