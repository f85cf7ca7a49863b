package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
)

// Names in the run directory.
const (
	socketName  = "proxy.sock"
	logName     = "proxy.log"
	drainedGlob = "proxy-*.sock"  // sockets of proxies that drain, by inode of the socket
	strayGlob   = ".proxy.*.sock" // of those whose agent died before they were put in place
)

// InheritedListener is the API socket that the agent handed over.
func InheritedListener() (net.Listener, error) {
	f := os.NewFile(DescriptorSocket, "api")
	if f == nil {
		return nil, errors.New("take over API socket: descriptor 3 is not open")
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("take over API socket: %w", err)
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		_ = l.Close()
		return nil, fmt.Errorf("take over API socket: descriptor 3 is a %s socket", l.Addr().Network())
	}
	u.SetUnlinkOnClose(false)
	return TrustedListener(u)
}

// TrustedListener lets only root and the process's own user in, and makes the
// socket speak of this process: who connects learns the pid of whoever listened
// last.
func TrustedListener(l *net.UnixListener) (net.Listener, error) {
	raw, err := l.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("listen on API socket: %w", err)
	}
	var listen error
	err = raw.Control(func(fd uintptr) { listen = unix.Listen(int(fd), 128) })
	if err := errors.Join(err, listen); err != nil {
		return nil, fmt.Errorf("listen on API socket: %w", err)
	}
	return trusted{l}, nil
}

type trusted struct{ *net.UnixListener }

// Accept skips peers that have no business here. The socket's mode keeps them
// out already.
func (t trusted) Accept() (net.Conn, error) {
	for {
		c, err := t.AcceptUnix()
		if err != nil {
			return nil, err
		}
		peer, err := peerOf(c)
		if err == nil && (peer.Uid == 0 || int(peer.Uid) == os.Geteuid()) {
			holdMore(c)
			return c, nil
		}
		_ = c.Close()
	}
}

// holdMore has the kernel hold what may be on its way to the agent. What it holds otherwise
// is filled within milliseconds, which is how long an agent waits for a processor that is
// busy, and records were lost. Without the right to it there is less.
func holdMore(c *net.UnixConn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		const half = recordWindow / 2 // the kernel doubles it
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, half) != nil {
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, half)
		}
	})
}

// peerOf says who is at the other end.
func peerOf(c *net.UnixConn) (*unix.Ucred, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("ask for the peer of a socket: %w", err)
	}
	var cred *unix.Ucred
	var inner error
	err = raw.Control(func(fd uintptr) {
		cred, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, inner); err != nil {
		return nil, fmt.Errorf("ask for the peer of a socket: %w", err)
	}
	return cred, nil
}

// listenAt makes a listening socket of mode 0600 under a name of its own, for
// install to put in place.
func listenAt(runDir string) (*net.UnixListener, string, error) {
	path := filepath.Join(runDir, ".proxy."+strconv.Itoa(os.Getpid())+".sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, "", fmt.Errorf("make API socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, "", fmt.Errorf("make API socket: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, "", fmt.Errorf("make API socket: %w", err)
	}
	return l, path, nil
}

// install puts a socket in the place of the current one in one step. With keep,
// the current one gets another name, because its proxy will drain.
func install(runDir, path string, keep bool) error {
	current := filepath.Join(runDir, socketName)
	if info, err := os.Lstat(current); keep && err == nil {
		if stat, ok := info.Sys().(*syscall.Stat_t); ok {
			old := filepath.Join(runDir, "proxy-"+strconv.FormatUint(stat.Ino, 10)+".sock")
			if err := os.Link(current, old); err != nil && !errors.Is(err, os.ErrExist) {
				return fmt.Errorf("keep the socket of the last proxy: %w", err)
			}
		}
	}
	if err := os.Rename(path, current); err != nil {
		return fmt.Errorf("put API socket in place: %w", err)
	}
	return nil
}

// link is a connection to a proxy.
type link struct {
	path   string
	conn   *grpc.ClientConn
	client proxyv1.ProxyClient
	hello  *proxyv1.HelloResponse
	peer   *unix.Ucred
	pidfd  int // of the peer, -1 unknown
}

// connect says Hello at a socket. It does not connect a second time: a proxy
// that goes away is another one when it comes back.
func connect(ctx context.Context, path, version string) (*link, error) {
	l, err := connectOnce(ctx, path, version)
	if err != nil || int(l.peer.Pid) != os.Getpid() || int(l.hello.Pid) == os.Getpid() {
		return l, err
	}
	// The connection is older than the process's own listen and names us, who
	// made the socket. The next one will not.
	l.close()
	return connectOnce(ctx, path, version)
}

func connectOnce(ctx context.Context, path, version string) (*link, error) {
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	l := &link{path: path, pidfd: -1}
	if l.peer, err = peerOf(c.(*net.UnixConn)); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	// Opened before the Hello: if that is answered, the process with this number
	// was still the one behind the socket.
	if fd, err := unix.PidfdOpen(int(l.peer.Pid), 0); err == nil {
		l.pidfd = fd
	}
	once := make(chan net.Conn, 1)
	once <- c
	l.conn, err = grpc.NewClient("passthrough:///proxy", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			select {
			case c := <-once:
				return c, nil
			default:
				return nil, errGone
			}
		}),
		grpc.WithIdleTimeout(0),
		// Of fixed size: one that grows by round trips starts anew at 64 KB with each
		// stream, and a proxy whose loops are busy hears of room every 10 ms only.
		grpc.WithInitialWindowSize(recordWindow), grpc.WithInitialConnWindowSize(recordWindow),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)))
	if err != nil {
		_ = c.Close()
		l.close()
		return nil, fmt.Errorf("connect to proxy: %w", err)
	}
	l.client = proxyv1.NewProxyClient(l.conn)
	l.hello, err = l.client.Hello(ctx, &proxyv1.HelloRequest{Protocol: ProtocolVersion, Version: version})
	if err != nil {
		l.close()
		return nil, fmt.Errorf("greet proxy: %w", err)
	}
	return l, nil
}

var errGone = errors.New("the proxy is gone")

func (l *link) close() {
	if l.conn != nil {
		_ = l.conn.Close()
	}
	if l.pidfd >= 0 {
		_ = unix.Close(l.pidfd)
		l.pidfd = -1
	}
}

// signal sends to the process behind the socket, and to no other.
func (l *link) signal(s unix.Signal) error {
	if l.pidfd < 0 || l.hello.Pid != l.peer.Pid {
		return fmt.Errorf("signal proxy: process %d made the socket, but %d answers", l.peer.Pid, l.hello.Pid)
	}
	if err := unix.PidfdSendSignal(l.pidfd, s, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("signal proxy %d: %w", l.peer.Pid, err)
	}
	return nil
}
