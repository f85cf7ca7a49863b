package bpf

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/policy"
)

// cgroupRoot is where the machine's control groups are. Programs that a test puts
// there act in its own network namespace only, and are taken off after it.
func (l *lab) cgroupRoot() string {
	l.Helper()
	root, err := CgroupRoot()
	l.must(err)
	return root
}

// here makes the lab's namespace one in which sockets meet services. It says which it
// is: what belongs to a namespace that is not there is taken off by any agent that
// starts on this machine.
func (l *lab) here() Netns {
	l.Helper()
	var st unix.Stat_t
	l.must(unix.Stat("/proc/thread-self/ns/net", &st))
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
	l.must(err)
	defer unix.Close(fd)
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	l.must(err)
	n := Netns{Cookie: cookie, Inode: st.Ino, V4: mustAddr("127.0.0.1"), V6: mustAddr("::1"), Host: true}
	l.must(l.g.SetNetns(n))
	return n
}

// hung are the programs of a gate on the root.
func (l *lab) hung(g *Gate) int {
	l.Helper()
	group, err := openCgroup(l.cgroupRoot())
	l.must(err)
	defer group.Close()
	mine, err := mapID(g.objs.HgSvcNetns1)
	l.must(err)
	n := 0
	for _, at := range sockOrder {
		there, err := socks(group, at)
		l.must(err)
		for _, s := range there {
			if s.netns == mine {
				n++
			}
		}
		closeSocks(there)
	}
	return n
}

func TestSockets(t *testing.T) {
	l := newLab(t)
	l.must(l.g.AttachCgroup(l.cgroupRoot()))
	t.Cleanup(func() { l.must(DetachCgroup(l.cgroupRoot(), l.maps(), alive)) })
	for family, v6 := range families {
		at := netip.AddrPortFrom(vip(v6), servicePort).String()
		loopback := map[bool]string{false: "127.0.0.1:0", true: "[::1]:0"}[v6]
		server, err := net.Listen("tcp", loopback)
		l.must(err)
		defer server.Close()
		echo, err := net.ListenPacket("udp", loopback)
		l.must(err)
		defer echo.Close()
		l.reset(nil, nil)
		l.here()
		l.serve(v6, func(s *Service) {
			to := server.Addr().(*net.TCPAddr).AddrPort()
			if s.Proto == policy.ProtoUDP {
				to = echo.LocalAddr().(*net.UDPAddr).AddrPort()
			}
			s.Backends = map[uint32]netip.AddrPort{uint32(s.Number): to}
			s.fill()
		})
		c, err := net.DialTimeout("tcp", at, patience)
		if err != nil {
			t.Fatalf("%s: %v", family, err)
		}
		if peer, err := peerOf(c.(*net.TCPConn)); err != nil || peer.String() != at {
			t.Errorf("%s: the peer is %s, %v, want %s", family, peer, err, at)
		}
		c.Close()

		// A socket that connects, and one that does not.
		u, err := net.Dial("udp", at)
		l.must(err)
		defer u.Close()
		free, err := net.ListenPacket("udp", map[bool]string{false: "0.0.0.0:0", true: "[::]:0"}[v6])
		l.must(err)
		defer free.Close()
		asked, err := net.ResolveUDPAddr("udp", at)
		l.must(err)
		for _, send := range []func() (int, error){
			func() (int, error) { return u.Write([]byte("q")) },
			func() (int, error) { return free.WriteTo([]byte("q"), asked) },
		} {
			_, err = send()
			l.must(err)
			l.must(echo.SetReadDeadline(time.Now().Add(patience)))
			_, from, err := echo.ReadFrom(make([]byte, 9))
			l.must(err)
			_, err = echo.WriteTo([]byte("a"), from)
			l.must(err)
		}
		l.must(u.SetReadDeadline(time.Now().Add(patience)))
		if _, err := u.Read(make([]byte, 9)); err != nil {
			t.Errorf("%s: the answer to a connected socket: %v", family, err)
		}
		l.must(free.SetReadDeadline(time.Now().Add(patience)))
		if _, from, err := free.ReadFrom(make([]byte, 9)); err != nil || from.String() != at {
			t.Errorf("%s: the answer comes from %v, %v, want %s", family, from, err, at)
		}

		// Without a backend, at another port, and where only the host's sockets may.
		l.reset(nil, nil)
		n := l.here()
		l.serve(v6, nil)
		refused := func(what, at string) {
			t.Helper()
			if c, err := net.DialTimeout("tcp", at, patience); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("%s: %s: %v, want a refusal", family, what, err)
				if err == nil {
					c.Close()
				}
			}
		}
		refused("no backend", at)
		refused("another port", netip.AddrPortFrom(vip(v6), 81).String())
		n.Host = false
		l.must(l.g.SetNetns(n))
		l.serve(v6, func(s *Service) { s.HostOnly = true }, netip.MustParseAddrPort(server.Addr().String()))
		refused("for the host only", at)
		l.must(l.g.DeleteNetns(n.Cookie)) // another agent's namespace: nothing happens
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", at); err == nil || errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("%s: in another namespace: %v", family, err)
			if err == nil {
				c.Close()
			}
		}
		cancel()
	}
}

