package observe

import (
	"net/netip"
	"time"

	"github.com/headgate/headgate/policy"
)

// Layer is what a proxy's record is about.
type Layer uint8

const (
	LayerNone Layer = iota
	LayerHTTP
	LayerKafka
	LayerDNS
	LayerTLS
)

// Digest is what of a record is needed when it arrives: it is counted, and who is behind its
// addresses is looked up. All else stays as it came until somebody asks. What is in slices
// is the source's, and good until the sink returns.
type Digest struct {
	Place uint32 // of the record in what it came in

	Kind      Kind
	Word      Word
	Direction policy.Direction
	Reason    DropReason
	Reply     bool
	Layer     Layer

	Time                                time.Time
	Source, Destination                 netip.AddrPort
	SourceIdentity, DestinationIdentity policy.Identity

	Latency time.Duration

	Method []byte // of HTTP
	Status int

	APIKey, ErrorCode int16 // of Kafka
	Topic             []byte

	Type, Rcode uint16 // of the DNS
	Query       []byte
	Addresses   []netip.Addr
}

// Encoded is records as their source has them. It is kept as long as the ring keeps one of
// them, and does not change.
type Encoded interface {
	// Record decodes the one at the place that its Digest names. It is called from many
	// goroutines.
	Record(place uint32) Record
}

// Batch is records that came together.
type Batch struct {
	Digests []Digest
	Records Encoded
	Bytes   int // of memory that Records holds, if it is not counted with another part
}

// Decoded is a batch of records that are not encoded.
func Decoded(records []Record) Batch {
	b := Batch{Digests: make([]Digest, len(records)), Records: decoded(records), Bytes: len(records) * recordSize}
	for i := range records {
		b.Digests[i] = records[i].Digest()
		b.Digests[i].Place = uint32(i)
	}
	return b
}

// recordSize is about what a record takes that is not encoded.
const recordSize = 512

type decoded []Record

func (d decoded) Record(place uint32) Record { return d[place] }

// Digest is that of a record, at place 0.
func (r *Record) Digest() Digest {
	d := Digest{
		Kind: r.Kind, Word: r.Word, Direction: r.Direction, Reason: r.Reason, Reply: r.Reply, Layer: r.layer(),
		Time: r.Time, Source: r.Source, Destination: r.Destination,
		SourceIdentity: r.SourceIdentity, DestinationIdentity: r.DestinationIdentity,
	}
	switch d.Layer {
	case LayerHTTP:
		d.Method, d.Status, d.Latency = []byte(r.HTTP.Method), r.HTTP.Status, r.HTTP.Latency
	case LayerKafka:
		k := r.Kafka
		d.APIKey, d.ErrorCode, d.Topic, d.Latency = k.APIKey, k.ErrorCode, []byte(k.Topic), k.Latency
	case LayerDNS:
		q := r.DNS
		d.Type, d.Rcode, d.Query, d.Addresses, d.Latency = q.Type, q.Rcode, []byte(q.Query), q.Addresses, q.Latency
	}
	return d
}

func (r *Record) layer() Layer {
	switch {
	case r.HTTP != nil:
		return LayerHTTP
	case r.Kafka != nil:
		return LayerKafka
	case r.DNS != nil:
		return LayerDNS
	case r.TLS != nil:
		return LayerTLS
	}
	return LayerNone
}

// answer reports whether the record is a request's answer. A request that was
// refused got none from the server, whatever status the client was sent.
func (d *Digest) answer() bool {
	return d.Kind == KindL7 && (d.Reply || d.Layer == LayerHTTP && d.Status != 0 && !d.refused())
}

func (d *Digest) refused() bool { return d.Word == Dropped || d.Word == Errored }

// answer is that of the record's Digest.
func (r *Record) answer() bool {
	d := Digest{Kind: r.Kind, Word: r.Word, Reply: r.Reply, Layer: r.layer()}
	if r.HTTP != nil {
		d.Status = r.HTTP.Status
	}
	return d.answer()
}
