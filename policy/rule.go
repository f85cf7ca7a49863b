package policy

// Mode says what a policy does with what it would deny.
type Mode uint8

// ModeEnforce denies it.
const ModeEnforce Mode = 0

// Policy is one policy object: the rules it stands for and where it came from.
type Policy struct {
	Kind      string // "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"
	Namespace string // empty for a clusterwide policy
	Name      string
	Mode      Mode
	Rules     []Rule
	Source    []byte   // the document it was written in
	Origin    string   // the file and the document's number in it
	Warnings  []string // what was accepted but probably not meant
}

// FullName is the name in Ref.Policy: "default/rule1", or "rule1" for a
// clusterwide policy.
func (p *Policy) FullName() string {
	if p.Namespace == "" {
		return p.Name
	}
	return p.Namespace + "/" + p.Name
}

// Key tells policies apart: kind and name.
func (p *Policy) Key() string { return p.Kind + "/" + p.FullName() }

// Rule is one entry of a policy: what one kind of subject may (or, with Deny,
// may not) do in one direction. It names nobody unless AnyPeer is set or one of
// Peers selects somebody; a rule that names nobody can still switch default
// deny on.
type Rule struct {
	Subject     Selector
	Direction   Direction
	Deny        bool
	DefaultDeny bool // what no rule of the direction allows is denied
	AnyPeer     bool
	Peers       []Peer
	Ports       []PortRule // empty: every protocol and port
	Ref         Ref
}

// PortRule is a protocol with a range of ports, and what L7 rules apply there.
// For ICMP the ports are types.
type PortRule struct {
	Proto       Proto // ProtoAny: TCP, UDP and SCTP
	First, Last uint16
	Name        string   // a named port, instead of First and Last
	L7          *L7Rules // nil: none
	Ref         Ref
}

// L7Rules is what a PortRule asks of the requests on its connections: one of
// the rules must match. Without any rule nothing matches.
type L7Rules struct {
	Protocol Protocol
	HTTP     []HTTPRule
}

// Enforcement says when default deny holds, as Cilium's enforcement modes.
type Enforcement uint8

const (
	EnforcementDefault Enforcement = 0 // where a rule that selects the subject switches it on
	EnforcementAlways  Enforcement = 1
	EnforcementNever   Enforcement = 2 // rules have no effect
)

// Subject is what a Table is made for: all endpoints that have these in common.
type Subject struct {
	Labels      Labels
	NamedPorts  NamedPorts // what ingress rules mean by a port's name
	Enforcement Enforcement
}
