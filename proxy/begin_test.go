package proxy

import (
	"bufio"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/headgate/headgate/redirect"
)

// TestBothWays wants a client that waits for the server in the middle of its body not
// to wait for ever, and one whose chunk then is malformed to be cut off.
func TestBothWays(t *testing.T) {
	const head = "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
	got := make(chan string, 8)
	r := startProxy(t, server(t, func(c *net.TCPConn) {
		in := make([]byte, 4096)
		for n, err := c.Read(in); ; n, err = c.Read(in) {
			got <- string(in[:n])
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
		}
	}), nil)
	r.enforce(redirect.SetNumber(setA))
	for name, first := range map[string]string{"nothing": "", "a chunk": "5\r\nhello\r\n", "part of a chunk": "5\r\nhel"} {
		t.Run(name, func(t *testing.T) {
			c := r.dial()
			_, err := io.WriteString(c, head+first)
			must(t, err)
			if upstream := <-got; upstream != head+first {
				t.Errorf("the server got %q", upstream)
			}
			in := bufio.NewReader(c)
			if line, err := in.ReadString('\n'); err != nil || !strings.Contains(line, "103") {
				t.Errorf("the client got %q, %v", line, err)
			}
			_, err = io.WriteString(c, "lo??\r\n0\r\n\r\n")
			must(t, err)
			if rest, err := io.ReadAll(in); err != nil || !strings.Contains(string(rest), "400 Bad Request") {
				t.Errorf("the client got %q, %v", rest, err)
			}
			for upstream := range got {
				if upstream == "" {
					break
				}
				if upstream != "lo" {
					t.Errorf("the server got %q", upstream)
				}
			}
		})
	}
}
