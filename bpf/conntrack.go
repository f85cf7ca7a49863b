package bpf

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// Connection is what the gate knows of one connection.
type Connection struct {
	Source, Destination                 netip.AddrPort // who opened it, and to whom
	SourceIdentity, DestinationIdentity policy.Identity
	Egress, Ingress                     uint32 // numbers of the L7 sets
	Proto                               policy.Proto
	Redirected, Denied, Closing         bool
	SeenReply, ProxyLeg                 bool
	Bound                               bool // to the proxy port of its route
	Revision                            uint32
	Service                             uint16         // that it was opened to, 0: none; see Gate.ServiceOf
	Node                                netip.AddrPort // what its opener is known as outside; the zero AddrPort: itself
	Expires                             time.Duration  // from now
	Packets, Bytes                      [2]uint64      // forward, reply
}

// Flags of an entry, as in src/lib/maps.h.
const (
	ctRedirected = 1
	ctDenied     = 2
	ctSeenReply  = 4
	ctClosing    = 32
	ctProxyLeg   = 64
	ctBound      = 256
)

// Conntrack reads and collects connections. It needs no privilege beyond the
// descriptors of its maps.
type Conntrack struct {
	tcp, any *ebpf.Map
	nat      *ebpf.Map // who holds a port of the node
	services *ebpf.Map // translations of established TCP
	shares   shares
	config   []byte // mapped; nil where the revision is not asked for
}

// OpenConntrack takes the maps from descriptors that another process gave, in the
// order of Gate.ConntrackMaps, and owns them.
func OpenConntrack(fds [6]int) (*Conntrack, error) {
	var maps [6]*ebpf.Map
	for i, fd := range fds {
		m, err := ebpf.NewMapFromFD(fd)
		if err != nil {
			return nil, fmt.Errorf("take conntrack map from descriptor %d: %w", fd, err)
		}
		maps[i] = m
	}
	size := os.Getpagesize()
	b, err := unix.Mmap(maps[2].FD(), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map the datapath's configuration: %w", err)
	}
	sh, err := mapShares(maps[5])
	if err != nil {
		return nil, err
	}
	return &Conntrack{tcp: maps[0], any: maps[1], nat: maps[3], services: maps[4], shares: sh, config: b}, nil
}

// Revision is the policy revision in force in the gate. It costs one memory read.
func (c *Conntrack) Revision() uint32 {
	return atomic.LoadUint32((*uint32)(unsafe.Pointer(&c.config[0])))
}

// Lookup finds the TCP connection that source opened to destination.
func (c *Conntrack) Lookup(source, destination netip.AddrPort) (Connection, bool) {
	k := ctKey(source, destination, policy.ProtoTCP)
	var e gateCtEntry
	// A connection that is established between the first two is found by the third.
	if c.tcp.Lookup(&k, &e) != nil && c.any.Lookup(&k, &e) != nil && c.tcp.Lookup(&k, &e) != nil {
		return Connection{}, false
	}
	conn := connection(&k, &e)
	if conn.Source != source || conn.Expires <= 0 {
		return Connection{}, false
	}
	return conn, true
}

// LookupDatagrams finds what source sent to destination by UDP.
func (c *Conntrack) LookupDatagrams(source, destination netip.AddrPort) (Connection, bool) {
	k := ctKey(source, destination, policy.ProtoUDP)
	var e gateCtEntry
	if c.any.Lookup(&k, &e) != nil {
		return Connection{}, false
	}
	conn := connection(&k, &e)
	if conn.Source != source || conn.Expires <= 0 {
		return Connection{}, false
	}
	return conn, true
}

// All calls f for each connection, established TCP first.
func (c *Conntrack) All(f func(Connection) bool) error {
	var k gateCtKey
	var e gateCtEntry
	for _, m := range []*ebpf.Map{c.tcp, c.any} {
		it := m.Iterate()
		for it.Next(&k, &e) {
			if !f(connection(&k, &e)) {
				return nil
			}
		}
		// Entries come and go under the iterator; what it saw is good enough.
		if err := it.Err(); err != nil && !errors.Is(err, ebpf.ErrIterationAborted) {
			return err
		}
	}
	return nil
}

// Forget removes every connection of an address, so that who gets the address next
// inherits none, and says how many.
func (c *Conntrack) Forget(a netip.Addr) (int, error) {
	want := toAddr(a)
	n := 0
	var errs error
	for _, m := range []*ebpf.Map{c.tcp, c.any} {
		for range forgetPasses {
			found, err := entriesOf(m, want)
			for i := range found {
				_, err := c.take(m, &found[i])
				errs = errors.Join(errs, err)
			}
			n += len(found)
			if !errors.Is(err, ebpf.ErrIterationAborted) {
				errs = errors.Join(errs, err)
				break
			}
		}
	}
	return n, errs
}

// forgetPasses bounds how often a table is read again that changed while it was.
const forgetPasses = 10

func entriesOf(m *ebpf.Map, a gateAddr) ([]gateCtKey, error) {
	var found []gateCtKey
	var k gateCtKey
	var e gateCtEntry
	it := m.Iterate()
	for it.Next(&k, &e) {
		if k.Addr[0] == a || k.Addr[1] == a {
			found = append(found, k)
		}
	}
	return found, it.Err()
}

// ctKey orders the two ends as the gate does: lower address, then lower port.
func ctKey(a, b netip.AddrPort, proto policy.Proto) gateCtKey {
	x, y := a.Addr().As16(), b.Addr().As16()
	if c := netip.AddrFrom16(x).Compare(netip.AddrFrom16(y)); c > 0 || (c == 0 && a.Port() > b.Port()) {
		a, b = b, a
	}
	return gateCtKey{
		Addr: [2]gateAddr{toAddr(a.Addr()), toAddr(b.Addr())}, Port: [2]uint16{a.Port(), b.Port()}, Proto: uint8(proto),
	}
}

func connection(k *gateCtKey, e *gateCtEntry) Connection {
	from, to := e.Opener&1, 1-e.Opener&1
	var node netip.AddrPort
	if e.NatPort != 0 {
		node = netip.AddrPortFrom(fromAddr(e.NatAddr), e.NatPort)
	}
	return Connection{
		Node:                node,
		Source:              netip.AddrPortFrom(fromAddr(k.Addr[from]), k.Port[from]),
		Destination:         netip.AddrPortFrom(fromAddr(k.Addr[to]), k.Port[to]),
		SourceIdentity:      policy.Identity(e.Identity[0]),
		DestinationIdentity: policy.Identity(e.Identity[1]),
		Ingress:             e.Set[policy.Ingress],
		Egress:              e.Set[policy.Egress],
		Proto:               policy.Proto(k.Proto),
		Redirected:          e.Flags&ctRedirected != 0,
		Denied:              e.Flags&ctDenied != 0,
		Closing:             e.Flags&ctClosing != 0,
		SeenReply:           e.Flags&ctSeenReply != 0,
		ProxyLeg:            e.Flags&ctProxyLeg != 0,
		Bound:               e.Flags&ctBound != 0,
		Revision:            e.Revision,
		Service:             e.RevNat,
		Expires:             time.Duration(int64(e.Expires) - monotonic()),
		Packets:             e.Packets,
		Bytes:               e.Bytes,
	}
}

// monotonic is the clock of bpf_ktime_get_ns, ns.
func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}
