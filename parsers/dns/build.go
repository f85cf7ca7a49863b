package dns

import "encoding/binary"

// AppendDenial appends the answer that a question gets which goes no further: the same
// id, the same question to the byte, an OPT record if there was one.
func AppendDenial(b []byte, q *Message, rcode uint16) []byte {
	return appendHead(b, q, rcode, 0)
}

// AppendTruncated appends the answer that makes a client ask again by TCP.
func AppendTruncated(b []byte, q *Message) []byte {
	return appendHead(b, q, NoError, flagTruncated)
}

func appendHead(b []byte, q *Message, rcode, more uint16) []byte {
	asked := binary.BigEndian.Uint16(q.Raw[2:])
	flags := flagAnswer | flagAvailable | asked&(flagDesired|flagChecking) | rcode&0xf | more
	b = binary.BigEndian.AppendUint16(b, q.ID)
	b = binary.BigEndian.AppendUint16(b, flags)
	b = append(b, 0, 1, 0, 0, 0, 0, 0, 0)
	b = append(b, q.Question()...)
	if q.opt != 0 {
		b[len(b)-len(q.Question())-1] = 1
		do := byte(0)
		if q.DO { // RFC 3225, 3: it is copied
			do = 0x80
		}
		b = append(b, 0, 0, typeOPT, MaxUDP>>8, MaxUDP&0xff, byte(rcode>>4), 0, do, 0, 0, 0)
	}
	return b
}

// AppendRefusal appends the answer to what cannot be read but has a header and is no
// answer: REFUSED, with nothing but the id. Otherwise it appends nothing.
func AppendRefusal(b, raw []byte, rcode uint16) []byte {
	if len(raw) < headerSize || IsAnswer(raw) {
		return b
	}
	flags := binary.BigEndian.Uint16(raw[2:])
	b = append(b, raw[0], raw[1])
	b = binary.BigEndian.AppendUint16(b, flagAnswer|flagAvailable|flags&(opcodeMask|flagDesired)|rcode&0xf)
	return append(b, 0, 0, 0, 0, 0, 0, 0, 0)
}
