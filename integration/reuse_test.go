package integration

import (
	"context"
	"fmt"
	"io"
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
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				c, err := client.connect(ctx, unix.SOCK_STREAM, from, server.at(v, 80))
				cancel()
				if err != nil {
					t.Fatalf("%s, round %d: %v", path, round, err)
				}
				fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n", path)
				c.SetReadDeadline(time.Now().Add(5 * time.Second))
				answer, err := io.ReadAll(c)
				c.Close()
				if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 ") {
					t.Fatalf("%s, round %d: answered %.40q, %v", path, round, answer, err)
				}
			}
		}
	})
}
