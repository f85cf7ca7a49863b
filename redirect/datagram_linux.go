package redirect

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	// batch is how many datagrams one system call moves at most.
	batch = 64
	// room for one that was received. What is longer is cut off, and said to be.
	room = 4096
	// queued is how many bytes may wait in the kernel for a reader that is busy.
	queued = 8 << 20

	control6 = 28 // a struct sockaddr_in6, the longer
)

// Datagram is one of what the gate handed over.
type Datagram struct {
	Source, Destination netip.AddrPort
	Mark                uint32
	Data                []byte // of the receiver, until it reads again
	Cut                 bool   // it was longer
	// before is the memory before Data, to write headers to; nil: it is not the receiver's.
	before *[headroom]byte
}

// Receiver reads the datagrams that the gate assigns to a socket, several at a time.
type Receiver struct {
	sock *net.UDPConn
	raw  syscall.RawConn

	headers [batch]mmsghdr
	vectors [batch]unix.Iovec
	names   [batch]unix.RawSockaddrInet6
	control [batch][128]byte
	data    [batch]struct {
		before [headroom]byte
		data   [room]byte
	}
	read  [batch]Datagram
	n     int
	err   syscall.Errno
	ready func(fd uintptr) bool // bound once
}

type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
	_   uint32
}

// ListenDatagrams opens a socket on a loopback address that the gate can assign datagrams
// to, whatever their destination. Several may have the same address: the kernel gives what
// goes between two ends always to the same one. It needs CAP_NET_ADMIN.
func ListenDatagrams(ctx context.Context, addr netip.AddrPort) (*Receiver, error) {
	six := addr.Addr().Is6()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error { return controlDatagrams(c, six) }}
	network := "udp4"
	if six {
		network = "udp6"
	}
	pc, err := lc.ListenPacket(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen for datagrams on %s: %w", addr, err)
	}
	r := &Receiver{sock: pc.(*net.UDPConn)}
	if r.raw, err = r.sock.SyscallConn(); err != nil {
		_ = pc.Close()
		return nil, fmt.Errorf("listen for datagrams on %s: %w", addr, err)
	}
	for i := range r.headers {
		r.vectors[i] = unix.Iovec{Base: &r.data[i].data[0]}
		r.vectors[i].SetLen(room)
		h := &r.headers[i].hdr
		h.Name, h.Iov, h.Control = (*byte)(unsafe.Pointer(&r.names[i])), &r.vectors[i], &r.control[i][0]
		h.SetIovlen(1)
	}
	r.ready = r.receive
	return r, nil
}

func controlDatagrams(c syscall.RawConn, six bool) error {
	set := control(c, six)
	err := c.Control(func(fd uintptr) {
		s := int(fd)
		level, option := unix.SOL_IP, unix.IP_RECVORIGDSTADDR
		if six {
			level, option = unix.SOL_IPV6, unix.IPV6_RECVORIGDSTADDR
		}
		set = errors.Join(set, unix.SetsockoptInt(s, level, option, 1),
			unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVMARK, 1),
			unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1),
			unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, queued))
	})
	return errors.Join(err, set)
}

// Addr is what it listens on.
func (r *Receiver) Addr() netip.AddrPort { return r.sock.LocalAddr().(*net.UDPAddr).AddrPort() }

// Send sends a datagram from its own address, with the proxies' mark.
func (r *Receiver) Send(b []byte, to netip.AddrPort) error {
	_, err := r.sock.WriteToUDPAddrPort(b, to)
	return err
}

// Close ends reading.
func (r *Receiver) Close() error { return r.sock.Close() }

// Read waits for datagrams and returns those that there are, valid until the next call.
func (r *Receiver) Read() ([]Datagram, error) {
	if err := r.raw.Read(r.ready); err != nil {
		return nil, err
	}
	if r.err != 0 {
		return nil, r.err
	}
	n := 0
	for i := range r.n {
		if r.take(i, &r.read[n]) {
			n++
		}
	}
	return r.read[:n], nil
}

func (r *Receiver) receive(fd uintptr) bool {
	for i := range r.headers {
		h := &r.headers[i].hdr
		h.Namelen, h.Flags = unix.SizeofSockaddrInet6, 0
		h.SetControllen(len(r.control[i]))
	}
	for {
		n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&r.headers[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return false
		}
		r.n, r.err = int(n), errno
		return true
	}
}

// take reads what the kernel says of a datagram besides its data. False: it does not say
// where it was sent to.
func (r *Receiver) take(i int, d *Datagram) bool {
	h := &r.headers[i]
	*d = Datagram{Source: addrPortOf((*[control6]byte)(unsafe.Pointer(&r.names[i]))[:]), Data: r.data[i].data[:min(h.len, room)],
		Cut: h.hdr.Flags&unix.MSG_TRUNC != 0, before: &r.data[i].before}
	for c := r.control[i][:h.hdr.Controllen]; len(c) >= unix.SizeofCmsghdr; {
		length := int(binary.NativeEndian.Uint64(c))
		level, kind := binary.NativeEndian.Uint32(c[8:]), binary.NativeEndian.Uint32(c[12:])
		if length < unix.SizeofCmsghdr || length > len(c) {
			return false
		}
		data := c[unix.SizeofCmsghdr:length]
		switch {
		case level == unix.SOL_SOCKET && kind == unix.SO_MARK && len(data) >= 4:
			d.Mark = binary.NativeEndian.Uint32(data)
		case level == unix.SOL_IP && kind == unix.IP_ORIGDSTADDR, level == unix.SOL_IPV6 && kind == unix.IPV6_ORIGDSTADDR:
			d.Destination = addrPortOf(data)
		}
		c = c[min(unix.CmsgSpace(length-unix.SizeofCmsghdr), len(c)):]
	}
	return d.Source.IsValid() && d.Destination.IsValid()
}

// addrPortOf reads a struct sockaddr_in or sockaddr_in6.
func addrPortOf(b []byte) netip.AddrPort {
	if len(b) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}
	}
	port := binary.BigEndian.Uint16(b[2:])
	switch family := binary.NativeEndian.Uint16(b); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), port)
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), port)
	}
	return netip.AddrPort{}
}
