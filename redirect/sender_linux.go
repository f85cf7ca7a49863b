package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	header4   = 20 + 8 // IP and UDP
	header6   = 40 + 8
	protoUDP  = 17
	hops      = 64
	stuckWait = 5 // ms to wait for room to send, at most
)

// OpenSenders opens the sockets that a Sender writes to, one an IP version. Opening them
// takes CAP_NET_RAW, using them nothing: so who is privileged opens them for who parses
// what strangers send.
func OpenSenders() (files [2]*os.File, err error) {
	for i, family := range [2]int{unix.AF_INET, unix.AF_INET6} {
		fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
		if err == nil {
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, MarkFromProxy),
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, queued))
			files[i] = os.NewFile(uintptr(fd), "sender")
		}
		if err != nil {
			for _, f := range files {
				if f != nil {
					_ = f.Close()
				}
			}
			return [2]*os.File{}, fmt.Errorf("open socket to send datagrams: %w", err)
		}
	}
	return files, nil
}

// Sender sends datagrams from whatever address and port, several at a time. It is used by
// one goroutine; several Senders may share the sockets.
type Sender struct {
	lost     *atomic.Uint64 // datagrams that the kernel did not take
	lines    [2]line
	injector injector
}

// line is what waits to be sent by one socket.
type line struct {
	fd       int
	n        int
	messages [batch]mmsghdr
	vectors  [batch][2]unix.Iovec
	names    [batch]unix.RawSockaddrInet6
	headers  [batch][header6]byte
}

// NewSender sends by the sockets of OpenSenders, given as descriptors.
func NewSender(fds [2]int, lost *atomic.Uint64) *Sender {
	s := &Sender{lost: lost}
	for i := range s.lines {
		l := &s.lines[i]
		l.fd = fds[i]
		for k := range l.messages {
			h := &l.messages[k].hdr
			h.Name, h.Iov = (*byte)(unsafe.Pointer(&l.names[k])), &l.vectors[k][0]
			h.SetIovlen(2)
			l.vectors[k][0] = unix.Iovec{Base: &l.headers[k][0]}
		}
	}
	return s
}

// Queue takes a datagram, which must not change before Flush. What is for a workload of this
// node goes at once, if there is an Injector.
func (s *Sender) Queue(from, to netip.AddrPort, data []byte) {
	if len(data) == 0 || from.Addr().Is4() != to.Addr().Is4() {
		return
	}
	if s.injector.inject(from, to, data) {
		return
	}
	s.queue(from, to, data)
}

// Forward is Queue for the data of a datagram that was received: headers are written before it.
func (s *Sender) Forward(from, to netip.AddrPort, g *Datagram) {
	if len(g.Data) == 0 || from.Addr().Is4() != to.Addr().Is4() {
		return
	}
	if g.before != nil && s.injector.forward(from, to, g) || g.before == nil && s.injector.inject(from, to, g.Data) {
		return
	}
	s.queue(from, to, g.Data)
}

func (s *Sender) queue(from, to netip.AddrPort, data []byte) {
	l := &s.lines[0]
	if to.Addr().Is6() {
		l = &s.lines[1]
	}
	if l.n == batch {
		s.flush(l)
	}
	h := &l.headers[l.n]
	name := (*[control6]byte)(unsafe.Pointer(&l.names[l.n]))
	clear(name[:])
	size := header4
	if to.Addr().Is4() {
		fill4(h, name, from, to, data)
		l.messages[l.n].hdr.Namelen = unix.SizeofSockaddrInet4
	} else {
		size = header6
		fill6(h, name, from, to, data)
		l.messages[l.n].hdr.Namelen = unix.SizeofSockaddrInet6
	}
	l.vectors[l.n][0].SetLen(size)
	l.vectors[l.n][1].Base = &data[0]
	l.vectors[l.n][1].SetLen(len(data))
	l.n++
}

// Flush sends what was queued.
func (s *Sender) Flush() {
	for i := range s.lines {
		if s.lines[i].n > 0 {
			s.flush(&s.lines[i])
		}
	}
}

// flush sends a line. What the kernel refuses is lost, as datagrams may be, and counted.
func (s *Sender) flush(l *line) {
	waited := false
	for done := 0; done < l.n; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(l.fd), uintptr(unsafe.Pointer(&l.messages[done])), uintptr(l.n-done), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			done += int(n)
		case errno == unix.EINTR:
		case (errno == unix.EAGAIN || errno == unix.ENOBUFS) && !waited:
			waited = true
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLOUT}}, stuckWait)
		default:
			s.lost.Add(1)
			done++
		}
	}
	for i := range l.n {
		l.vectors[i][1].Base = nil
	}
	l.n = 0
}

func fill4(h *[header6]byte, name *[control6]byte, from, to netip.AddrPort, data []byte) {
	b := to.Addr().As4()
	binary.NativeEndian.PutUint16(name[:], unix.AF_INET)
	copy(name[4:], b[:])
	header4Of(h, from, to, data)
}

func header4Of(h *[header6]byte, from, to netip.AddrPort, data []byte) {
	a, b := from.Addr().As4(), to.Addr().As4()
	clear(h[:header4])
	h[0], h[8], h[9] = 0x45, hops, protoUDP // length, id and checksum are the kernel's
	copy(h[12:], a[:])
	copy(h[16:], b[:])
	fillUDP(h[20:28], sum(a[:], sum(b[:], 0)), from.Port(), to.Port(), data)
}

func fill6(h *[header6]byte, name *[control6]byte, from, to netip.AddrPort, data []byte) {
	b := to.Addr().As16()
	binary.NativeEndian.PutUint16(name[:], unix.AF_INET6)
	copy(name[8:], b[:])
	header6Of(h, from, to, data)
}

func header6Of(h *[header6]byte, from, to netip.AddrPort, data []byte) {
	a, b := from.Addr().As16(), to.Addr().As16()
	clear(h[:])
	h[0], h[6], h[7] = 0x60, protoUDP, hops
	binary.BigEndian.PutUint16(h[4:], uint16(8+len(data)))
	copy(h[8:], a[:])
	copy(h[24:], b[:])
	fillUDP(h[40:48], sum(a[:], sum(b[:], 0)), from.Port(), to.Port(), data)
}

// fillUDP writes the header, with the checksum over what of the IP header counts.
func fillUDP(h []byte, pseudo uint64, from, to uint16, data []byte) {
	length := uint16(8 + len(data))
	binary.BigEndian.PutUint16(h, from)
	binary.BigEndian.PutUint16(h[2:], to)
	binary.BigEndian.PutUint16(h[4:], length)
	h[6], h[7] = 0, 0
	s := sum(data, sum(h, pseudo+protoUDP+uint64(length)))
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	c := ^uint16(s)
	if c == 0 {
		c = 0xffff // 0 would mean that there is none
	}
	binary.BigEndian.PutUint16(h[6:], c)
}

// sum adds b up for a checksum (RFC 1071), eight bytes at a time.
func sum(b []byte, s uint64) uint64 {
	for ; len(b) >= 8; b = b[8:] {
		v := binary.BigEndian.Uint64(b)
		s += v>>48 + v>>32&0xffff + v>>16&0xffff + v&0xffff
	}
	for ; len(b) >= 2; b = b[2:] {
		s += uint64(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}
