package bpf

import (
	"encoding/binary"
	"net"
	"net/netip"
)

// EtherTypes and protocols that the tests send.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd

	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoGRE    = 47
	protoICMPv6 = 58
	protoSCTP   = 132

	fin = 1
	syn = 2
	rst = 4
	ack = 16

	sctpData        = 0
	sctpInit        = 1
	sctpInitAck     = 2
	sctpAbort       = 6
	sctpShutdown    = 7
	sctpShutdownAck = 8
	sctpCookie      = 10
)

// frame is a packet on the wire, field by field; the family is that of src.
type frame struct {
	dstMAC, srcMAC net.HardwareAddr
	src, dst       netip.Addr
	proto          uint8
	sport, dport   uint16
	flags          uint8 // TCP
	seq, ackn      uint32
	icmpType       uint8 // ICMP
	icmpCode       uint8
	id             uint16 // ICMP echo
	icmpMTU        int    // ICMP, packet too big
	ttl            uint8
	options        []byte // IPv4, a multiple of 4 bytes
	fragment       uint16 // IPv4: flags and offset; IPv6: the same of a fragment header, which it puts in
	datagram       uint32 // the fragment's id
	extensions     []extension
	payload        []byte
	body           []byte // what follows the IP headers, if it is no transport of ours
}

// extension is an IPv6 extension header; its first byte is filled in.
type extension struct {
	kind  uint8
	bytes []byte
}

func (f frame) bytes() []byte {
	l4 := f.body
	if l4 == nil {
		l4 = f.transport()
	}
	b := append(append([]byte{}, f.dstMAC...), f.srcMAC...)
	if f.src.Is4() {
		b = binary.BigEndian.AppendUint16(b, etherIPv4)
		return append(append(b, f.header4(len(l4))...), l4...)
	}
	b = binary.BigEndian.AppendUint16(b, etherIPv6)
	return append(append(b, f.header6(len(l4))...), l4...)
}

func (f frame) header4(n int) []byte {
	h := make([]byte, 20, 20+len(f.options))
	h[0] = 0x40 | byte(5+len(f.options)/4)
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(f.options)+n))
	binary.BigEndian.PutUint16(h[4:], uint16(f.datagram))
	binary.BigEndian.PutUint16(h[6:], f.fragment)
	h[8], h[9] = f.ttl, f.proto
	copy(h[12:], f.src.AsSlice())
	copy(h[16:], f.dst.AsSlice())
	h = append(h, f.options...)
	binary.BigEndian.PutUint16(h[10:], ^sum(h))
	return h
}

func (f frame) header6(n int) []byte {
	h := make([]byte, 40)
	h[0], h[6], h[7] = 0x60, f.proto, f.ttl
	copy(h[8:], f.src.AsSlice())
	copy(h[24:], f.dst.AsSlice())
	next := 6 // where the kind of the next header stands
	extensions := f.extensions
	if f.fragment != 0 {
		extensions = append(extensions[:len(extensions):len(extensions)], fragmentHeader(f.fragment, f.datagram))
	}
	for _, e := range extensions {
		h[next], next = e.kind, len(h)
		h = append(h, e.bytes...)
		h[next] = f.proto
	}
	binary.BigEndian.PutUint16(h[4:], uint16(len(h)-40+n))
	return h
}

// fragmentHeader is IPv6's (RFC 8200, 4.5).
func fragmentHeader(where uint16, id uint32) extension {
	b := binary.BigEndian.AppendUint16([]byte{0, 0}, where)
	return extension{44, binary.BigEndian.AppendUint32(b, id)}
}

func (f frame) transport() []byte {
	var b []byte
	at := 0 // of the checksum
	switch f.proto {
	case protoTCP:
		b = make([]byte, 20)
		b[12], b[13], at = 0x50, f.flags, 16
		binary.BigEndian.PutUint32(b[4:], f.seq)
		binary.BigEndian.PutUint32(b[8:], f.ackn)
		binary.BigEndian.PutUint16(b[14:], 0xffff)
	case protoUDP:
		b = make([]byte, 8)
		binary.BigEndian.PutUint16(b[4:], uint16(8+len(f.payload)))
		at = 6
	case protoICMP, protoICMPv6:
		b = make([]byte, 8)
		b[0], b[1], at = f.icmpType, f.icmpCode, 2
		binary.BigEndian.PutUint16(b[4:], f.id)
		if f.icmpMTU > 0 {
			binary.BigEndian.PutUint32(b[4:], uint32(f.icmpMTU))
		}
	case protoSCTP:
		b = make([]byte, 16)
		b[12] = f.flags // the kind of its first chunk
	default:
		b = make([]byte, 12)
	}
	if f.proto != protoICMP && f.proto != protoICMPv6 {
		binary.BigEndian.PutUint16(b, f.sport)
		binary.BigEndian.PutUint16(b[2:], f.dport)
	}
	b = append(b, f.payload...)
	if at > 0 {
		binary.BigEndian.PutUint16(b[at:], ^sum(f.pseudo(len(b)), b))
	}
	return b
}

// pseudo is the part of the IP header that transport checksums cover.
func (f frame) pseudo(n int) []byte {
	if f.proto == protoICMP {
		return nil
	}
	b := append(f.src.AsSlice(), f.dst.AsSlice()...)
	return append(b, 0, 0, byte(n>>8), byte(n), 0, 0, 0, f.proto)
}

// sum is the Internet checksum, not yet inverted (RFC 1071). Each part but the
// last has an even length.
func sum(parts ...[]byte) uint16 {
	var s uint32
	for _, p := range parts {
		for i := 0; i < len(p); i += 2 {
			s += uint32(p[i]) << 8
			if i+1 < len(p) {
				s += uint32(p[i+1])
			}
		}
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

// reversed is the answer to f, as its receiver sends it.
func (f frame) reversed(flags uint8) frame {
	f.src, f.dst = f.dst, f.src
	f.sport, f.dport = f.dport, f.sport
	f.srcMAC, f.dstMAC = f.dstMAC, f.srcMAC
	f.flags = flags
	switch {
	case f.proto == protoICMP && f.icmpType == 8:
		f.icmpType = 0
	case f.proto == protoICMPv6 && f.icmpType == 128:
		f.icmpType = 129
	}
	return f
}

// with is the same packet with other TCP flags.
func (f frame) with(flags uint8) frame {
	f.flags = flags
	return f
}

func (f frame) source() netip.AddrPort { return netip.AddrPortFrom(f.src, f.sport) }
func (f frame) target() netip.AddrPort { return netip.AddrPortFrom(f.dst, f.dport) }

// arp is an ARP message for Ethernet and IPv4.
func arp(operation uint16, mac net.HardwareAddr, sender, target netip.Addr) []byte {
	b := append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, mac...)
	b = append(b, etherARP>>8, etherARP&0xff, 0, 1, etherIPv4>>8, etherIPv4&0xff, 6, 4, byte(operation>>8), byte(operation))
	b = append(append(b, mac...), sender.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), target.AsSlice()...)
}

// solicit asks who has target (RFC 4861, 4.3).
func solicit(mac net.HardwareAddr, source, target netip.Addr) frame {
	t := target.As16()
	group := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: t[13], 14: t[14], 15: t[15]})
	return frame{
		dstMAC: net.HardwareAddr{0x33, 0x33, 0xff, t[13], t[14], t[15]}, srcMAC: mac,
		src: source, dst: group, proto: protoICMPv6, icmpType: 135, ttl: 255,
		payload: append(append(t[:], 1, 1), mac...),
	}
}

func mustAddr(s string) netip.Addr { return netip.MustParseAddr(s) }
