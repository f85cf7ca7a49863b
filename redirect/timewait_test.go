package redirect

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
)

// waiting counts the sockets in TIME_WAIT in the test's namespace.
func waiting(t *testing.T) int {
	t.Helper()
	n := 0
	for _, table := range []string{"tcp", "tcp6"} {
		data, err := os.ReadFile("/proc/thread-self/net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(string(data), "\n")[1:] {
			if f := strings.Fields(line); len(f) > 3 && f[3] == "06" {
				n++
			}
		}
	}
	return n
}

// A port that was in TIME_WAIT at once takes another connection from the same
// client; a socket with another cookie is left alone.
func TestTimeWaitIsForgotten(t *testing.T) {
	inNamespace(t)
	if err := InstallRules(); err != nil {
		t.Fatal(err)
	}
	waits, err := OpenTimeWaits()
	if err != nil {
		t.Fatal(err)
	}
	defer waits.Close()
	for _, listen := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := ListenTransparent(t.Context(), netip.MustParseAddrPort(listen))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		to := l.Addr().(*net.TCPAddr).AddrPort()
		from := netip.AddrPortFrom(to.Addr(), 40001)
		for round := range 3 {
			fd, err := DialTransparent(from, to)
			client := connected(t, fd, err)
			server, err := l.Accept()
			if err != nil {
				t.Fatal(err)
			}
			raw, err := server.(*net.TCPConn).SyscallConn()
			if err != nil {
				t.Fatal(err)
			}
			var cookie uint64
			if err := raw.Control(func(fd uintptr) { cookie = Cookie(int(fd)) }); err != nil {
				t.Fatal(err)
			}
			// The server ends first, and so has the TIME_WAIT.
			server.(*net.TCPConn).CloseWrite()
			io.ReadAll(client)
			client.Close()
			io.ReadAll(server)
			server.Close()
			if err := waits.Forget(to, from, cookie+1); err != nil {
				t.Fatal(err)
			}
			if waiting(t) != 1 {
				t.Fatalf("%s, round %d: %d sockets in TIME_WAIT, want the one with another cookie", listen, round, waiting(t))
			}
			if err := waits.Forget(to, from, cookie); err != nil {
				t.Fatal(err)
			}
			if waiting(t) != 0 {
				t.Fatalf("%s, round %d: still in TIME_WAIT", listen, round)
			}
		}
	}
}
