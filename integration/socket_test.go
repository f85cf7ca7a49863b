package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// patience is how long something that must happen may take, on a machine that may
	// leave a process without a processor for seconds.
	patience = 30 * time.Second
	// refusalTime is how long something that must not happen is waited for.
	refusalTime = 500 * time.Millisecond
)

// connect opens a socket in the namespace and connects it; from may be zero. Only
// the system calls that must be made there are, so many can connect at once.
func (n *namespace) connect(ctx context.Context, kind int, from, to netip.AddrPort) (net.Conn, error) {
	var fd int
	err := n.do(func() (err error) {
		fd, err = beginConnect(kind, from, to)
		return err
	})
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), to.String())
	defer file.Close()
	if d, ok := ctx.Deadline(); ok {
		_ = file.SetWriteDeadline(d)
	}
	stop := context.AfterFunc(ctx, func() { _ = file.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	if err := raw.Write(func(fd uintptr) (done bool) {
		done, failed = connected(int(fd))
		return done
	}); err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, err)
	}
	if failed != nil {
		return nil, fmt.Errorf("connect to %s: %w", to, failed)
	}
	return net.FileConn(file)
}

func beginConnect(kind int, from, to netip.AddrPort) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if from.IsValid() {
		err = os.NewSyscallError("bind", unix.Bind(fd, socketAddress(from)))
	}
	if err == nil {
		if err = unix.Connect(fd, socketAddress(to)); errors.Is(err, unix.EINPROGRESS) {
			err = nil
		}
		err = os.NewSyscallError("connect", err)
	}
	if err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func connected(fd int) (bool, error) {
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return true, err
	}
	if errno != 0 {
		return true, unix.Errno(errno)
	}
	if _, err := unix.Getpeername(fd); errors.Is(err, unix.ENOTCONN) {
		return false, nil
	}
	return true, nil
}

func socketAddress(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// dial connects by TCP within a time.
func (n *namespace) dial(to netip.AddrPort, within time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	return n.connect(ctx, unix.SOCK_STREAM, netip.AddrPort{}, to)
}

// listen listens on every address of the namespace.
func (n *namespace) listen(t *testing.T, port int) net.Listener {
	t.Helper()
	var l net.Listener
	err := n.do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// listenUDP is listen for datagrams.
func (n *namespace) listenUDP(t *testing.T, port int) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	err := n.do(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: port})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func isTimeout(err error) bool {
	var n net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// endOf is the address of one end of a connection.
func endOf(a net.Addr) netip.AddrPort {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// eventually asks again until there is no error.
func eventually(t *testing.T, within time.Duration, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
