// Package proxy is both ends of headgate's own proxy: Run, the process that
// carries redirected connections, and Backend, by which the agent starts, adopts
// and instructs it.
//
// # The process
//
// The gate assigns a redirected connection to the proxy's transparent listener,
// so its remote address is the client and its local address the server. What the
// connection may do is not sent along: the proxy asks the datapath's conntrack
// (Connections), which knows both identities and the two L7 sets, egress and
// ingress, that apply. What conntrack does not know is closed.
//
// A connection is a parsers.Session, which decides what happens to bytes, and a
// relay, which carries it out: a pump a side, that reads its side, feeds the
// session and writes what the session said, to either side. Each socket has an
// output queue in which pumps take turns, so the order is the session's and a
// side is never read faster than the other drains. Nothing is buffered beyond one
// read, long bodies are spliced, and an idle connection holds neither a buffer
// nor a goroutine: its pumps are parked in an event loop (package epoll), which
// carries what needs no waiting itself, and starts a goroutine for what does. The
// server is dialled when the first byte must go to it: a connection whose
// requests are all denied never reaches it.
//
// Every request is judged by the sets in force at that moment. Snapshots are
// swapped by one atomic pointer; the datapath's revision tells when a connection
// must be looked up again. Until the first snapshot every connection is refused,
// and a set that cannot be compiled, or that no snapshot holds, denies.
//
// The process has nothing of its own to decide and outlives the agent: its last
// snapshot stays in force, records wait in a bounded ring.
//
// # The agent's side
//
// Backend listens on the process's API socket on its behalf, starts it as an
// unprivileged user in a session of its own, and notices its end by the record
// stream. A proxy of the same version that is already there is adopted; another
// is replaced and left to drain.
package proxy
