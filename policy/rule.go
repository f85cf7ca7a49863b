package policy

import "net/netip"

// Mode says what a policy does with what it would deny.
type Mode uint8

// ModeEnforce denies it; the other two neither deny nor allow anything, nor do
// they switch default deny on.
const (
	ModeEnforce Mode = 0
	ModeAudit   Mode = 1 // reports what would have been denied
	ModeObserve Mode = 2 // shows the requests that its L7 rules are about
)

func (m Mode) String() string {
	switch m {
	case ModeAudit:
		return "audit"
	case ModeObserve:
		return "observe"
	}
	return "enforce"
}

// ParseMode reads a mode as people write it.
func ParseMode(text string) (Mode, bool) {
	for _, m := range []Mode{ModeEnforce, ModeAudit, ModeObserve} {
		if text == m.String() {
			return m, true
		}
	}
	return ModeEnforce, false
}

// Policy is one policy object: the rules it stands for and where it came from.
// A CiliumCIDRGroup is one too: it has no rules, but the addresses that others
// refer to.
type Policy struct {
	Kind         string // "CiliumNetworkPolicy", "NetworkPolicy", ...
	Namespace    string // empty for a clusterwide policy
	Name         string
	Labels       map[string]string // of the object itself
	Mode         Mode
	DenyResponse *DenyResponse
	Rules        []Rule
	CIDRs        []netip.Prefix // of a CiliumCIDRGroup
	Envoy        *EnvoyConfig   // of a CiliumEnvoyConfig
	Source       []byte         // the document it was written in
	Origin       string         // the file and the document's number in it
	Warnings     []string       // what was accepted but probably not meant
}

// DenyResponse is what the client of a denied HTTP request gets, in place of 403.
type DenyResponse struct {
	Status int
	Body   string
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
	Subject      Selector
	Node         bool // the subject is a node (a host policy), not a workload
	Mode         Mode
	Direction    Direction
	Deny         bool
	DefaultDeny  bool // what no rule of the direction allows is denied
	AnyPeer      bool
	Peers        []Peer
	Requires     []Requirement // what every Selector among the peers of the subject's rules must satisfy too
	Ports        []PortRule    // empty: every protocol and port
	DenyResponse *DenyResponse
	Ref          Ref
}

// PortRule is a protocol with a range of ports, and what L7 rules apply there.
// For ICMP the ports are types.
type PortRule struct {
	Proto       Proto // ProtoAny: TCP, UDP and SCTP
	First, Last uint16
	Name        string   // a named port, instead of First and Last
	L7          *L7Rules // nil: none
	Listener    *Listener
	TLS         *TLSSecrets
	Ref         Ref
}

// Listener refers to a listener of Envoy that connections are handed to.
type Listener struct {
	Kind      string // of the object that defines it
	Namespace string // empty for a clusterwide one
	Config    string // its name
	Name      string
	Priority  int // 0: none was given
}

// TLSSecrets refers to the secrets by which TLS is ended and begun again.
type TLSSecrets struct {
	Certificate, PrivateKey SecretRef // by which the client's TLS ends; zero: it speaks plain text
	TrustedCA               SecretRef // who has issued the server's certificate; zero: it gets plain text
	ClientCA                SecretRef // who has issued the client's certificate; zero: it is asked for none
	OwnCertificate, OwnKey  SecretRef // shown to a server that asks; zero: none
	// Conflict: several rules for one port name different secrets. Whoever should end
	// TLS by that must refuse.
	Conflict bool
}

// Refs lists the secrets.
func (t *TLSSecrets) Refs() (refs []SecretRef) {
	if t == nil {
		return nil
	}
	for _, ref := range [...]SecretRef{t.Certificate, t.PrivateKey, t.TrustedCA, t.ClientCA, t.OwnCertificate, t.OwnKey} {
		if ref != (SecretRef{}) {
			refs = append(refs, ref)
		}
	}
	return refs
}

// or returns what ends TLS where one rule says t and another o: what one of them says of
// a side, or both alike.
func (t *TLSSecrets) or(o *TLSSecrets) *TLSSecrets {
	switch {
	case t == nil:
		return o
	case o == nil || *t == *o:
		return t
	}
	both := *t
	if t.Certificate == (SecretRef{}) {
		both.Certificate, both.PrivateKey, both.ClientCA = o.Certificate, o.PrivateKey, o.ClientCA
	}
	if t.TrustedCA == (SecretRef{}) {
		both.TrustedCA, both.OwnCertificate, both.OwnKey = o.TrustedCA, o.OwnCertificate, o.OwnKey
	}
	if both.agrees(t) && both.agrees(o) {
		return &both
	}
	return &TLSSecrets{Conflict: true}
}

// agrees reports whether t is o, but for a side of which o says nothing.
func (t *TLSSecrets) agrees(o *TLSSecrets) bool {
	client := t.Certificate == o.Certificate && t.PrivateKey == o.PrivateKey && t.ClientCA == o.ClientCA
	server := t.TrustedCA == o.TrustedCA && t.OwnCertificate == o.OwnCertificate && t.OwnKey == o.OwnKey
	return (client || o.Certificate == (SecretRef{})) && (server || o.TrustedCA == (SecretRef{})) && !o.Conflict
}

// SecretRef names a secret, or with a Key one of the values in it. What is in it never
// gets into a policy.
type SecretRef struct{ Namespace, Name, Key string }

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
	Node        bool       // it is a node: host policies are for it, and no others
	NamedPorts  NamedPorts // what ingress rules mean by a port's name
	Enforcement Enforcement
}

// Equal reports whether both end TLS in the same way.
func (t *TLSSecrets) Equal(o *TLSSecrets) bool { return t == o || t != nil && o != nil && *t == *o }

// Or is what ends TLS where t says how, and o: nil says nothing.
func (t *TLSSecrets) Or(o *TLSSecrets) *TLSSecrets { return t.or(o) }
