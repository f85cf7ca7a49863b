// Package redirect stands between the datapath and whoever parses: it owns the
// marks, the routing rules and the transparent sockets that make a redirected
// connection keep both of its addresses, and the Backend interface that the Go
// proxy and Envoy implement.
//
// A connection is redirected by its Route: the content hashes of the L7 sets
// that apply to it, one for the egress policy of its source and one for the
// ingress policy of its destination. One hop through the proxy serves both.
package redirect

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/headgate/headgate/policy"
)

// Route is the pair of L7 sets that apply to a connection. A zero SetID: that
// direction has no L7 rule.
type Route struct{ Egress, Ingress policy.SetID }

// ProxyPort is the TCP port on 127.0.0.1 and [::1] that serves a Route.
type ProxyPort uint16

// SetNumber is the short name of a SetID in kernel maps. The top 8 bits are the
// set's policy.Protocol. Zero: no set.
type SetNumber uint32

// Protocol of the set with this number.
func (n SetNumber) Protocol() policy.Protocol { return policy.Protocol(n >> 24) }

// NumberedSet is an L7 set with its number.
type NumberedSet struct {
	Number SetNumber
	Set    *policy.L7Set
}

// Snapshot is all that a backend enforces: every L7 set in use on the node.
type Snapshot struct {
	Revision uint64 // of the policies it was made from
	Sets     map[policy.SetID]NumberedSet
	// Secrets that the sets refer to, as far as they can be read. They are for the
	// backend's memory alone.
	Secrets map[policy.SecretRef]string
	// Configs are the objects that define listeners of Envoy, by their keys.
	Configs map[string]*policy.EnvoyConfig
	Audit   bool   // nothing is denied; what would be is reported
	Zone    *Zone  // names to give out; nil: none
	Names   *Names // what rules say of addresses that are known by names; nil: nothing
}

// Zone is what a node's name server knows. It is served by headgate's own proxy,
// which outlives the agent; other backends take no notice.
type Zone struct {
	Domain  string                  // "cluster.local": what is below it and not here does not exist
	Names   map[string][]netip.Addr // below Domain, without it
	Groups  map[string][]netip.Addr // the same; reverse names are not theirs
	Places  map[string][]Place      // SRV records, the same
	Listen  []netip.Addr            // the workloads' gateways
	Clients []netip.Prefix          // who may ask, besides this machine
	// Upstreams answer for everything else; none: those of the file, or nobody.
	Upstreams  []netip.AddrPort
	ResolvConf string
}

// Place is where a service is found (RFC 2782).
type Place struct {
	Target string // a name below the zone's domain, without it
	Port   uint16
}

// Status of a backend, for people.
type Status struct {
	Name    string // "go", "envoy"
	State   string // "ready", "starting", "down"
	Detail  string
	Version string
	PID     int
	// Revision of the snapshot in force.
	Revision    uint64
	Connections uint64
	Names       string // "served", or why names are not; empty: not asked for
	DNS         *DNSStatus
}

// DNSStatus is what a backend counts of questions that it carries.
type DNSStatus struct {
	Waiting uint64            // without an answer
	Events  map[string]uint64 // since its start
}

// ErrNotReady says that the backend cannot enforce now; redirected ports stay
// closed until it can.
var ErrNotReady = errors.New("proxy backend is not ready")

// SetsError says which sets of a snapshot a backend could not take. The snapshot is
// in force nevertheless, and those sets deny everything: one bad rule takes no other
// with it.
type SetsError struct{ Failed map[SetNumber]string }

func (e *SetsError) Error() string {
	for n, why := range e.Failed {
		return fmt.Sprintf("enforce L7 rules: %d sets deny everything, among them %#x: %s", len(e.Failed), uint32(n), why)
	}
	return "enforce L7 rules"
}

// Backend enforces L7 sets in another process.
type Backend interface {
	// Protocols that the backend can enforce.
	Protocols() []policy.Protocol
	// Serve makes the backend accept connections of that route and says where.
	Serve(context.Context, Route) (ProxyPort, error)
	// Enforce returns once every set of the snapshot is in force. Sets that are
	// in no later snapshot are forgotten. ErrNotReady: nothing is served now, and
	// this snapshot will be in force before anything is. *SetsError: in force but
	// for some sets, which deny.
	Enforce(context.Context, Snapshot) error
	// Status for people.
	Status() Status
}
