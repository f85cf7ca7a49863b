package redirect

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TimeWaits ends the TIME_WAIT of proxied connections. The kernel would take a SYN
// of a client that uses its port again for a new connection of the listener in
// TIME_WAIT; but the proxy's listener has another address, so the SYN would be
// dropped for a minute. Whoever may use the port again is known to the gate, which
// tracks the connection.
//
// It needs CAP_NET_ADMIN and a kernel with CONFIG_INET_DIAG_DESTROY.
type TimeWaits struct{ fd int }

// OpenTimeWaits opens the kernel's socket diagnosis, sock_diag(7).
func OpenTimeWaits() (*TimeWaits, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open socket diagnosis: %w", err)
	}
	return &TimeWaits{fd}, nil
}

// Close closes it.
func (t *TimeWaits) Close() error { return unix.Close(t.fd) }

// Cookie is the kernel's name of a socket, which its TIME_WAIT inherits if it was
// asked for before. With it no other socket is ever taken for that one.
func Cookie(fd int) uint64 {
	cookie, _ := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return cookie
}

const (
	sockDestroy  = 21 // SOCK_DESTROY, linux/sock_diag.h
	diagLength   = 16 + 56
	headerLength = 16
)

// Forget ends what is left of a closed socket: its TIME_WAIT, or its wait for a FIN
// that the other end owes. If nothing is left, nothing happens. The kernel's answer
// is not waited for.
func (t *TimeWaits) Forget(local, remote netip.AddrPort, cookie uint64) error {
	var m [diagLength]byte
	ne := binary.NativeEndian
	ne.PutUint32(m[0:], diagLength)
	ne.PutUint16(m[4:], sockDestroy)
	ne.PutUint16(m[6:], unix.NLM_F_REQUEST)
	r := m[headerLength:] // struct inet_diag_req_v2
	src, dst := local.Addr().Unmap(), remote.Addr().Unmap()
	r[0], r[1] = unix.AF_INET, unix.IPPROTO_TCP
	if src.Is6() {
		r[0] = unix.AF_INET6
	}
	ne.PutUint32(r[4:], ^uint32(0)) // every state
	binary.BigEndian.PutUint16(r[8:], local.Port())
	binary.BigEndian.PutUint16(r[10:], remote.Port())
	copy(r[12:28], src.AsSlice())
	copy(r[28:44], dst.AsSlice())
	ne.PutUint64(r[48:], cookie)
	t.drain()
	if err := unix.Sendto(t.fd, m[:], 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return fmt.Errorf("end TIME_WAIT: %w", err)
	}
	return nil
}

// drain throws away what the kernel said of earlier ones that were gone by then.
func (t *TimeWaits) drain() {
	var b [256]byte
	for {
		if _, _, err := unix.Recvfrom(t.fd, b[:], unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != nil {
			return
		}
	}
}
