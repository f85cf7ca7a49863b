package redirect

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNamespace runs the test in a network namespace of its own.
func inNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("needs root: makes a network namespace")
		}
		t.Skip("needs root: makes a network namespace")
	}
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	own, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		own.Close()
		if err := netns.Set(before); err == nil {
			runtime.UnlockOSThread() // else the thread ends with the test
		}
		before.Close()
	})
}

func ourRules(t *testing.T) int {
	n := 0
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		rules, err := netlink.RuleList(family)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rules {
			if r.Table == Table {
				n++
			}
		}
	}
	return n
}

func TestRulesAreThereOnceAndGo(t *testing.T) {
	inNamespace(t)
	for range 2 { // an agent that restarts installs them again
		if err := InstallRules(); err != nil {
			t.Fatal(err)
		}
	}
	if n := ourRules(t); n != 2 {
		t.Errorf("%d rules, want one an IP version", n)
	}
	for range 2 {
		if err := RemoveRules(); err != nil {
			t.Fatal(err)
		}
	}
	if n := ourRules(t); n != 0 {
		t.Errorf("%d rules are left", n)
	}
}

// The sockets take addresses that nobody here has, and mark what they send.
func TestTransparentSockets(t *testing.T) {
	inNamespace(t)
	if err := InstallRules(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ listen, client string }{
		{"127.0.0.1:0", "192.0.2.7"}, {"[::1]:0", "2001:db8::7"},
	} {
		talkTransparently(t, c.listen, c.client)
	}
}

// talkTransparently stays on the test's thread: only that is in its namespace.
func talkTransparently(t *testing.T, listen, client string) {
	t.Helper()
	l, err := ListenTransparent(t.Context(), netip.MustParseAddrPort(listen))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	checkMark(t, l.(*net.TCPListener))
	from := netip.AddrPortFrom(netip.MustParseAddr(client), 40000)
	local := l.Addr().(*net.TCPAddr).AddrPort()
	route(t, client)
	fd, err := DialTransparent(from, local)
	conn := connected(t, fd, err)
	defer conn.Close()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if got := server.RemoteAddr().(*net.TCPAddr).AddrPort(); got != from {
		t.Errorf("the server sees %s, want %s", got, from)
	}
	checkMark(t, conn)
	checkMark(t, server.(*net.TCPConn))
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(server, make([]byte, 1)); err != nil {
		t.Error(err)
	}
	if _, err := DialTransparent(from, local); !IsPortTaken(err) {
		t.Errorf("the same four addresses and ports a second time: %v", err)
	}
}

// connected waits until a socket that connects has.
func connected(t *testing.T, fd int, err error) *net.TCPConn {
	t.Helper()
	if err == nil {
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 10_000)
	}
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "connection")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// route delivers packets for a foreign address locally, as the gate's mark would.
func route(t *testing.T, addr string) {
	t.Helper()
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	a := netip.MustParseAddr(addr)
	r := &netlink.Route{
		LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST,
		Dst: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
	}
	if err := netlink.RouteAdd(r); err != nil && !errors.Is(err, unix.EEXIST) {
		t.Fatal(err)
	}
}

func checkMark(t *testing.T, c interface {
	SyscallConn() (syscall.RawConn, error)
}) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var mark int
	_ = raw.Control(func(fd uintptr) { mark, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK) })
	if err != nil || mark != MarkFromProxy {
		t.Errorf("mark %#x, %v, want %#x", mark, err, MarkFromProxy)
	}
}
