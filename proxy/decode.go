package proxy

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// The agent reads records by hand, too: at a hundred thousand requests a second it
// would otherwise cost more than what it tells of. Strings are parts of the batch.

// rawBatch is a RecordBatch as it came.
type rawBatch []byte

// rawCodec leaves batches alone.
type rawCodec struct{ encoding.CodecV2 }

func (c rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	if b, ok := v.(*rawBatch); ok {
		*b = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

var errBatch = errors.New("read records: the batch is malformed")

// records reads a batch.
func (b rawBatch) records() (records []observe.Record, lost uint64, err error) {
	text := string(b)
	records = make([]observe.Record, 0, len(b)/100)
	requests := make([]observe.HTTP, 0, cap(records)) // pointed into, so it must not grow
	for at := 0; at < len(b); {
		field, kind, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return nil, 0, errBatch
		}
		at += n
		size := protowire.ConsumeFieldValue(field, kind, b[at:])
		if size < 0 {
			return nil, 0, errBatch
		}
		switch {
		case field == batchRecords && kind == protowire.BytesType:
			value, _ := protowire.ConsumeBytes(b[at:])
			if len(requests) == cap(requests) {
				requests = make([]observe.HTTP, 0, len(b[at:])/100+1)
			}
			requests = requests[:len(requests)+1]
			d := decoder{data: value, text: text[at+size-len(value) : at+size], http: &requests[len(requests)-1]}
			r, err := d.record()
			if err != nil {
				return nil, 0, err
			}
			records = append(records, r)
		case field == batchLost && kind == protowire.VarintType:
			lost, _ = protowire.ConsumeVarint(b[at:])
		}
		at += size
	}
	return records, lost, nil
}

// decoder reads one record, of which text is a copy.
type decoder struct {
	data []byte
	text string
	http *observe.HTTP
	bad  bool // a string is no text
}

// record reads what most records are made of. One with a field that is not known here
// is left to the generated code.
func (d *decoder) record() (observe.Record, error) {
	r := observe.Record{Kind: observe.KindL7, Proto: policy.ProtoTCP}
	var ports [2]uint64
	var addrs [2]netip.Addr
	for at := 0; at < len(d.data); {
		field, kind, n := protowire.ConsumeTag(d.data[at:])
		if n < 0 {
			return r, errBatch
		}
		at += n
		var number uint64
		var from, to int // of bytes
		switch kind {
		case protowire.VarintType:
			number, n = protowire.ConsumeVarint(d.data[at:])
		case protowire.BytesType:
			var value []byte
			value, n = protowire.ConsumeBytes(d.data[at:])
			from, to = at+n-len(value), at+n
		default:
			return d.generated()
		}
		if n < 0 {
			return r, errBatch
		}
		at += n
		switch field {
		case fieldTime:
			r.Time = time.Unix(0, int64(number))
		case fieldSource:
			addrs[0], _ = netip.AddrFromSlice(d.data[from:to])
		case fieldDestination:
			addrs[1], _ = netip.AddrFromSlice(d.data[from:to])
		case fieldSourcePort:
			ports[0] = number
		case fieldDestinationPort:
			ports[1] = number
		case fieldSourceIdentity:
			r.SourceIdentity = policy.Identity(number)
		case fieldDestinationIdentity:
			r.DestinationIdentity = policy.Identity(number)
		case fieldDirection:
			r.Direction = policy.Direction(number)
		case fieldWord:
			r.Word = observe.Word(number)
		case fieldReply:
			r.Reply = number != 0
		case fieldRule:
			r.Rule = d.ref(from, to)
		case fieldNearest:
			r.Nearest = d.ref(from, to)
		case fieldDetail:
			r.Detail = d.string(from, to)
		case fieldMethod:
			d.http.Method = d.string(from, to)
		case fieldURL:
			d.http.URL = d.string(from, to)
		case fieldProtocol:
			d.http.Protocol = d.string(from, to)
		case fieldStatus:
			d.http.Status = int(number)
		case fieldLatency:
			d.http.Latency = time.Duration(number)
		case fieldReason:
			r.Reason = observe.DropReason(number)
		default:
			return d.generated()
		}
	}
	if d.bad {
		return r, errBatch
	}
	r.Source = netip.AddrPortFrom(addrs[0], uint16(ports[0]))
	r.Destination = netip.AddrPortFrom(addrs[1], uint16(ports[1]))
	if d.http.Method != "" || d.http.Status != 0 {
		r.HTTP = d.http
	} else if r.Reason != observe.ReasonNone {
		r.Kind = observe.KindDrop // a connection that was refused
	}
	return r, nil
}

func (d *decoder) string(from, to int) string {
	s := d.text[from:to]
	d.bad = d.bad || !utf8.ValidString(s)
	return s
}

func (d *decoder) ref(from, to int) (ref policy.Ref) {
	for at := from; at < to; {
		field, kind, n := protowire.ConsumeTag(d.data[at:to])
		if n < 0 || kind != protowire.BytesType {
			return ref
		}
		at += n
		value, n := protowire.ConsumeBytes(d.data[at:to])
		if n < 0 {
			return ref
		}
		at += n
		switch s := d.string(at-len(value), at); field {
		case 1:
			ref.Policy = s
		case 2:
			ref.Path = s
		}
	}
	return ref
}

func (d *decoder) generated() (observe.Record, error) {
	var r proxyv1.Record
	if err := proto.Unmarshal(d.data, &r); err != nil {
		return observe.Record{}, fmt.Errorf("read records: %w", err)
	}
	return recordFromProto(&r), nil
}
