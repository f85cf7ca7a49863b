package service

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/agent/endpoint"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// reset ends the TCP sockets that asked for one of the addresses and were given this
// backend, by the kernel's socket diagnosis: both ends see a reset.
func (s *Sockets) reset(addresses []Address, backend netip.AddrPort) (int, error) {
	n := 0
	var errs error
	for _, p := range s.known {
		if p.Cookie == 0 {
			continue // it could not be entered, so no socket of it was given anything
		}
		there, err := s.resetIn(p, addresses, backend)
		n += there
		errs = errors.Join(errs, err)
	}
	return n, errs
}

func (s *Sockets) resetIn(p place, addresses []Address, backend netip.AddrPort) (int, error) {
	ns, err := p.open()
	if err != nil {
		return 0, nil // gone, with its sockets
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_INET_DIAG)
	if err != nil {
		return 0, fmt.Errorf("open socket diagnosis: %w", err)
	}
	defer h.Close()
	family := uint8(unix.AF_INET)
	if backend.Addr().Is6() {
		family = unix.AF_INET6
	}
	list, err := h.SocketDiagTCP(family)
	if err != nil {
		return 0, fmt.Errorf("list sockets: %w", err)
	}
	n := 0
	err = inside(ns, func() error {
		end, err := redirect.OpenTimeWaits()
		if err != nil {
			return err
		}
		defer end.Close()
		for _, sock := range list {
			if !s.given(sock.ID, addresses, backend) {
				continue
			}
			ip, _ := netip.AddrFromSlice(sock.ID.Source)
			if err := end.Forget(netip.AddrPortFrom(ip.Unmap(), sock.ID.SourcePort), backend, cookieOf(sock.ID)); err != nil {
				return err
			}
			n++
		}
		return nil
	})
	return n, err
}

func cookieOf(id netlink.SocketID) uint64 { return uint64(id.Cookie[1])<<32 | uint64(id.Cookie[0]) }

func (p place) open() (netns.NsHandle, error) {
	if p.name == "" {
		return netns.Get()
	}
	return endpoint.OpenNetns(p.name)
}

// given reports whether a socket was given the backend for one of the addresses.
func (s *Sockets) given(id netlink.SocketID, addresses []Address, backend netip.AddrPort) bool {
	ip, ok := netip.AddrFromSlice(id.Destination)
	if !ok || netip.AddrPortFrom(ip.Unmap(), id.DestinationPort) != backend {
		return false
	}
	asked, ok := s.gate.SocketAsked(cookieOf(id), backend, policy.ProtoTCP)
	return ok && slices.Contains(addresses, Address{asked, policy.ProtoTCP})
}
