// Package endpoint is the life of an endpoint: a workload in a network namespace,
// the veth pair that connects it, its addresses and routes, and what the agent
// remembers of it.
//
// The workload's side is as plain as it can be: an address of full length, one
// route to the gateway, a default route by it. The gate answers for the gateway,
// so nothing of this depends on the host's own addresses. The host's side is up
// only after the gate is attached to it: there is no moment in which a packet
// passes unjudged.
package endpoint
