package redirect

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// InjectorDevice is what a proxy writes datagrams to that are for workloads of this node. The
// gate takes them from there to the workload's side of its veth: past the host's routing,
// its output path and the queue of a veth, which is most of what a raw socket costs. It is a
// TAP device that stays when nobody has it open; each proxy has a queue of its own.
const InjectorDevice = "hg_host_in"

const injectorMode = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_MULTI_QUEUE

// injectorOwner is who may open a queue of the device without CAP_NET_ADMIN: nobody. A device
// without an owner is open to everybody who may open /dev/net/tun.
const injectorOwner = 1<<32 - 2

// EnsureInjector makes the device and returns its index. It stays down, so that nothing is
// taken from it before the gate is there: see RaiseInjector.
func EnsureInjector() (ifindex int, err error) {
	link, err := netlink.LinkByName(InjectorDevice)
	if err == nil && !guarded(link) { // others may have queues of it by now
		if err := netlink.LinkDel(link); err != nil {
			return 0, fmt.Errorf("delete device %s, which anybody may open: %w", InjectorDevice, err)
		}
	}
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil && guarded(link):
		return link.Attrs().Index, nil
	case err != nil && !errors.As(err, &missing):
		return 0, fmt.Errorf("find device %s: %w", InjectorDevice, err)
	}
	if err := makeInjector(); err != nil {
		return 0, fmt.Errorf("make device %s: %w", InjectorDevice, err)
	}
	// Nothing of the host's own goes by it: no neighbours, no routers.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+InjectorDevice+"/disable_ipv6", []byte("1"), 0o644)
	if link, err = netlink.LinkByName(InjectorDevice); err != nil {
		return 0, fmt.Errorf("find device %s: %w", InjectorDevice, err)
	}
	return link.Attrs().Index, nil
}

// RaiseInjector lets the device take what is written to it.
func RaiseInjector() error {
	link, err := netlink.LinkByName(InjectorDevice)
	if err == nil {
		err = netlink.LinkSetUp(link)
	}
	if err != nil {
		return fmt.Errorf("bring device %s up: %w", InjectorDevice, err)
	}
	return nil
}

// guarded reports whether a device was made by makeInjector.
func guarded(l netlink.Link) bool {
	t, ok := l.(*netlink.Tuntap)
	return ok && t.Owner == injectorOwner
}

// makeInjector makes the device where nobody else is, in a network namespace of its own, for
// it is open to everybody until it has its owner.
func makeInjector() error {
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("open the network namespace: %w", err)
	}
	defer home.Close()
	made := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return fmt.Errorf("make a network namespace: %w", err)
			}
			f, err := openQueue()
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETOWNER, injectorOwner); err != nil {
				return fmt.Errorf("give it its owner: %w", err)
			}
			if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
				return fmt.Errorf("keep it: %w", err)
			}
			link, err := netlink.LinkByName(InjectorDevice)
			if err == nil {
				err = netlink.LinkSetNsFd(link, int(home))
			}
			if err != nil {
				return fmt.Errorf("move it to where it belongs: %w", err)
			}
			return nil
		}()
	}()
	return <-made
}

// OpenInjector opens a queue of the device. It is an error if there is none.
func OpenInjector() (*os.File, error) {
	before, err := net.InterfaceByName(InjectorDevice)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", InjectorDevice, err)
	}
	f, err := openQueue()
	if err != nil {
		return nil, err
	}
	// One that it has made just now has no gate, and goes when it is closed.
	if now, err := net.InterfaceByName(InjectorDevice); err != nil || now.Index != before.Index || !IsInjector(int(f.Fd())) {
		_ = f.Close()
		return nil, fmt.Errorf("open device %s: it is another now", InjectorDevice)
	}
	return f, nil
}

func openQueue() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(InjectorDevice)
	if err == nil {
		r.SetUint16(injectorMode)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("open device %s: %w", InjectorDevice, err)
	}
	return os.NewFile(uintptr(fd), InjectorDevice), nil
}

