package proxy

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/http"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// lenient is a server that takes whatever can be taken for a request, answers it
// and writes it down.
type lenient struct {
	mu   sync.Mutex
	seen map[string]bool // what came on a connection
}

func (l *lenient) serve(c *net.TCPConn) {
	var got []byte
	answered := 0
	in := make([]byte, 4096)
	for {
		n, err := c.Read(in)
		got = append(got, in[:n]...)
		for requests := parsertest.Lenient(string(got)); answered < len(requests); answered++ {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
		if err != nil {
			break
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen[string(got)] = true
}

// TestHostileRequests sends the corpus through real sockets, whole and byte by
// byte: one forwarded request for each judged one, and none of what is ambiguous.
func TestHostileRequests(t *testing.T) {
	const honest = "GET /honest HTTP/1.1\r\nHost: h\r\n\r\n"
	l := &lenient{seen: map[string]bool{}}
	r := startProxy(t, server(t, l.serve), func(c *Config) {
		c.Compile = nil
		c.NewSession = func(_ policy.Protocol, hooks parsers.Hooks) parsers.Session {
			return http.New(hooks, http.Limits{Begin: patience}) // however slow this machine sends
		}
	})
	r.rules(map[redirect.SetNumber][]policy.HTTPRule{setA: {{}}})
	type attempt struct {
		name, input string
		bytewise    bool
	}
	var attempts []attempt
	for name, input := range parsertest.AmbiguousHTTP() {
		attempts = append(attempts, attempt{name, input, false}, attempt{name, input, true},
			attempt{name + " behind an honest one", honest + input, false})
	}
	for name, input := range parsertest.HostileChunks() {
		attempts = append(attempts, attempt{name, input, false}, attempt{name, input, true},
			attempt{name + " behind an honest one", honest + input, false})
	}
	work := make(chan attempt)
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			for a := range work {
				c := r.dial()
				piece := len(a.input)
				if a.bytewise {
					piece = 1
				}
				for i := 0; i < len(a.input); i += piece {
					if _, err := io.WriteString(c, a.input[i:i+piece]); err != nil {
						break // it was refused already
					}
				}
				answer, _ := io.ReadAll(c)
				_ = c.Close()
				if refused := strings.Count(string(answer), "HTTP/1.1 4"); refused != 1 {
					t.Errorf("%s, bytewise %v: client got %q", a.name, a.bytewise, answer)
				}
			}
		})
	}
	for _, a := range attempts {
		work <- a
	}
	close(work)
	group.Wait()
	eventually(t, "all connections end", func() bool { return r.status().Connections == 0 })
	l.mu.Lock()
	defer l.mu.Unlock()
	for got := range l.seen {
		for i, q := range parsertest.Lenient(got) {
			if i > 0 || got != honest {
				t.Errorf("the server read %v from %q", q, got)
			}
		}
	}
	t.Log(len(attempts), "attempts,", len(l.seen), "different byte streams upstream")
}
