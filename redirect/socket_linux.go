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
		Control:   func(_, _ string, c syscall.RawConn) error { return control(c, addr.Addr().Is6(), false) },
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

// DialTransparent connects to remote from local, an address that need not be
// this machine's. With a port, that port is taken if it is free for this remote;
// IsPortTaken tells when another must do. Port 0 lets the kernel choose.
func DialTransparent(ctx context.Context, local, remote netip.AddrPort) (*net.TCPConn, error) {
	local = netip.AddrPortFrom(local.Addr().Unmap(), local.Port())
	remote = netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port())
	d := net.Dialer{
		LocalAddr:     net.TCPAddrFromAddrPort(local),
		FallbackDelay: -1,
		KeepAlive:     KeepAlive,
		Control: func(_, _ string, c syscall.RawConn) error {
			return control(c, local.Addr().Is6(), local.Port() == 0)
		},
	}
	d.SetMultipathTCP(false)
	c, err := d.DialContext(ctx, "tcp", remote.String())
	if err != nil {
		return nil, fmt.Errorf("dial %s as %s: %w", remote, local, err)
	}
	return c.(*net.TCPConn), nil
}

// IsPortTaken reports that the dial failed because its port is in use towards
// that remote; another source port will do.
func IsPortTaken(err error) bool {
	return errors.Is(err, unix.EADDRNOTAVAIL) || errors.Is(err, unix.EADDRINUSE)
}

// control sets up a socket of the proxy before it is bound.
func control(c syscall.RawConn, v6, latePort bool) error {
	var set error
	err := c.Control(func(fd uintptr) {
		s := int(fd)
		if v6 {
			set = unix.SetsockoptInt(s, unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
		} else {
			set = unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_TRANSPARENT, 1)
		}
		if set != nil {
			set = fmt.Errorf("make socket transparent: %w", set)
			return
		}
		if set = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_MARK, MarkFromProxy); set != nil {
			set = fmt.Errorf("mark socket: %w", set)
			return
		}
		if set = unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); set != nil {
			return
		}
		if latePort { // choose the port at connect, by the whole 4-tuple
			set = unix.SetsockoptInt(s, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		}
	})
	return errors.Join(err, set)
}
