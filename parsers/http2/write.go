package http2

import (
	"encoding/binary"

	"golang.org/x/net/http2"
)

// The frames made here are few and short, and are appended to one buffer: a
// Framer would want a Writer for each side.

func appendHead(b []byte, length int, t http2.FrameType, flags http2.Flags, stream uint32) []byte {
	b = append(b, byte(length>>16), byte(length>>8), byte(length), byte(t), byte(flags))
	return binary.BigEndian.AppendUint32(b, stream)
}

func appendGoAway(b []byte, last uint32, code http2.ErrCode) []byte {
	b = appendHead(b, 8, http2.FrameGoAway, 0, 0)
	b = binary.BigEndian.AppendUint32(b, last)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendReset(b []byte, stream uint32, code http2.ErrCode) []byte {
	b = appendHead(b, 4, http2.FrameRSTStream, 0, stream)
	return binary.BigEndian.AppendUint32(b, uint32(code))
}

func appendWindowUpdate(b []byte, stream, n uint32) []byte {
	b = appendHead(b, 4, http2.FrameWindowUpdate, 0, stream)
	return binary.BigEndian.AppendUint32(b, n)
}

// appendInt is RFC 7541 section 5.1; first is what stands before the prefix.
func appendInt(b []byte, first byte, prefix uint, n uint64) []byte {
	most := uint64(1)<<prefix - 1
	if n < most {
		return append(b, first|byte(n))
	}
	b = append(b, first|byte(most))
	for n -= most; n >= 0x80; n >>= 7 {
		b = append(b, 0x80|byte(n))
	}
	return append(b, byte(n))
}

// appendField is a literal that no table remembers (RFC 7541 sections 6.2.2 and
// 6.2.3), without Huffman coding.
func appendField[T string | []byte](b []byte, name, value T, sensitive bool) []byte {
	first := byte(0)
	if sensitive {
		first = 0x10
	}
	b = append(b, first)
	b = appendInt(b, 0, 7, uint64(len(name)))
	b = append(b, name...)
	b = appendInt(b, 0, 7, uint64(len(value)))
	return append(b, value...)
}

// appendBlock cuts a header block into frames that every receiver takes.
func appendBlock(b []byte, stream uint32, block []byte, end bool) []byte {
	flags, t := http2.Flags(0), http2.FrameHeaders
	if end {
		flags = http2.FlagHeadersEndStream
	}
	for {
		n := min(len(block), minFrame)
		if n == len(block) {
			flags |= http2.FlagHeadersEndHeaders
		}
		b = appendHead(b, n, t, flags, stream)
		b = append(b, block[:n]...)
		if block = block[n:]; len(block) == 0 {
			return b
		}
		flags, t = 0, http2.FrameContinuation
	}
}
