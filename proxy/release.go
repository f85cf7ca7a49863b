package proxy

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// TimeWaits ends what the kernel keeps of closed sockets. See redirect.TimeWaits.
type TimeWaits interface {
	Forget(local, remote netip.AddrPort, cookie uint64) error
}

// settleAfter is how long two FINs that crossed take to be acknowledged.
const settleAfter = 250 * time.Millisecond

// release closes a side's socket and sees to it that nothing of it stays: a client
// may use its port again at once, and the gate, which tracks the connection, knows
// that it is another. In TIME_WAIT the kernel would drop its SYN.
func (c *conn) release(e *end) {
	state := e.state()
	e.sock.Close()
	if c.p.config.TimeWaits == nil {
		return
	}
	forget := func() { _ = c.p.config.TimeWaits.Forget(e.local, e.remote, e.cookie) }
	switch state {
	case unix.BPF_TCP_CLOSE, unix.BPF_TCP_FIN_WAIT2: // both ends have all that was sent
		forget()
	case unix.BPF_TCP_CLOSING:
		time.AfterFunc(settleAfter, forget)
	}
}

// state is the TCP state of a socket that is still open, by the kernel's numbers; a
// socket in TIME_WAIT counts as closed.
func (e *end) state() (state uint8) {
	_ = e.sock.Control(func(fd int) error {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err == nil {
			state = info.State
		}
		return err
	})
	return state
}