// RemoveInjector takes the device away.
func RemoveInjector() error {
	link, err := netlink.LinkByName(InjectorDevice)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) {
		return fmt.Errorf("delete device %s: %w", InjectorDevice, err)
	}
	return nil
}

// IsInjector reports whether a descriptor is a queue of the device, which takes bare frames.
func IsInjector(fd int) bool {
	r, err := unix.NewIfreq(InjectorDevice)
	if err != nil || unix.IoctlIfreq(fd, unix.TUNGETIFF, r) != nil || r.Name() != InjectorDevice {
		return false
	}
	return r.Uint16()&^unix.IFF_PERSIST == injectorMode
}

const (
	ethernet = 14
	// headroom is for the headers of a frame before what was received.
	headroom = 64
	// hereLasts bounds how long an address is believed to be a workload's or not: what is
	// written for one that has gone is lost.
	hereLasts = time.Second
	maxHere   = 8192
)

// injector is the part of a Sender that writes to the device.
type injector struct {
	fd      int // 0: there is none
	here    func(netip.Addr) bool
	known   map[netip.Addr]bool
	since   time.Time
	frame   [ethernet + header6]byte
	vectors [2]unix.Iovec
}

// Inject makes the sender write what is for a workload of this node to the device.
func (s *Sender) Inject(fd int, here func(netip.Addr) bool) {
	s.injector = injector{fd: fd, here: here, known: map[netip.Addr]bool{}}
	s.injector.vectors[0].Base = &s.injector.frame[0]
}

// Forget makes the sender ask again from time to time where addresses are.
func (s *Sender) Forget(now time.Time) {
	if i := &s.injector; i.fd != 0 && now.Sub(i.since) > hereLasts {
		clear(i.known)
		i.since = now
	}
}

// isHere reports whether an address is a workload's of this node.
func (i *injector) isHere(a netip.Addr) bool {
	here, ok := i.known[a]
	if !ok {
		if len(i.known) >= maxHere {
			clear(i.known)
		}
		here = i.here(a)
		i.known[a] = here
	}
	return here
}

// inject writes a datagram to the device. False: it was not taken.
func (i *injector) inject(from, to netip.AddrPort, data []byte) bool {
	if i.fd == 0 || !i.isHere(to.Addr()) {
		return false
	}
	size := fillFrame(&i.frame, from, to, data)
	i.vectors[0].SetLen(size)
	i.vectors[1].Base = &data[0]
	i.vectors[1].SetLen(len(data))
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITEV, uintptr(i.fd), uintptr(unsafe.Pointer(&i.vectors[0])), 2)
	i.vectors[1].Base = nil
	return errno == 0 && int(n) == size+len(data)
}

// forward writes a datagram that was received, with its headers before it, in one piece.
func (i *injector) forward(from, to netip.AddrPort, g *Datagram) bool {
	if i.fd == 0 || !i.isHere(to.Addr()) {
		return false
	}
	size := fillFrame(&i.frame, from, to, g.Data)
	copy(g.before[headroom-size:], i.frame[:size])
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(i.fd), uintptr(unsafe.Pointer(&g.before[headroom-size])), uintptr(size+len(g.Data)))
	return errno == 0 && int(n) == size+len(g.Data)
}

// fillFrame writes the headers of a frame and says how long they are. Link addresses are the
// gate's to write.
func fillFrame(frame *[ethernet + header6]byte, from, to netip.AddrPort, data []byte) int {
	h := (*[header6]byte)(frame[ethernet:])
	if to.Addr().Is4() {
		binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IP)
		header4Of(h, from, to, data)
		finish4(h, len(data))
		return ethernet + header4
	}
	binary.BigEndian.PutUint16(frame[12:], unix.ETH_P_IPV6)
	header6Of(h, from, to, data)
	return ethernet + header6
}

// finish4 writes what the kernel writes where it is given a header: length and checksum. What
// has no id is in one piece (RFC 6864).
func finish4(h *[header6]byte, data int) {
	binary.BigEndian.PutUint16(h[2:], uint16(header4+data))
	h[6] = 0x40
	s := sum(h[:20], 0)
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	binary.BigEndian.PutUint16(h[10:], ^uint16(s))
}
