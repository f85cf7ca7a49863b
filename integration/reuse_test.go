package integration

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPortUsedAgain opens one connection after the other from the same port, each
// ended first by the proxy. What the proxy's side remembers of the last one must
// not swallow the next: at worst its SYN is sent twice.
func TestPortUsedAgain(t *testing.T) {
	t.Parallel()
	n := startNode(t)
	server := n.workload(t, "web", "app=web")
	client := n.workload(t, "client", "app=client")
	server.serveWeb(t, 80)
	n.apply(t, allow("web", "web", fromApp("client"), 80, httpRule{"GET", "/read"}))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		from := netip.AddrPortFrom(client.addr(v), 42002)
		for _, path := range []string{"/read", "/write"} { // ended by the server's answer, and by the proxy's
			for round := range 4 {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				c, err := client.connect(ctx, unix.SOCK_STREAM, from, server.at(v, 80))
				cancel()
				if err != nil {
					t.Fatalf("%s, round %d: %v", path, round, err)
				}
				if n := sentAgain(t, c); n > 2 {
					t.Errorf("%s, round %d: the SYN was sent %d times more", path, round, n)
				}
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", path)
				c.SetReadDeadline(time.Now().Add(patience))
				answer, err := io.ReadAll(c)
				c.Close()
				if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
					t.Fatalf("%s, round %d: answered %.40q, %v", path, round, answer, err)
				}
			}
		}
	})
}

// sentAgain is how many segments of a connection were sent more than once.
func sentAgain(t *testing.T, c net.Conn) (n uint32) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		info, err := unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
		if failed = err; err == nil {
			n = info.Total_retrans
		}
	})
	if err := errors.Join(err, failed); err != nil {
		t.Fatal(err)
	}
	return n
}
