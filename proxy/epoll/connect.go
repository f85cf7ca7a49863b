package epoll

import (
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Accept waits for a connection to a listening socket. Errors are those of accept(2), or
// net.ErrClosed.
func (s *Socket) Accept() (fd int, remote netip.AddrPort, err error) {
	for {
		var from unix.Sockaddr
		err = s.Control(func(l int) (err error) {
			fd, from, err = unix.Accept4(l, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			return err
		})
		switch err {
		case nil:
			return fd, addrPort(from), nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err = s.AwaitInput(); err != nil {
				return -1, netip.AddrPort{}, err
			}
		default:
			return -1, netip.AddrPort{}, err
		}
	}
}

// Connected waits until a socket that connects has, for some time at most.
func (s *Socket) Connected(within time.Duration) error {
	limit := time.AfterFunc(within, s.Close)
	defer limit.Stop()
	for {
		state, failed := uint8(0), 0
		err := s.Control(func(fd int) error {
			info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
			if err == nil {
				state = info.State
				failed, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			}
			return err
		})
		switch {
		case err == net.ErrClosed:
			return unix.ETIMEDOUT
		case err != nil:
			return err
		case failed != 0:
			return unix.Errno(failed)
		case state != unix.BPF_TCP_SYN_SENT:
			return nil
		}
		if err := s.AwaitRoom(); err == net.ErrClosed {
			return unix.ETIMEDOUT
		} else if err != nil {
			return err
		}
	}
}

// Local is the address of a descriptor's own end.
func Local(fd int) (netip.AddrPort, error) {
	a, err := unix.Getsockname(fd)
	return addrPort(a), err
}

func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}
