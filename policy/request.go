package policy

// Protocol is an application protocol that a proxy understands.
type Protocol uint8

const (
	ProtocolNone  Protocol = 0
	ProtocolHTTP  Protocol = 1
	ProtocolGRPC  Protocol = 2
	ProtocolKafka Protocol = 3
	ProtocolDNS   Protocol = 4
	ProtocolTLS   Protocol = 5 // the server name of the handshake alone
	// ProtocolListener is whatever a listener of Envoy understands that a policy hands
	// connections to.
	ProtocolListener Protocol = 6
)

func (p Protocol) String() string {
	switch p {
	case ProtocolHTTP:
		return "http"
	case ProtocolGRPC:
		return "grpc"
	case ProtocolKafka:
		return "kafka"
	case ProtocolDNS:
		return "dns"
	case ProtocolTLS:
		return "tls"
	case ProtocolListener:
		return "listener"
	}
	return "none"
}

// Request is one request of an application protocol, parsed.
type Request interface{ Protocol() Protocol }

// HTTPRequest is a request as it is judged and forwarded: the path is in normal
// form. The byte slices belong to the caller and are valid during the call only.
type HTTPRequest struct {
	Method  []byte
	Path    []byte // with its query
	Host    []byte // Host or :authority, as sent, port included
	Headers []HTTPHeader
}

// HTTPHeader is one header field, name as received (case kept), value without
// surrounding white space.
type HTTPHeader struct{ Name, Value []byte }

// Protocol implements Request.
func (*HTTPRequest) Protocol() Protocol { return ProtocolHTTP }

// GRPCRequest is one call. Its parts belong to the caller as those of an
// HTTPRequest do, which it is judged as too: POST /Service/Method.
type GRPCRequest struct {
	Service []byte // with its package
	Method  []byte
	Host    []byte
	Headers []HTTPHeader
}

// Protocol implements Request.
func (*GRPCRequest) Protocol() Protocol { return ProtocolGRPC }

// KafkaRequest is a request as far as it is about one topic: one with several is
// judged once for each. What it does not carry is empty. A topic that it names
// by an id which is not known must not be left empty: then no rule is asked
// about it.
type KafkaRequest struct {
	APIKey          int16
	APIVersion      int16
	ClientID        string
	Topic           string
	Group           string
	TransactionalID string
	CorrelationID   int32 // for records; no rule asks for it
}

// Protocol implements Request.
func (*KafkaRequest) Protocol() Protocol { return ProtocolKafka }

// DNSRequest is one question.
type DNSRequest struct {
	Name string // with or without the dot at its end, in any case
	Type uint16
}

// Protocol implements Request.
func (*DNSRequest) Protocol() Protocol { return ProtocolDNS }

// TLSRequest is what a client says in the open when TLS begins.
type TLSRequest struct {
	ServerName string // empty: it named none
}

// Protocol implements Request.
func (*TLSRequest) Protocol() Protocol { return ProtocolTLS }

// SetID is the content hash of an L7 set: equal rules have equal ids, on every
// node and after every restart. The zero SetID is no set: nothing to check.
type SetID [16]byte

// Decision is what an L7 set says of a request. Rule is the rule that decided;
// when nothing matched, Nearest names the rule that came nearest and Reason says
// what would have had to differ.
type Decision struct {
	Verdict Verdict
	Rule    Ref
	Nearest Ref
	Reason  string // of what is allowed: what was found of its headers, never a value
	// Edited: the request goes on with Headers instead of its own.
	Edited  bool
	Headers []HTTPHeader
	// Response is what the client of a denied request gets; nil: the usual.
	Response *DenyResponse
	// Audit is the denial that policies that audit would have given, nil: none.
	Audit *Decision
}
