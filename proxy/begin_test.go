package proxy

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
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

// TestNoServerForHTTP2 wants requests that waited for a server which is not there judged
// and answered all the same.
func TestNoServerForHTTP2(t *testing.T) {
	r := startProxy(t, "", func(c *Config) {
		c.Compile = nil
		c.Dial = func(netip.AddrPort, netip.AddrPort) (int, error) { return -1, unix.ECONNREFUSED }
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {{Path: "/public"}}})
	records := r.records()
	var out, block bytes.Buffer
	c := r.dial()
	frames, encoder := http2.NewFramer(&out, c), hpack.NewEncoder(&block)
	frames.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	out.WriteString(http2.ClientPreface)
	must(t, frames.WriteSettings())
	for i, path := range []string{"/public", "/secret"} {
		block.Reset()
		for _, f := range [][2]string{{":method", "GET"}, {":scheme", "http"}, {":path", path}, {":authority", "h"}} {
			must(t, encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}))
		}
		must(t, frames.WriteHeaders(http2.HeadersFrameParam{StreamID: uint32(2*i + 1), BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}))
	}
	_, err := out.WriteTo(c)
	must(t, err)
	got := map[uint32]string{}
	for {
		f, err := frames.ReadFrame()
		if err != nil {
			break
		}
		if h, ok := f.(*http2.MetaHeadersFrame); ok {
			got[h.StreamID] = h.PseudoValue("status")
		}
	}
	if got[1] != "502" || got[3] != "403" {
		t.Errorf("answered %v", got)
	}
	await(t, records, "a flow that says why", func(e observe.Record) bool {
		return e.Reply && e.HTTP.Status == 502 && e.Word == observe.Errored && strings.Contains(e.Detail, "refused")
	})
}
