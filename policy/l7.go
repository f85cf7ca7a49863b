package policy

import "slices"

// L7Rules is what a PortRule asks of the requests on its connections: one of
// the rules must match. Without any rule nothing matches. Rules for gRPC are
// rules for HTTP: both may stand together, under ProtocolHTTP. Of all others
// there is one kind.
type L7Rules struct {
	Protocol Protocol
	HTTP     []HTTPRule
	GRPC     []GRPCRule
	Kafka    []KafkaRule
	DNS      []DNSRule
	TLS      []TLSRule   // also beside the others, where TLS is ended
	Ends     *TLSSecrets // where it is, before the rules read
	Listener *Listener   // that gets the connections; it stands alone
}

// L7Set is the application rules that apply to the connections of one subject,
// direction, peer and port. It is plain data, so that it can be sent to a
// backend; CompileSet makes it answer.
type L7Set struct {
	ID           SetID
	Protocol     Protocol
	HTTP         []HTTPRule
	GRPC         []GRPCRule
	Kafka        []KafkaRule
	DNS          []DNSRule
	TLS          []TLSRule
	Listener     *Listener // that gets the connections, and judges them
	Deny         *L7Rules  // what one of these matches is denied, whatever else matches
	DenyResponse *DenyResponse
	// Audit is what would apply if the policies that audit enforced: what it denies
	// is reported. Nil: the same.
	Audit *L7Set
	Ends  *TLSSecrets // where TLS ends before the rules read; nil: there is none
	// Observed: no policy that enforces has rules here. All is allowed, also what
	// cannot be read.
	Observed bool
}

// HTTPRule matches requests. Empty fields match everything; Method, Path and
// Host are RE2 expressions that must match the whole value (Path with its
// query, Host with its port).
type HTTPRule struct {
	Method  string
	Path    string
	Host    string
	Headers []HeaderRule // all must match
	// Edits are headers that are put right, not asked for: they never keep the
	// rule from matching.
	Edits []HeaderEdit
	// Secrets are headers whose value is in a secret. Who cannot read them must
	// take the rule for one that matches nothing.
	Secrets []SecretHeader
	Ref     Ref
}

// HeaderRule wants a header to be present and, if Value is not empty, its value
// to be exactly that. Names compare without case. A header that was sent several
// times has one value, all of them joined with commas: otherwise a second value
// that the server prefers would pass with the first.
type HeaderRule struct {
	Name  string
	Value string
}

// HeaderAction is what is done with a request whose header is not as it should be.
type HeaderAction uint8

const (
	HeaderLog     HeaderAction = 1 // nothing, but it is reported
	HeaderAdd     HeaderAction = 2 // the value is added to those that are there
	HeaderDelete  HeaderAction = 3 // the header is taken out
	HeaderReplace HeaderAction = 4 // the header gets the value
)

// HeaderEdit says what becomes of a header that is not there, or not with the
// value. The value is that of the secret, if there is one and it can be read.
type HeaderEdit struct {
	HeaderRule
	Action HeaderAction
	Secret *SecretRef
}

// SecretHeader is a HeaderRule whose value is in a secret. Value stands in for one
// that cannot be read.
type SecretHeader struct {
	Name   string
	Secret SecretRef
	Value  string
}

// GRPCRule matches calls. Empty fields match everything; "*" stands for any
// characters, also none.
type GRPCRule struct {
	Service string
	Method  string
	Ref     Ref
}

// KafkaRule matches requests. Empty fields match everything, but only of the
// APIs that are known, and where the rule names a topic, group or transactional
// id without naming APIs, only what programs use those by, no administration. In Topic, Group
// and TransactionalID "*" stands for any characters. What a request does not
// carry is not asked of it.
type KafkaRule struct {
	Role            string // "produce" or "consume", already expanded to APIKeys
	APIKeys         []int16
	HasVersion      bool
	APIVersion      int16
	ClientID        string
	Topic           string
	Group           string
	TransactionalID string
	Ref             Ref
}

// DNSRule matches questions by name: exactly, or by a pattern. An empty rule
// matches every question.
type DNSRule struct {
	Name    string
	Pattern string   // see DNSPattern
	Types   []uint16 // of questions; none: all
	Ref     Ref
}

// TLSRule matches handshakes by the server name that the client gives. An empty
// rule matches also those that give none.
type TLSRule struct {
	ServerName string // a DNSPattern
	Ref        Ref
}

// JudgesNames reports whether any rule of the set is about server names.
func (s *L7Set) JudgesNames() bool {
	return s != nil && (s.Protocol == ProtocolTLS || len(s.TLS) > 0 || s.Audit.JudgesNames())
}

// L7Table is every L7 set that a Table points to.
type L7Table map[SetID]*L7Set

// family is what one port can have one of: gRPC counts as HTTP.
func (r *L7Rules) family() Protocol {
	if r.Protocol == ProtocolGRPC {
		return ProtocolHTTP
	}
	return r.Protocol
}

// everything returns rules of the same protocol that match every request.
func (r *L7Rules) everything(ref Ref) *L7Rules {
	all := &L7Rules{Protocol: r.family(), Ends: r.Ends}
	switch all.Protocol {
	case ProtocolHTTP:
		all.HTTP = []HTTPRule{{Ref: ref}, {Method: connectMethod, Ref: ref}}
	case ProtocolKafka:
		all.Kafka = []KafkaRule{{Ref: ref}}
	case ProtocolDNS:
		all.DNS = []DNSRule{{Ref: ref}}
	case ProtocolTLS:
		all.TLS = []TLSRule{{Ref: ref}}
	}
	if len(r.TLS) > 0 {
		all.TLS = []TLSRule{{Ref: ref}}
	}
	return all
}

// and returns the rules of both.
func (r *L7Rules) and(o *L7Rules) *L7Rules {
	return &L7Rules{
		Protocol: r.family(),
		HTTP:     slices.Concat(r.HTTP, o.HTTP),
		GRPC:     slices.Concat(r.GRPC, o.GRPC),
		Kafka:    slices.Concat(r.Kafka, o.Kafka),
		DNS:      slices.Concat(r.DNS, o.DNS),
		TLS:      slices.Concat(r.TLS, o.TLS),
		Ends:     r.Ends.or(o.Ends),
	}
}
