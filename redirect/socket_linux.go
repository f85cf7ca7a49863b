package redirect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// KeepAlive is how long a proxied connection is silent before its ends are probed.
const KeepAlive = 60 * time.Second

// ListenTransparent listens on a loopback address for connections that the gate
// assigns. The accepted connection's local address is the one the client dialled.
// It needs CAP_NET_ADMIN.
func ListenTransparent(ctx context.Context, addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{
		Control:   func(_, _ string, c syscall.RawConn) error { return control(c, addr.Addr().Is6()) },
		KeepAlive: KeepAlive,
	}
	// A Multipath TCP listener is not what the gate's socket look-up finds.
	lc.SetMultipathTCP(false)
	network := "tcp4"
	if addr.Addr().Is6() {
		network = "tcp6"
	}
	l, err := lc.Listen(ctx, network, addr.String())
	if err != nil {
		return nil, fmt.Errorf("listen transparently on %s: %w", addr, err)
	}
	return l, nil
}

// DialTransparent begins to connect to remote from local, an address that need not be
// this machine's, by a socket that never blocks: once it can be written to, it is
// connected or has failed. With a port, that port is taken if it is free for this
// remote; IsPortTaken tells when another must do. Port 0 lets the kernel choose.
func DialTransparent(local, remote netip.AddrPort) (fd int, err error) {
	family := unix.AF_INET
	if remote.Addr().Unmap().Is6() {
		family = unix.AF_INET6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = set(fd, family == unix.AF_INET6, local.Port() == 0)
		for _, o := range lively {
			err = errors.Join(err, unix.SetsockoptInt(fd, o.level, o.name, o.value))
		}
		if err == nil {
			err = unix.Bind(fd, sockaddr(local, family))
		}
		if err == nil {
			if err = unix.Connect(fd, sockaddr(remote, family)); errors.Is(err, unix.EINPROGRESS) {
				err = nil
			}
		}
		if err != nil {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		return -1, fmt.Errorf("dial %s as %s: %w", remote, local, err)
	}
	return fd, nil
}

// lively are the options of a socket that carries a connection.
var lively = [...]struct{ level, name, value int }{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(KeepAlive / time.Second)},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 15},
}

func sockaddr(a netip.AddrPort, family int) unix.Sockaddr {
	if ip := a.Addr().Unmap(); ip.Is4() && family == unix.AF_INET {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: ip.As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// IsPortTaken reports that the dial failed because its port is in use towards
// that remote; another source port will do.
func IsPortTaken(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE)
}

// control sets up a listening socket of the proxy before it is bound. What it accepts
// has its options.
func control(c syscall.RawConn, v6 bool) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = set(int(fd), v6, false) })
	return errors.Join(err, failed)
}

func set(fd int, v6, latePort bool) error {
	transparent := [2]int{unix.SOL_IP, unix.IP_TRANSPARENT}
	if v6 {
		transparent = [2]int{unix.SOL_IPV6, unix.IPV6_TRANSPARENT}
	}
	if err := unix.SetsockoptInt(fd, transparent[0], transparent[1], 1); err != nil {
		return fmt.Errorf("make socket transparent: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, MarkFromProxy); err != nil {
		return fmt.Errorf("mark socket: %w", err)
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if latePort { // choose the port at connect, by the whole 4-tuple
		err = errors.Join(err, unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1))
	}
	return err
}
