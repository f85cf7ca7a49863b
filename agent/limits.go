package agent

import (
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/bpf"
)

// A connection costs what the kernel's allocator gives for key, value and its own
// header of an element; the table's buckets cost 16 bytes each besides, in advance.
const (
	connectionBytes    = 256
	defaultConnections = 1 << 20
	leastConnections   = 1 << 16
	// shareOfMemory is what of the machine's memory all connections may take.
	shareOfMemory = 8
)

// connections is the room for established TCP: a million where memory allows.
func (a *Agent) connections() int {
	if a.cfg.MaxConnections > 0 {
		return a.cfg.MaxConnections
	}
	n := defaultConnections
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return leastConnections
	}
	memory := info.Totalram * uint64(info.Unit)
	for n > leastConnections && uint64(n)*connectionBytes > memory/shareOfMemory {
		n /= 2
	}
	return n
}

// share is how many connections one workload may have: with a quarter, two that
// talk to each other leave room for others.
func (a *Agent) share() uint32 {
	if a.cfg.Share > 0 {
		return uint32(a.cfg.Share)
	}
	return uint32(a.connectionsLimit() / 4)
}

func (a *Agent) connectionsLimit() int {
	all, err := a.gate.Usage()
	if err == nil {
		for _, u := range all {
			if u.Map == "ct-tcp" { // of a gate that was taken over, its own
				return int(u.Limit)
			}
		}
	}
	return a.connections()
}

// openPorts tells the gate what host policies never close.
func (a *Agent) openPorts() error {
	return a.gate.SetOpenPorts(append([]bpf.OpenPort{}, a.cfg.HostAllow...))
}
