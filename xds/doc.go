// Package xds is the Envoy backend: it makes a stock Envoy enforce L7 sets on
// connections that the gate redirects, and feeds it by delta xDS over one
// aggregated stream on a unix socket.
//
// Envoy cannot ask the gate what applies to a connection, so each pair of sets
// has a listener of its own: the port says which rules hold. The gate, the Go
// proxy and this package agree on what a pair is: two set numbers. When another
// set comes under a number, connections that are open are judged by it from
// their next request on.
//
// # What a listener is
//
// One port on 127.0.0.1 and ::1, transparent and marked, as the proxy's own
// listener is: accepted sockets inherit both, so they answer from the address
// that the client dialled, and the gate lets them. Envoy dials on from the
// client's address, marked too, but from another port; the gate's entry for that
// leg brings the answers back. Each client connection has its own connection to
// the server. What a local process sends to the port itself, past the gate, is
// closed.
//
// RBAC filters judge each request, egress first, as sets are meant: both must allow.
// Of each direction one holds the rules that deny, the next those that allow; rules of
// policies that audit are their shadow rules. In the listener they deny everything. What
// they allow stands in the route configuration, which alone changes: a change of the
// listener would leave open connections with the old rules until they are drained.
//
// What these filters cannot do is a script's, which is the same for all and is told by
// the route what to do (script.lua): list what a request may be taken for, for rules that
// deny; edit headers; give answers of a policy's own. It fails closed.
//
// # When a change is in force
//
// Enforce and Serve return when Envoy has acknowledged every resource that they
// changed. Its workers follow their main thread at their next turn. A resource
// that Envoy refuses is taken back, so that the last good state is also what an
// Envoy that starts anew is given; delta xDS offers it once, not again and again.
//
// A set that is in no snapshot any more: its listeners deny every request, then
// they go, and their connections are closed within DrainTime. A set that cannot
// be translated denies every request, and no other set suffers from it.
//
// What lasts is judged again here, as Envoy judges it but once (underway.go). An Envoy that
// is to be started otherwise is followed by another, and drains (handover.go, drain.go).
//
// Listeners that look at TLS, or end it, are in tls.go.
//
// docs/envoy.md has how rules are translated, and where Envoy differs from headgate's own
// proxy.
package xds
