package dns

import (
	"encoding/binary"
	"errors"
	"net/netip"
)

const (
	// maxChain bounds the aliases that are followed; resolvers give up far earlier.
	maxChain = 32
	// maxFollowed bounds the records that are looked at for them.
	maxFollowed = 4096
	// maxAddresses of one name; more is meant for somebody's memory.
	maxAddresses = 1024
	// maxTTL: the sign bit means nothing good (RFC 2181, 8).
	maxTTL = 1<<31 - 1
)

var (
	errLoop      = errors.New("its aliases lead round in a circle, or too far")
	errAddress   = errors.New("an address of a wrong length")
	errAddresses = errors.New("more addresses than any name has")
	errAlias     = errors.New("an alias that is no name")
	errAliases   = errors.New("two aliases of one name")
)

// Record is one address that an answer gives.
type Record struct {
	Addr netip.Addr
	TTL  uint32
}

// Found is what an answer says of the name that was asked. It can be used again: what
// it held is overwritten.
type Found struct {
	Chain   []string // names that aliases led to, in order, in normal form
	Records []Record
	// TTL is the shortest of all records on the way.
	TTL uint32
}

// rr is a record of the answer section of a message that was checked.
type rr struct {
	owner, data, end int
	typ, class       uint16
	ttl              uint32
}

func (m *Message) rr(at int) rr {
	i, err := skipName(m.Raw, at)
	if err != nil { // it was checked
		return rr{end: len(m.Raw)}
	}
	r := rr{owner: at, typ: binary.BigEndian.Uint16(m.Raw[i:]), class: binary.BigEndian.Uint16(m.Raw[i+2:]),
		ttl: binary.BigEndian.Uint32(m.Raw[i+4:]), data: i + 10}
	if r.ttl > maxTTL {
		r.ttl = 0
	}
	r.end = r.data + int(binary.BigEndian.Uint16(m.Raw[i+8:]))
	return r
}

// Find follows the aliases from the name that was asked and gathers the addresses at
// their ends. What the answer says of any other name does not count. Aliases need not
// stand in order. Nor do addresses of a type that was not asked for, or that stand in an
// answer which says that there are none: no resolver takes them.
func (m *Message) Find(f *Found) error {
	f.Chain, f.Records, f.TTL = f.Chain[:0], f.Records[:0], maxTTL
	if m.Class != classIN {
		return nil
	}
	name, looked := headerSize, 0
	for range maxChain {
		next := 0
		for i, at := 0, m.answer; i < m.Answers; i++ {
			if looked++; looked > maxFollowed {
				return errLoop
			}
			r := m.rr(at)
			at = r.end
			if r.class != classIN || r.typ != TypeA && r.typ != TypeAAAA && r.typ != TypeCNAME || !sameName(m.Raw, r.owner, m.Raw, name) {
				continue
			}
			if r.typ != TypeCNAME {
				if m.Rcode != NoError || m.Type != r.typ && m.Type != typeANY {
					continue
				}
				if err := f.add(m.Raw[r.data:r.end], r); err != nil {
					return err
				}
				continue
			}
			end, err := checkName(m.Raw, r.data)
			switch {
			case err != nil || end != r.end:
				return errAlias
			case next != 0 && !sameName(m.Raw, next, m.Raw, r.data):
				return errAliases
			}
			next, f.TTL = r.data, min(f.TTL, r.ttl)
		}
		if next == 0 {
			return nil
		}
		if m.Type == TypeCNAME { // the alias itself was asked for
			return f.follow(m.Raw, next)
		}
		if err := f.follow(m.Raw, next); err != nil {
			return err
		}
		name = next
	}
	return errLoop
}

func (f *Found) follow(m []byte, at int) error {
	var text [4 * maxName]byte
	b, err := appendName(text[:0], m, at)
	if err != nil {
		return errAlias
	}
	f.Chain = append(f.Chain, string(b))
	return nil
}

func (f *Found) add(data []byte, r rr) error {
	addr, ok := netip.AddrFromSlice(data)
	if !ok || addr.Is4() != (r.typ == TypeA) {
		return errAddress
	}
	addr = addr.Unmap()
	f.TTL = min(f.TTL, r.ttl)
	for i := range f.Records { // the same twice is once, for the longer time
		if f.Records[i].Addr == addr {
			f.Records[i].TTL = max(f.Records[i].TTL, r.ttl)
			return nil
		}
	}
	if len(f.Records) == maxAddresses {
		return errAddresses
	}
	f.Records = append(f.Records, Record{addr, r.ttl})
	return nil
}
