package proxy

import (
	"bytes"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestServerDoesNotBegin wants requests that waited for the SETTINGS of a server which goes,
// says something else or nothing, judged, answered and recorded.
func TestServerDoesNotBegin(t *testing.T) {
	begun := func(c *net.TCPConn) { _, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface))) }
	for name, tt := range map[string]struct {
		does func(c *net.TCPConn)
		why  string
	}{
		"ends":   {func(c *net.TCPConn) { begun(c); _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }, "SETTINGS"},
		"resets": {func(c *net.TCPConn) { begun(c); _ = c.SetLinger(0) }, "SETTINGS"},
		"HTTP/1": {func(c *net.TCPConn) {
			begun(c)
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
			_, _ = io.Copy(io.Discard, c)
		}, "does not speak HTTP/2"},
		"silent": {func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }, "did not send its SETTINGS"},
	} {
		for _, held := range []bool{true, false} {
			t.Run(name, func(t *testing.T) {
				r := startProxy(t, server(t, tt.does), func(c *Config) {
					c.Compile = nil
					c.Limits.Head = time.Second
				})
				r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {{Path: "/public"}}})
				records := r.records()
				a, out := r.early()
				if held {
					a.send("GET", "/public")
					a.send("GET", "/secret")
				}
				_, err := out.WriteTo(a.c)
				must(t, err)
				got, away := untilGoAway(a)
				if !away || held && (got[1] != "502" || got[3] != "403") {
					t.Errorf("answered %v, sent away %v", got, away)
				}
				if _, err := io.Copy(io.Discard, a.c); err != nil {
					t.Errorf("the end: %v", err)
				}
				_ = a.c.Close()
				await(t, records, "a flow that says why", func(e observe.Record) bool {
					return e.Word == observe.Errored && (!held || e.Reply && e.HTTP.Status == 502) && strings.Contains(e.Detail, tt.why)
				})
				eventually(t, "the connection is forgotten", func() bool { return r.status().Connections == 0 })
			})
		}
	}
}

// early begins a connection whose first bytes are written at once, by the caller.
func (r *running) early() (*asker2, *bytes.Buffer) {
	r.t.Helper()
	out := bytes.NewBufferString(http2.ClientPreface)
	a := &asker2{t: r.t, c: r.dial(), next: 1}
	a.Framer = http2.NewFramer(out, a.c)
	a.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	a.encoder = hpack.NewEncoder(&a.block)
	must(r.t, a.WriteSettings())
	return a, out
}

// untilGoAway reads until the client is sent away: the answers by then.
func untilGoAway(a *asker2) (answers map[uint32]string, away bool) {
	answers = map[uint32]string{}
	for {
		f, err := a.ReadFrame()
		if err != nil {
			return answers, false
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			answers[f.StreamID] = f.PseudoValue("status")
		case *http2.GoAwayFrame:
			return answers, true
		}
	}
}

// TestSilentServer wants no connection to hold what it has sent to a server that says
// nothing: not for longer than a head may take, and not without a limit.
func TestSilentServer(t *testing.T) {
	r := startProxy(t, server(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }), func(c *Config) {
		c.Compile = nil
		c.Limits.Head = time.Second
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {{Path: "/public"}}})
	for name, n := range map[string]int{"DATA": 1, "much": 40} {
		a, out := r.early()
		for range n {
			must(t, a.WriteData(1, false, make([]byte, 16384)))
		}
		go func() { _, _ = out.WriteTo(a.c) }() // which may not take all
		if _, away := untilGoAway(a); !away {
			t.Errorf("%s: the client was not sent away", name)
		}
		_ = a.c.Close()
	}
	eventually(t, "the connections are forgotten", func() bool { return r.status().Connections == 0 })
}
