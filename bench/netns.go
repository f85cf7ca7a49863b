package main

import (
	"fmt"
	"net"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netns is a network namespace, held by a thread of this process, on which what must
// happen in it happens. It ends with the process.
type netns struct {
	path  string
	calls chan func()
}

func newNetns() (*netns, error) {
	n := &netns{calls: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with its goroutine
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			ready <- fmt.Errorf("make a network namespace: %w", err)
			return
		}
		ready <- setUp("lo")
		for f := range n.calls {
			f()
		}
	}()
	return n, <-ready
}

func setUp(device string) error {
	link, err := netlink.LinkByName(device)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring %s up: %w", device, err)
	}
	return nil
}

// do runs f in the namespace. What f starts or opens stays there.
func (n *netns) do(f func() error) error {
	result := make(chan error, 1)
	n.calls <- func() { result <- f() }
	return <-result
}

// sysctl sets a kernel parameter of the namespace.
func (n *netns) sysctl(name, value string) error {
	return n.do(func() error {
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		return nil
	})
}

// connect makes a veth pair between the namespace and a peer: name and addr here,
// eth0 and peerAddr there, with its default route to addr.
func (n *netns) connect(name, addr string, peer *netns, peerAddr string) error {
	target, err := os.Open(peer.path)
	if err != nil {
		return fmt.Errorf("connect namespaces: %w", err)
	}
	defer target.Close()
	err = n.do(func() error {
		veth := netlink.NewVeth(netlink.NewLinkAttrs())
		veth.Name, veth.PeerName, veth.PeerNamespace = name, "eth0", netlink.NsFd(target.Fd())
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		return address(name, addr)
	})
	if err == nil {
		err = peer.do(func() error {
			if err := address("eth0", peerAddr); err != nil {
				return err
			}
			gateway, _, err := net.ParseCIDR(addr)
			if err != nil {
				return err
			}
			return netlink.RouteAdd(&netlink.Route{Gw: gateway})
		})
	}
	if err != nil {
		return fmt.Errorf("connect namespaces by %s: %w", name, err)
	}
	return nil
}

func address(device, addr string) error {
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	link, err := netlink.LinkByName(device)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(link, a); err != nil {
		return err
	}
	return setUp(device)
}
