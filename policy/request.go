package policy

// Protocol is an application protocol that a proxy understands.
type Protocol uint8

const (
	ProtocolNone  Protocol = 0
	ProtocolHTTP  Protocol = 1
	ProtocolGRPC  Protocol = 2
	ProtocolKafka Protocol = 3
	ProtocolDNS   Protocol = 4
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
	Reason  string
}
