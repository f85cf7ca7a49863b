package integration

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// differences are inputs that the backends may take differently, as docs/envoy.md says. The
// rules allow every request.
var differences = []struct {
	name, input string
	own, envoy  int
}{
	{"lines that end in LF", "GET /p HTTP/1.1\nHost: h\n\n", 400, 200},
	{"a bare CR in a value", "GET /p HTTP/1.1\r\nHost: h\r\nA: b\rc\r\n\r\n", 400, 200},
	{"a folded field", "GET /p HTTP/1.1\r\nHost: h\r\nA: b\r\n c\r\n\r\n", 400, 200},
	{"empty lines first", "\r\n\r\n\r\nGET /p HTTP/1.1\r\nHost: h\r\n\r\n", 400, 200},
	{"two spaces", "GET  /p HTTP/1.1\r\nHost: h\r\n\r\n", 400, 200},
	{"two hosts", "GET /p HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", 400, 400},
	{"two equal hosts", "GET /p HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n", 400, 400},
	{"no host", "GET /p HTTP/1.1\r\n\r\n", 400, 400},
	{"no host in 1.0", "GET /p HTTP/1.0\r\n\r\n", 200, 400},
	{"a host with user", "GET /p HTTP/1.1\r\nHost: u@h\r\n\r\n", 400, 400},
	{"another host in the target", "GET http://i/p HTTP/1.1\r\nHost: h\r\n\r\n", 400, 200},
	{"the scheme https", "GET https://h/p HTTP/1.1\r\nHost: h\r\n\r\n", 400, 200},
	{"Content_Length", "POST /p HTTP/1.1\r\nHost: h\r\nContent_Length: 5\r\nContent-Length: 0\r\n\r\n", 400, 400},
	{"Content-Length: 00", "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 00\r\n\r\n", 400, 200},
	{"a nominated field", "GET /p HTTP/1.1\r\nHost: h\r\nX-User: a\r\nConnection: x-user\r\n\r\n", 400, 200},
	{"another expectation", "POST /p HTTP/1.1\r\nHost: h\r\nExpect: x\r\nContent-Length: 0\r\n\r\n", 417, 417},
	{"OPTIONS *", "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", 200, 404},
	{"a method of one's own", "PURGE /p HTTP/1.1\r\nHost: h\r\n\r\n", 200, 200},
	{"a method nobody has", "FROB /p HTTP/1.1\r\nHost: h\r\n\r\n", 200, 400},
	{"another upgrade", "GET /p HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 200, 403},
	{"h2c", "GET /p HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", 200, 200},
	{"TRACE with content", "TRACE /p HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", 400, 400},
	{"escaped dots with parameters", "GET /a/%2e%2e;x/p HTTP/1.1\r\nHost: h\r\n\r\n", 400, 400},
	{"%u002e", "GET /%u002e HTTP/1.1\r\nHost: h\r\n\r\n", 400, 400},
	{"no HTTP", "EHLO you\r\n", 400, 400},
	{"TLS", "\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00", 400, 400},
}

// TestDifferences holds both backends to what is said of them.
func TestDifferences(t *testing.T) {
	t.Parallel()
	eachBackend(t, func(t *testing.T, b backend) {
		n := startNode(t, b.flags...)
		server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
		careless := server.serveCareless(t, 80)
		n.apply(t, allow("rule", "server", fromApp("client"), 80, httpRule{".*", ".*"}))
		for _, tt := range differences {
			want := tt.own
			if b.bound {
				want = tt.envoy
			}
			c := client.mustOpen(t, server.at(4, 80))
			_ = c.SetDeadline(time.Now().Add(patience))
			_, _ = io.WriteString(c, tt.input)
			got := 0
			if r, err := http.ReadResponse(c.read, nil); err == nil {
				got = r.StatusCode
			} else if isTimeout(err) {
				t.Errorf("%s: no answer", tt.name)
			}
			if got != want {
				t.Errorf("%s: answered %d, want %d", tt.name, got, want)
			}
			if want == 400 {
				if _, err := c.read.Discard(1 << 10); err == nil || isTimeout(err) {
					t.Errorf("%s: the connection goes on: %v", tt.name, err)
				}
				n.awaitFlow(t, tt.name, []string{"--type", "l7", "--verdict", "ERROR"}, from(endOf(c.LocalAddr()), func(*flowpb.Flow) bool { return true }))
			}
		}
		for _, text := range careless.all() {
			if b.bound && (strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\r") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") || strings.Contains(text, "X-User")) {
				t.Errorf("Envoy passes on %q", text)
			}
		}
	})
}
