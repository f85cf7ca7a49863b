package proxy

import (
	"bytes"
	"errors"
	"net/netip"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
)

// The agent scans records as they come for what must be known at once, and checks them as
// strictly as the generated code does, which decodes them when somebody wants to see one.
// At a hundred thousand requests a second anything else costs more than what it tells of.

var errBatch = errors.New("read records: the batch is malformed")

// fields reads a message field by field, by the rules of the generated code.
type fields struct {
	data []byte
	at   int  // where the next field begins
	bad  bool // malformed: the end for everybody who reads it

	number protowire.Number
	kind   protowire.Type
	value  uint64 // of VarintType
	bytes  []byte // of BytesType
	place  int    // of its length
}

// next goes to the next field, if there is one.
func (f *fields) next() bool {
	if f.at >= len(f.data) || f.bad {
		return false
	}
	rest := f.data[f.at:]
	tag, n := varint(rest)
	number := tag >> 3
	if n < 0 || number < uint64(protowire.MinValidNumber) || number > uint64(protowire.MaxValidNumber) {
		f.bad = true
		return false
	}
	rest = rest[n:]
	f.number, f.kind = protowire.Number(number), protowire.Type(tag&7)
	switch f.kind {
	case protowire.VarintType:
		f.value, n = varint(rest)
	case protowire.BytesType:
		f.place = len(f.data) - len(rest)
		var length uint64
		if length, n = varint(rest); n >= 0 {
			if length > uint64(len(rest)-n) {
				n = -1
			} else {
				f.bytes = rest[n:][:length]
				n += int(length)
			}
		}
	default: // none of ours
		n = protowire.ConsumeFieldValue(f.number, f.kind, rest)
	}
	f.bad = n < 0
	f.at = len(f.data) - len(rest) + n
	return !f.bad
}

// varint is quicker than protowire's for the lengths that are common.
func varint(b []byte) (v uint64, n int) {
	switch {
	case len(b) > 0 && b[0] < 0x80:
		return uint64(b[0]), 1
	case len(b) > 1 && b[1] < 0x80:
		return uint64(b[0]&0x7f) | uint64(b[1])<<7, 2
	}
	return protowire.ConsumeVarint(b)
}

// text is the field as a string.
func (f *fields) text() []byte {
	if !utf8.Valid(f.bytes) {
		f.bad = true
	}
	return f.bytes
}

// check takes the outcome of reading the field as a message.
func (f *fields) check(ok bool) { f.bad = f.bad || !ok }

// scanner makes digests of a batch's records.
type scanner struct {
	digests   []observe.Digest
	addresses []netip.Addr // that digests point to
	rule      []byte       // the last one, which most records are about, was found good
}

// scan takes the digest of one record. Of a field that is there more than once the last
// counts, and messages are merged.
func (s *scanner) scan(record []byte, d *observe.Digest) error {
	r := scanned{Digest: d, addresses: len(s.addresses)}
	f := fields{data: record}
	for f.next() {
		switch f.kind {
		case protowire.VarintType:
			r.number(f.number, f.value)
		case protowire.BytesType:
			s.bytes(&r, &f)
		}
	}
	if f.bad {
		return errBatch
	}
	r.settle(s.addresses[r.addresses:])
	return nil
}

// scanned is what is known of a record while it is read.
type scanned struct {
	*observe.Digest
	ports           [2]uint16
	addrs           [2]netip.Addr
	time            int64
	status          uint32
	kafka, dns, tls bool
	addresses       int // where those of the answer begin
}

