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

// A tag is a field's number with the type that it must have to be that field.
const (
	number = uint64(protowire.VarintType)
	text   = uint64(protowire.BytesType)
)

// field reads the field at a place of a message: its tag, its value if that is a number, and
// else its bytes from one place to another. It ends before to; that is negative if the
// message is malformed.
func field(message []byte, at int) (tag, value uint64, from, to int) {
	tag, n := varint(message[at:])
	at += n
	if n < 0 || tag>>3 < uint64(protowire.MinValidNumber) || tag>>3 > uint64(protowire.MaxValidNumber) {
		return 0, 0, 0, -1
	}
	switch protowire.Type(tag & 7) {
	case protowire.VarintType:
		value, n = varint(message[at:])
	case protowire.BytesType:
		value, n = varint(message[at:])
		if n < 0 || value > uint64(len(message)-at-n) {
			return 0, 0, 0, -1
		}
		return tag, 0, at + n, at + n + int(value)
	default: // none of ours
		n = protowire.ConsumeFieldValue(protowire.Number(tag>>3), protowire.Type(tag&7), message[at:])
	}
	if n < 0 {
		return 0, 0, 0, -1
	}
	return tag, value, at, at + n
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

// scanner makes digests of a batch's records.
type scanner struct {
	digests   []observe.Digest
	addresses []netip.Addr // that digests point to
	rule      []byte       // the last one, which most records are about, was found good
}

// scanned is what is known of a record while it is read.
type scanned struct {
	time            int64
	ports           [2]uint16
	addrs           [2]netip.Addr
	status          uint32
	kafka, dns, tls bool
	addresses       int // where those of the answer begin
}

// scan takes the digest of one record. Of a field that is there more than once the last
// counts, and messages are merged.
func (s *scanner) scan(record []byte, d *observe.Digest) error {
	r := scanned{addresses: len(s.addresses)}
	for at := 0; at < len(record); {
		tag, value, from, to := field(record, at)
		if to < 0 {
			return errBatch
		}
		at = to
		good := true
		switch tag {
		case fieldTime<<3 | number:
			r.time = int64(value)
		case fieldSource<<3 | text:
			r.addrs[0], _ = netip.AddrFromSlice(record[from:to])
		case fieldDestination<<3 | text:
			r.addrs[1], _ = netip.AddrFromSlice(record[from:to])
		case fieldSourcePort<<3 | number:
			r.ports[0] = uint16(value)
		case fieldDestinationPort<<3 | number:
			r.ports[1] = uint16(value)
		case fieldSourceIdentity<<3 | number:
			d.SourceIdentity = policy.Identity(value)
		case fieldDestinationIdentity<<3 | number:
			d.DestinationIdentity = policy.Identity(value)
		case fieldDirection<<3 | number:
			d.Direction = policy.Direction(value)
		case fieldWord<<3 | number:
			d.Word = observe.Word(value)
		case fieldReply<<3 | number:
			d.Reply = value != 0
		case fieldStatus<<3 | number:
			r.status = uint32(value)
		case fieldLatency<<3 | number:
			d.Latency = time.Duration(value)
		case fieldReason<<3 | number:
			d.Reason = observe.DropReason(value)
		case fieldMethod<<3 | text:
			d.Method = record[from:to]
			good = utf8.Valid(d.Method)
		case fieldDetail<<3 | text, fieldURL<<3 | text, fieldProtocol<<3 | text:
			good = utf8.Valid(record[from:to])
		case fieldRule<<3 | text:
			good = s.knownRule(record[from:to])
		case fieldNearest<<3 | text, fieldHeaders<<3 | text:
			good = texts(record[from:to], 2)
		default:
			good = s.layer(tag, record[from:to], &r, d)
		}
		if !good {
			return errBatch
		}
	}
	r.settle(d, s.addresses[r.addresses:])
	return nil
}

// layer reads the fields that tell what the record is about.
func (s *scanner) layer(tag uint64, message []byte, r *scanned, d *observe.Digest) (good bool) {
	switch tag {
	case fieldKafka<<3 | text:
		r.kafka = true
		return scanKafka(message, d)
	case fieldDNS<<3 | text:
		r.dns = true
		return s.scanDNS(message, d)
	case fieldTLS<<3 | text:
		r.tls = true
		return texts(message, tlsServerName)
	}
	return true
}

func (s *scanner) knownRule(rule []byte) (good bool) {
	if s.rule != nil && bytes.Equal(rule, s.rule) {
		return true
	}
	if good = texts(rule, 2); good {
		s.rule = rule
	}
	return good
}

// texts reads a message of which fields up to last are strings (Ref, Header, TLSRecord).
func texts(message []byte, last uint64) (good bool) {
	for at := 0; at < len(message); {
		tag, _, from, to := field(message, at)
		if to < 0 || tag&7 == text && tag>>3 <= last && !utf8.Valid(message[from:to]) {
			return false
		}
		at = to
	}
	return true
}

func scanKafka(message []byte, d *observe.Digest) (good bool) {
	for at := 0; at < len(message); {
		tag, value, from, to := field(message, at)
		if to < 0 {
			return false
		}
		at = to
		switch tag {
		case kafkaKey<<3 | number:
			d.APIKey = int16(value)
		case kafkaTopic<<3 | text:
			d.Topic = message[from:to]
			fallthrough
		case kafkaClient<<3 | text, kafkaGroup<<3 | text, kafkaTransaction<<3 | text:
			if !utf8.Valid(message[from:to]) {
				return false
			}
		}
	}
	return true
}

func (s *scanner) scanDNS(message []byte, d *observe.Digest) (good bool) {
	for at := 0; at < len(message); {
		tag, value, from, to := field(message, at)
		if to < 0 {
			return false
		}
		at = to
		switch tag {
		case dnsType<<3 | number:
			d.Type = uint16(value)
		case dnsRcode<<3 | number:
			d.Rcode = uint16(value)
		case dnsQuery<<3 | text:
			d.Query = message[from:to]
			fallthrough
		case dnsChain<<3 | text:
			if !utf8.Valid(message[from:to]) {
				return false
			}
		case dnsAddress<<3 | text:
			if a, ok := netip.AddrFromSlice(message[from:to]); ok {
				s.addresses = append(s.addresses, a)
			}
		}
	}
	return true
}

// settle says what the record is about, as recordFromProto does.
func (r *scanned) settle(d *observe.Digest, addresses []netip.Addr) {
	d.Kind, d.Time = observe.KindL7, time.Unix(0, r.time)
	d.Source, d.Destination = netip.AddrPortFrom(r.addrs[0], r.ports[0]), netip.AddrPortFrom(r.addrs[1], r.ports[1])
	switch {
	case r.kafka:
		d.Layer, d.ErrorCode = observe.LayerKafka, int16(r.status)
	case r.tls:
		d.Layer = observe.LayerTLS
	case r.dns:
		d.Layer, d.Addresses = observe.LayerDNS, addresses[:min(len(addresses), maxShown)]
	case len(d.Method) > 0 || r.status != 0:
		d.Layer, d.Status = observe.LayerHTTP, int(r.status)
	case d.Reason != observe.ReasonNone:
		d.Kind = observe.KindDrop // a connection that was refused
	}
}
