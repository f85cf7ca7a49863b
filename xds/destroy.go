package xds

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// socketRequest is the kernel's struct inet_diag_req_v2.
type socketRequest struct{ local, remote netip.AddrPort }

// Len implements nl.NetlinkRequestData.
func (*socketRequest) Len() int { return 56 }

// Serialize implements nl.NetlinkRequestData.
func (r *socketRequest) Serialize() []byte {
	b := make([]byte, r.Len())
	b[0], b[1] = unix.AF_INET, unix.IPPROTO_TCP
	if r.local.Addr().Is6() {
		b[0] = unix.AF_INET6
	}
	binary.BigEndian.PutUint16(b[8:], r.local.Port())
	binary.BigEndian.PutUint16(b[10:], r.remote.Port())
	copy(b[12:], r.local.Addr().AsSlice())
	copy(b[28:], r.remote.Addr().AsSlice())
	for i := 48; i < 56; i++ { // whatever its cookie is
		b[i] = 0xff
	}
	return b
}

// destroySocket has the kernel close a connection of somebody else's in this network
// namespace; both its ends see it end.
func destroySocket(local, remote netip.AddrPort) error {
	req := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	req.AddData(&socketRequest{local, remote})
	if _, err := req.Execute(unix.NETLINK_INET_DIAG, 0); err != nil {
		return fmt.Errorf("destroy the socket (it needs a kernel with CONFIG_INET_DIAG_DESTROY): %w", err)
	}
	return nil
}