func (r *scanned) number(field protowire.Number, v uint64) {
	switch field {
	case fieldTime:
		r.time = int64(v)
	case fieldSourcePort:
		r.ports[0] = uint16(v)
	case fieldDestinationPort:
		r.ports[1] = uint16(v)
	case fieldSourceIdentity:
		r.SourceIdentity = policy.Identity(v)
	case fieldDestinationIdentity:
		r.DestinationIdentity = policy.Identity(v)
	case fieldDirection:
		r.Direction = policy.Direction(v)
	case fieldWord:
		r.Word = observe.Word(v)
	case fieldReply:
		r.Reply = v != 0
	case fieldStatus:
		r.status = uint32(v)
	case fieldLatency:
		r.Latency = time.Duration(v)
	case fieldReason:
		r.Reason = observe.DropReason(v)
	}
}

func (s *scanner) bytes(r *scanned, f *fields) {
	switch f.number {
	case fieldSource:
		r.addrs[0], _ = netip.AddrFromSlice(f.bytes)
	case fieldDestination:
		r.addrs[1], _ = netip.AddrFromSlice(f.bytes)
	case fieldMethod:
		r.Method = f.text()
	case fieldDetail, fieldURL, fieldProtocol:
		f.text()
	case fieldRule:
		if !bytes.Equal(f.bytes, s.rule) && len(f.bytes) > 0 {
			f.check(texts(f.bytes, 2))
			s.rule = f.bytes
		}
	case fieldNearest, fieldHeaders:
		f.check(texts(f.bytes, 2))
	case fieldKafka:
		r.kafka = true
		f.check(r.scanKafka(f.bytes))
	case fieldDNS:
		r.dns = true
		f.check(s.scanDNS(r, f.bytes))
	case fieldTLS:
		r.tls = true
		f.check(texts(f.bytes, tlsServerName))
	}
}

// texts reads a message of which fields up to last are strings (Ref, Header, TLSRecord).
func texts(message []byte, last protowire.Number) (ok bool) {
	f := fields{data: message}
	for f.next() {
		if f.kind == protowire.BytesType && f.number <= last {
			f.text()
		}
	}
	return !f.bad
}

func (r *scanned) scanKafka(message []byte) (ok bool) {
	f := fields{data: message}
	for f.next() {
		switch {
		case f.kind == protowire.VarintType && f.number == kafkaKey:
			r.APIKey = int16(f.value)
		case f.kind == protowire.BytesType && f.number == kafkaTopic:
			r.Topic = f.text()
		case f.kind == protowire.BytesType && f.number >= kafkaClient && f.number <= kafkaTransaction:
			f.text()
		}
	}
	return !f.bad
}

func (s *scanner) scanDNS(r *scanned, message []byte) (ok bool) {
	f := fields{data: message}
	for f.next() {
		switch {
		case f.kind == protowire.VarintType && f.number == dnsType:
			r.Type = uint16(f.value)
		case f.kind == protowire.VarintType && f.number == dnsRcode:
			r.Rcode = uint16(f.value)
		case f.kind != protowire.BytesType:
		case f.number == dnsQuery:
			r.Query = f.text()
		case f.number == dnsChain:
			f.text()
		case f.number == dnsAddress:
			if a, ok := netip.AddrFromSlice(f.bytes); ok {
				s.addresses = append(s.addresses, a)
			}
		}
	}
	return !f.bad
}

// settle says what the record is about, as recordFromProto does.
func (r *scanned) settle(addresses []netip.Addr) {
	d := r.Digest
	d.Kind, d.Time = observe.KindL7, time.Unix(0, r.time)
	d.Source, d.Destination = netip.AddrPortFrom(r.addrs[0], r.ports[0]), netip.AddrPortFrom(r.addrs[1], r.ports[1])
	switch {
	case r.kafka:
		d.Layer, d.ErrorCode = observe.LayerKafka, int16(r.status)
	case r.tls:
		d.Layer = observe.LayerTLS
	case r.dns:
		d.Layer, d.Addresses = observe.LayerDNS, addresses
	case len(d.Method) > 0 || r.status != 0:
		d.Layer, d.Status = observe.LayerHTTP, int(r.status)
	case d.Reason != observe.ReasonNone:
		d.Kind = observe.KindDrop // a connection that was refused
	}
}
