package integration

import (
	"net/netip"
	"testing"
)

// backend is who judges HTTP on a node.
type backend struct {
	name  string
	flags []string // of the agent
	// portKept: the server sees the client's own port, and not only its address.
	portKept bool
	// bound: a connection keeps to the rules of the port it came to, and is reset when it
	// has none any more.
	bound bool
}

// ownBackend is headgate's own proxy.
var ownBackend = backend{name: "go", portKept: true}

// eachBackend runs a test on nodes with headgate's own proxy and with a stock Envoy:
// verdicts, flows and failures are to be the same.
func eachBackend(t *testing.T, f func(t *testing.T, b backend)) {
	t.Helper()
	for _, b := range []backend{
		ownBackend,
		{name: "envoy", bound: true, flags: []string{"--backend", "envoy", "--envoy-path", envoyBinary(t), "--envoy-workers", "1"}},
	} {
		t.Run(b.name, func(t *testing.T) { f(t, b) })
	}
}

// same reports whether what a server saw is the client as this backend shows it.
func (b backend) same(seen string, client netip.AddrPort) bool {
	got, err := netip.ParseAddrPort(seen)
	return err == nil && got.Addr() == client.Addr() && (!b.portKept || got == client)
}
