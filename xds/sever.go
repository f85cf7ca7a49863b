package xds

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// An Envoy that has been replaced cannot be killed: the one that follows asks it for each
// socket that it listens on, and ends itself where nobody answers. What it carries can be
// ended without it: it accepts nothing any more, so the kernel closes its connections.

// severEvery is the pause between two looks.
const severEvery = 5 * time.Millisecond

// tcpListen is TCP_LISTEN of the kernel (include/net/tcp_states.h).
const tcpListen = 10

// errListens says of a process that it still accepts connections.
var errListens = errors.New("it still accepts connections")

// sever has the kernel close each TCP connection of a process, of both sides, until it has
// none. While it accepts, or the context ends before: an error.
func sever(ctx context.Context, p *process) error {
	for clean := 0; clean < 2; { // what it opened while we looked is seen the second time
		if !p.alive() {
			return nil
		}
		listens, open, err := socketsOf(p.PID)
		switch {
		case errors.Is(err, netlink.ErrDumpInterrupted):
			clean = 0
		case err != nil:
			return err
		case listens:
			return fmt.Errorf("close the connections of process %d: %w", p.PID, errListens)
		case len(open) > 0:
			clean = 0
		default:
			clean++
		}
		for _, c := range open {
			if err := destroySocket(c.source, c.destination); err != nil && !errors.Is(err, unix.ENOENT) {
				return fmt.Errorf("close the connections of process %d: %w", p.PID, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("close the connections of process %d: it still has %d: %w", p.PID, len(open), context.Cause(ctx))
		case <-time.After(severEvery):
		}
	}
	return nil
}

// listens reports whether a process accepts TCP connections.
func (p *process) listens() (bool, error) {
	if !p.alive() {
		return false, nil
	}
	listens, _, err := socketsOf(p.PID)
	return listens && p.alive(), err
}

// socketsOf finds the TCP sockets of a process in this network namespace: the ends of each
// connection, its own first.
func socketsOf(pid int) (listens bool, open []connection, err error) {
	inodes, err := inodesOf(pid)
	if err != nil || len(inodes) == 0 {
		return false, nil, err
	}
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		all, err := netlink.SocketDiagTCP(family)
		if err != nil {
			return false, nil, fmt.Errorf("list sockets: %w", err)
		}
		for _, s := range all {
			if !inodes[s.INode] {
				continue
			}
			if s.State == tcpListen {
				listens = true
				continue
			}
			open = append(open, connection{
				source:      addrPortOf(family, s.ID.Source, s.ID.SourcePort),
				destination: addrPortOf(family, s.ID.Destination, s.ID.DestinationPort),
			})
		}
	}
	return listens, open, nil
}

// addrPortOf keeps an IPv4 address of an IPv6 socket as that socket has it.
func addrPortOf(family uint8, ip []byte, port uint16) netip.AddrPort {
	a, _ := netip.AddrFromSlice(ip)
	if family == unix.AF_INET {
		a = a.Unmap()
	} else if a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	return netip.AddrPortFrom(a, port)
}

// inodesOf are the sockets that a process has. None: it has ended.
func inodesOf(pid int) (map[uint32]bool, error) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the sockets of process %d: %w", pid, err)
	}
	inodes := map[uint32]bool{}
	for _, e := range entries {
		to, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil { // closed meanwhile
			continue
		}
		number, ok := strings.CutPrefix(to, "socket:[")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(strings.TrimSuffix(number, "]"), 10, 32); err == nil {
			inodes[uint32(n)] = true
		}
	}
	return inodes, nil
}
