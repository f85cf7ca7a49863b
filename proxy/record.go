package proxy

import (
	"net/netip"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// Field numbers of Record in proxy.proto. Records are encoded by hand, because
// there are two for each request and they must cost no allocation; a test
// compares with what the generated code reads.
const (
	fieldTime                = 1
	fieldSource              = 2
	fieldDestination         = 3
	fieldSourcePort          = 4
	fieldDestinationPort     = 5
	fieldSourceIdentity      = 6
	fieldDestinationIdentity = 7
	fieldDirection           = 8
	fieldWord                = 9
	fieldReply               = 10
	fieldRule                = 11
	fieldNearest             = 12
	fieldDetail              = 13
	fieldMethod              = 14
	fieldURL                 = 15
	fieldProtocol            = 16
	fieldStatus              = 17
	fieldLatency             = 18
	fieldHeaders             = 19
	fieldReason              = 20

	maxDetail = 512
	maxMethod = 32
)

func appendUint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.VarintType)
	return protowire.AppendVarint(b, v)
}

func appendString(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func appendRef(b []byte, field protowire.Number, r policy.Ref) []byte {
	if r == (policy.Ref{}) {
		return b
	}
	size := 0
	if r.Policy != "" {
		size += protowire.SizeTag(1) + protowire.SizeBytes(len(r.Policy))
	}
	if r.Path != "" {
		size += protowire.SizeTag(2) + protowire.SizeBytes(len(r.Path))
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(size))
	b = appendString(b, 1, r.Policy)
	return appendString(b, 2, r.Path)
}

// appendClean appends what strangers sent so that it can be shown: bytes that
// are no printable ASCII become %XX, and at most limit bytes are taken.
func appendClean[T string | []byte](b []byte, s T, limit int) []byte {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s) && i < limit; i++ {
		if c := s[i]; c > ' ' && c < 0x7f {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// appendCleanText does the same for words between which spaces may stand.
func appendCleanText(b []byte, field protowire.Number, s string) []byte {
	if s == "" {
		return b
	}
	text := make([]byte, 0, min(len(s), maxDetail))
	for i := 0; i < len(s) && i < maxDetail; i++ {
		if s[i] == ' ' {
			text = append(text, ' ')
		} else {
			text = appendClean(text, s[i:i+1], 1)
		}
	}
	b = protowire.AppendTag(b, field, protowire.BytesType)
	return protowire.AppendBytes(b, text)
}

func appendAddr(b []byte, field protowire.Number, a netip.Addr) []byte {
	b = protowire.AppendTag(b, field, protowire.BytesType)
	if a.Is4() {
		v := a.As4()
		return protowire.AppendBytes(b, v[:])
	}
	v := a.As16()
	return protowire.AppendBytes(b, v[:])
}

// appendEnds appends what all records of a connection share.
func appendEnds(b []byte, source, destination netip.AddrPort, from, to policy.Identity) []byte {
	b = appendAddr(b, fieldSource, source.Addr())
	b = appendAddr(b, fieldDestination, destination.Addr())
	b = appendUint(b, fieldSourcePort, uint64(source.Port()))
	b = appendUint(b, fieldDestinationPort, uint64(destination.Port()))
	b = appendUint(b, fieldSourceIdentity, uint64(from))
	return appendUint(b, fieldDestinationIdentity, uint64(to))
}

// site is what a connection says of each of its requests.
type site struct {
	scheme, protocol string // "http://", "HTTP/1.1"
	host             netip.AddrPort
}

func (c *conn) site() site {
	s := site{"http://", c.protocol, c.destination}
	if c.ending != nil && c.ending.client != nil {
		s.scheme = "https://"
	}
	return s
}

// appendHTTP appends the request itself. url is scratch that is returned grown.
func appendHTTP(b, url []byte, r *policy.HTTPRequest, at site, limit int) (record, scratch []byte) {
	url = append(url[:0], at.scheme...)
	if len(r.Host) > 0 {
		url = appendClean(url, r.Host, 256)
	} else {
		url = at.host.AppendTo(url)
	}
	url = appendClean(url, r.Path, max(0, limit-len(url)))

	var method [3 * maxMethod]byte
	b = protowire.AppendTag(b, fieldMethod, protowire.BytesType)
	b = protowire.AppendBytes(b, appendClean(method[:0], r.Method, maxMethod))
	b = protowire.AppendTag(b, fieldURL, protowire.BytesType)
	b = protowire.AppendBytes(b, url)
	return appendString(b, fieldProtocol, at.protocol), url
}

// appendVerdict appends the time and what became of it.
func appendVerdict(b []byte, at time.Time, word observe.Word, reason observe.DropReason) []byte {
	b = appendUint(b, fieldTime, uint64(at.UnixNano()))
	b = appendUint(b, fieldWord, uint64(word))
	return appendUint(b, fieldReason, uint64(reason))
}

// appendDecision appends who decided and why.
func appendDecision(b []byte, d *policy.Decision, direction policy.Direction) []byte {
	b = appendUint(b, fieldDirection, uint64(direction))
	b = appendRef(b, fieldRule, d.Rule)
	b = appendRef(b, fieldNearest, d.Nearest)
	return appendCleanText(b, fieldDetail, d.Reason)
}

// appendCall appends the outcome of a gRPC call, as headers: flows have no other
// place for it. The counts are no headers of the call's.
func appendCall(b []byte, c *parsers.Call) []byte {
	if c.Status >= 0 {
		b = appendNumber(b, "grpc-status", uint64(c.Status))
	}
	b = appendNumber(b, "x-grpc-messages-sent", c.Sent)
	return appendNumber(b, "x-grpc-messages-received", c.Received)
}

func appendNumber(b []byte, name string, n uint64) []byte {
	var digits [20]byte
	value := strconv.AppendUint(digits[:0], n, 10)
	b = protowire.AppendTag(b, fieldHeaders, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(2*protowire.SizeTag(1)+protowire.SizeBytes(len(name))+protowire.SizeBytes(len(value))))
	b = appendString(b, 1, name)
	b = protowire.AppendTag(b, 2, protowire.BytesType)
	return protowire.AppendBytes(b, value)
}
