package proxy

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/redirect"
)

// handover is how a proxy that replaces another gives it the answers to what it asked: the
// gate sends every datagram to the one port that serves the DNS, and from a moment on that
// is the new one's. An answer that nobody here asked for goes to the old one's port, by the
// loopback device, behind its two ends. The mark, which takes a privilege to set, says that
// it comes from a proxy.
type handover struct {
	to    atomic.Uint32 // port of the one before; 0: there was none
	until atomic.Int64  // when it has no questions any more
}

const (
	// handoverLasts is longer than a question is remembered.
	handoverLasts = 30 * time.Second
	// endsLength is that of two addresses and ports.
	endsLength = 2 * (16 + 2)
)

// begin starts handing over, once.
func (h *handover) begin(port uint32) {
	if port != 0 && port <= 0xffff && h.to.Swap(port) != port {
		h.until.Store(time.Now().Add(handoverLasts).UnixNano())
	}
}

// give sends an answer to the proxy before. False: there is none.
func (h *handover) give(g *redirect.Datagram, by *redirect.Receiver, scratch []byte, now time.Time) (kept []byte, given bool) {
	port := h.to.Load()
	if port == 0 || g.Cut || now.UnixNano() > h.until.Load() {
		return scratch, false
	}
	b := appendEnd(appendEnd(scratch[:0], g.Source), g.Destination)
	b = append(b, g.Data...)
	to := netip.AddrPortFrom(by.Addr().Addr(), uint16(port))
	return b, by.Send(b, to) == nil
}

func appendEnd(b []byte, a netip.AddrPort) []byte {
	v := a.Addr().As16()
	return binary.BigEndian.AppendUint16(append(b, v[:]...), a.Port())
}

// taken is what another proxy gave.
func taken(g *redirect.Datagram) (redirect.Datagram, bool) {
	if len(g.Data) <= endsLength {
		return redirect.Datagram{}, false
	}
	end := func(b []byte) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b)).Unmap(), binary.BigEndian.Uint16(b[16:]))
	}
	return redirect.Datagram{
		Source: end(g.Data), Destination: end(g.Data[endsLength/2:]), Data: g.Data[endsLength:], Cut: g.Cut,
		Mark: redirect.MarkFromProxy,
	}, true
}
