// Package envoy reads CiliumEnvoyConfig and CiliumClusterwideEnvoyConfig documents:
// listeners of Envoy that egress policies hand connections to, with the routes,
// clusters and endpoints that these lead to.
//
// Envoy runs beside the whole node's traffic, so what may stand there is named, and
// nothing else is taken: resources of four types, filters that neither run programs
// nor read files, no unix sockets, no other sources of configuration, no socket
// options. Names get the object's before them, and what a resource refers to must be
// in the same object; so it can neither take the place of what the node itself tells
// Envoy, nor use it, but for the cluster that leads where the client dialled.
//
// Where a listener listens is the node's to say: its address is not read.
package envoy