// peerOf asks the kernel, where net.Conn remembers.
func peerOf(c *net.TCPConn) (peer netip.AddrPort, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return peer, err
	}
	ctl := raw.Control(func(fd uintptr) {
		var sa unix.Sockaddr
		if sa, err = unix.Getpeername(int(fd)); err != nil {
			return
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			peer = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
		case *unix.SockaddrInet6:
			peer = netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
		}
	})
	return peer, errors.Join(ctl, err)
}

// maps are those of the lab's gate, as another process would find them.
func (l *lab) maps() *Maps {
	return &Maps{byName: map[string]*ebpf.Map{gateMapHgSvcNetns1: l.g.objs.HgSvcNetns1}}
}

func alive(uint64) bool { return true }

// The next agent's programs take the place of the ones before, and of nobody else's.
func TestCgroupTakeover(t *testing.T) {
	l := newLab(t)
	root := l.cgroupRoot()
	other, err := Load(Options{}, nil)
	l.must(err)
	t.Cleanup(func() { other.Close() })
	l.must(other.AttachCgroup(root))
	t.Cleanup(func() {
		l.must(DetachCgroup(root, &Maps{byName: map[string]*ebpf.Map{gateMapHgSvcNetns1: other.objs.HgSvcNetns1}}, alive))
		if n := l.hung(other); n != 0 {
			t.Errorf("%d programs of the other gate are left", n)
		}
	})
	for range 2 { // the second time nothing is to be done
		l.must(l.g.AttachCgroup(root))
		if n := l.hung(l.g); n != len(sockOrder) {
			t.Errorf("%d programs hang there, want %d", n, len(sockOrder))
		}
	}
	own := l.here().Inode
	l.must(l.g.AttachHost(l.host))
	found, err := AttachedMaps(l.host)
	l.must(err)
	defer found.Close()
	next := l.reload(found)
	l.must(next.AttachCgroup(root))
	if n := l.hung(next); n != len(sockOrder) {
		t.Errorf("%d programs hang there after the take-over, want %d", n, len(sockOrder))
	}
	users, err := CgroupUsers(root)
	if err != nil || !users[own] {
		t.Errorf("who is there: %v, %v", users, err)
	}
	// One whose agent's namespace is gone is taken off by whoever comes.
	gone := func(inode uint64) bool { return inode != own }
	l.must(DetachCgroup(root, nil, gone))
	if n, others := l.hung(next), l.hung(other); n != 0 || others != len(sockOrder) {
		t.Errorf("%d of an agent that is gone are left, and %d of another", n, others)
	}
	if err := l.g.AttachCgroup(t.TempDir()); !errors.Is(err, ErrNoCgroup) {
		t.Error(fmt.Sprint("attached to what is no control group: ", err))
	}
}

// TestCgroupIsShared has another gate come and go on the root all the time: that is no
// reason for this one to fail.
func TestCgroupIsShared(t *testing.T) {
	l := newLab(t)
	root := l.cgroupRoot()
	other, err := Load(Options{}, nil)
	l.must(err)
	t.Cleanup(func() { other.Close() })
	l.must(l.g.AttachCgroup(root))
	t.Cleanup(func() { l.must(DetachCgroup(root, l.maps(), alive)) })
	stop, ended := make(chan struct{}), make(chan error, 1)
	t.Cleanup(func() {
		close(stop)
		l.must(<-ended)
	})
	go func() {
		maps := &Maps{byName: map[string]*ebpf.Map{gateMapHgSvcNetns1: other.objs.HgSvcNetns1}}
		for {
			err := errors.Join(other.AttachCgroup(root), DetachCgroup(root, maps, alive))
			select {
			case <-stop:
				ended <- err
				return
			default:
			}
			if err != nil {
				ended <- err
				return
			}
		}
	}()
	group, err := openCgroup(root)
	l.must(err)
	defer group.Close()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); {
		for _, at := range sockOrder {
			_, err := query(link.QueryOptions{Target: int(group.Fd()), Attach: at})
			l.must(err)
		}
	}
	if n := l.hung(l.g); n != len(sockOrder) {
		t.Errorf("%d programs hang there, want %d", n, len(sockOrder))
	}
}
