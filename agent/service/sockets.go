package service

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/bpf"
	"github.com/headgate/headgate/policy"
)

// NetnsGate is what Sockets writes to: *bpf.Gate.
type NetnsGate interface {
	SetNetns(bpf.Netns) error
	DeleteNetns(cookie uint64) error
	Netnses() ([]bpf.Netns, error)
	SocketAsked(cookie uint64, backend netip.AddrPort, proto policy.Proto) (netip.AddrPort, bool)
}

// Kernel is all of the gate that services are written to.
type Kernel struct {
	*Writer
	*Sockets
}

// Cut ends the connections to a backend that were made by these addresses, and says
// how many: those of sockets that were given it are reset, and those that the gate
// translates are forgotten. Sockets first, whose resets still pass.
func (k *Kernel) Cut(addresses []Address, backend netip.AddrPort) (int, error) {
	reset, err := k.Sockets.reset(addresses, backend)
	cut, failed := k.Writer.Cut(addresses, backend)
	return reset + cut, errors.Join(err, failed)
}

// Sockets tells the gate in which network namespaces sockets that connect to a
// service are given a backend: the agent's own, and those of its endpoints. One that
// cannot be entered goes without: its packets are translated all the same.
type Sockets struct {
	gate  NetnsGate
	log   *slog.Logger
	known map[string]place // by endpoint
}

// place is a network namespace, as it is called: empty is our own.
type place struct {
	bpf.Netns
	name string
}

// NewSockets starts with the agent's own namespace, and nothing else that an agent
// before had written.
func NewSockets(g NetnsGate, log *slog.Logger) (*Sockets, error) {
	own, err := netns.Get()
	if err != nil {
		return nil, fmt.Errorf("open own network namespace: %w", err)
	}
	defer own.Close()
	host, err := identify(own)
	if err != nil {
		return nil, err
	}
	host.Host = true
	return &Sockets{gate: g, log: log, known: map[string]place{"": {host, ""}}}, g.SetNetns(host)
}

// SyncNetns follows the endpoints.
func (s *Sockets) SyncNetns(endpoints []*endpoint.Endpoint) error {
	wanted := map[string]bool{"": true}
	var errs error
	for _, e := range endpoints {
		id := fmt.Sprint(e.Key(), e.Ifindex, e.IPs)
		wanted[id] = true
		if _, done := s.known[id]; done {
			continue
		}
		n, err := namespaceOf(e)
		if err != nil {
			s.log.Info("services are translated per packet only", "endpoint", e.Key(), "why", err)
		} else if err = s.gate.SetNetns(n); err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		s.known[id] = place{n, e.Netns}
	}
	for id := range s.known {
		if !wanted[id] {
			delete(s.known, id)
		}
	}
	return errors.Join(errs, s.sweep())
}

// sweep removes what belongs to no endpoint any more.
func (s *Sockets) sweep() error {
	there, err := s.gate.Netnses()
	if err != nil {
		return fmt.Errorf("read network namespaces from the datapath: %w", err)
	}
	used := map[uint64]bool{}
	for _, n := range s.known {
		used[n.Cookie] = true
	}
	for _, n := range there {
		if !used[n.Cookie] {
			err = errors.Join(err, s.gate.DeleteNetns(n.Cookie))
		}
	}
	return err
}

// namespaceOf finds an endpoint's namespace, and makes sure that it is: a process id
// may be another's by now.
func namespaceOf(e *endpoint.Endpoint) (bpf.Netns, error) {
	h, err := endpoint.OpenNetns(e.Netns)
	if err != nil {
		return bpf.Netns{}, err
	}
	defer h.Close()
	links, err := netlink.NewHandleAt(h, unix.NETLINK_ROUTE)
	if err != nil {
		return bpf.Netns{}, fmt.Errorf("enter network namespace %s: %w", e.Netns, err)
	}
	defer links.Close()
	if link, err := links.LinkByName(e.Inside); err != nil || link.Attrs().HardwareAddr.String() != e.MAC {
		return bpf.Netns{}, fmt.Errorf("network namespace %s is not the endpoint's any more", e.Netns)
	}
	n, err := identify(h)
	for _, ip := range e.IPs {
		if ip.Is4() {
			n.V4 = ip
		} else {
			n.V6 = ip
		}
	}
	return n, err
}

// identify reads by what the kernel knows a network namespace.
func identify(h netns.NsHandle) (bpf.Netns, error) {
	var n bpf.Netns
	var st unix.Stat_t
	if err := unix.Fstat(int(h), &st); err != nil {
		return n, fmt.Errorf("look at a network namespace: %w", err)
	}
	n.Inode, n.V4, n.V6 = st.Ino, netip.IPv4Unspecified(), netip.IPv6Unspecified()
	err := inside(h, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a socket in a network namespace: %w", err)
		}
		defer unix.Close(fd)
		if n.Cookie, err = unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err != nil {
			return fmt.Errorf("ask for the cookie of a network namespace: %w", err)
		}
		return nil
	})
	return n, err
}

// inside runs f in a network namespace. A thread goes there, and ends with what it
// did: none of ours is left in another namespace.
func inside(h netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(h); err != nil {
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}
