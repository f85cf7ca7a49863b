package proxy

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/observe"
)

const (
	// maxBatch bounds what a proxy may send of records at once; its chunks are of 64 KiB.
	maxBatch = 4 << 20
	// scanAtOnce is how many records are handed over together, so that their digests stay
	// in the processor's cache, and are few whatever a proxy sends.
	scanAtOnce = 256
)

// rawBatch is a RecordBatch as it came. The observer keeps it, and decodes the records that
// somebody wants to see.
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

// Record implements observe.Encoded. A place is where the record's field begins.
func (b rawBatch) Record(place uint32) observe.Record {
	var r proxyv1.Record
	_, _, from, to := field(b, int(place))
	if to < 0 || proto.Unmarshal(b[from:to], &r) != nil { // it was scanned, so this does not happen
		return observe.Record{Kind: observe.KindL7, Word: observe.Errored, Detail: "the record cannot be read"}
	}
	return recordFromProto(&r)
}

// batch hands a batch over, a part at a time, and how many records the proxy says are lost
// before it, with the last part. A batch in which anything is malformed is an error; parts
// before it are handed over.
func (s *scanner) batch(b rawBatch, hand func(part observe.Batch, lost uint64)) error {
	var lost uint64
	whole := len(b) // each part keeps all of it
	flush := func() {
		hand(observe.Batch{Digests: s.digests, Records: b, Bytes: whole}, lost)
		s.digests, s.addresses, whole, lost = s.digests[:0], s.addresses[:0], 0, 0
		if cap(s.addresses) > scanAtOnce*maxShown { // nobody means so many
			s.addresses = nil
		}
	}
	s.digests, s.addresses = s.digests[:0], s.addresses[:0]
	for at := 0; at < len(b); {
		tag, value, from, to := field(b, at)
		if to < 0 {
			return errBatch
		}
		switch tag {
		case batchRecords<<3 | text:
			if len(s.digests) == scanAtOnce {
				flush()
			}
			s.digests = append(s.digests, observe.Digest{})
			d := &s.digests[len(s.digests)-1]
			if err := s.scan(b[from:to], d); err != nil {
				return err
			}
			d.Place = uint32(at)
		case batchLost<<3 | number:
			lost = value
		}
		at = to
	}
	if len(s.digests) > 0 || lost > 0 {
		flush()
	}
	return nil
}
