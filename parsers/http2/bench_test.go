package http2

import (
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// fixed is the cheapest policy.
type fixed struct{ policy.Verdict }

func (f *fixed) Request(uint64, policy.Request) policy.Decision {
	return policy.Decision{Verdict: f.Verdict}
}
func (*fixed) Response(uint64, parsers.Answer)            {}
func (*fixed) Malformed(uint64, parsers.Side, error) bool { return false }

// cycle is n requests and their answers, on an open connection, whose fields the
// tables hold by then.
type cycle struct {
	session          *Session
	requests, answer []byte
	first            uint32
	n                int
}

func newCycle(tb testing.TB, verdict policy.Verdict, n int, call bool) *cycle {
	c := newTalk(nil, nil)
	x := &cycle{session: New(&fixed{verdict}, Limits{}), n: n}
	for round := range 2 {
		for i := range n {
			id := uint32(2*(round*n+i) + 1)
			if call {
				c.client.request(id, false, "POST", "/p.Svc/Method", "content-type=application/grpc", "te=trailers", "user-agent=grpc-go/1.85.0", "grpc-timeout=1S")
				_ = c.client.WriteData(id, true, message(20))
				c.server.headers(id, false, okHead, "content-type=application/grpc")
				_ = c.server.WriteData(id, false, message(20))
				c.server.headers(id, true, "grpc-status=0", "grpc-message=")
				continue
			}
			c.client.request(id, true, "GET", "/api/v1/items/42?full=1", "user-agent=curl/8.5.0", "accept=application/json, text/plain, */*", "x-request-id=6f1c1e0a-7f0f-4f7e-9c55-0d3f2a0f3b6d")
			c.server.headers(id, false, okHead, "content-type=application/json", "content-length=2")
			_ = c.server.WriteData(id, true, []byte("{}"))
		}
		if round == 0 {
			for _, a := range c.flush().script {
				if verdict == policy.Deny && a.from == parsers.Server && a.data[3] != 4 {
					continue
				}
				x.feed(tb, a.from, []byte(a.data))
			}
		}
	}
	x.requests, x.answer = []byte(c.client.take()), []byte(c.server.take())
	x.first = uint32(2*n + 1)
	if verdict == policy.Deny {
		x.answer = nil
	}
	return x
}

func (x *cycle) feed(tb testing.TB, from parsers.Side, data []byte) {
	if _, err := x.session.Feed(from, data, false); err != nil {
		tb.Fatal(err)
	}
}

// run feeds the cycle again, on streams that are new.
func (x *cycle) run(tb testing.TB) {
	if x.session.window < 1<<20 {
		x.session.window += 1 << 20 // the client reads
	}
	x.feed(tb, parsers.Client, x.requests)
	if x.answer != nil {
		x.feed(tb, parsers.Server, x.answer)
	}
	for _, b := range [][]byte{x.requests, x.answer} {
		for len(b) > 0 {
			h := readHead(b)
			id := h.StreamID + uint32(2*x.n)
			b[5], b[6], b[7], b[8] = byte(id>>24), byte(id>>16), byte(id>>8), byte(id)
			b = b[frameHead+int(h.Length):]
		}
	}
	if x.session.streams.last > 1<<30 { // a benchmark has more streams than a connection
		x.session.streams.last, x.session.streams.sent = 0, 0
		for _, b := range [][]byte{x.requests, x.answer} {
			for id := -1; len(b) > 0; {
				h := readHead(b)
				if h.StreamID != 0 && (id < 0 || h.StreamID != 0) {
					low := uint32(2*((int(h.StreamID)/2)%x.n) + 1)
					b[5], b[6], b[7], b[8] = byte(low>>24), byte(low>>16), byte(low>>8), byte(low)
				}
				b = b[frameHead+int(h.Length):]
			}
		}
	}
}

// BenchmarkCycle is a request and its answer; "of 16", when as many come at once.
func BenchmarkCycle(b *testing.B) {
	for _, tt := range []struct {
		name    string
		verdict policy.Verdict
		n       int
		call    bool
	}{{"plain", policy.Allow, 1, false}, {"of 16", policy.Allow, 16, false}, {"call", policy.Allow, 16, true}, {"denied", policy.Deny, 16, false}} {
		b.Run(tt.name, func(b *testing.B) {
			x := newCycle(b, tt.verdict, tt.n, tt.call)
			x.run(b)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; i += tt.n {
				x.run(b)
			}
		})
	}
}

// TestNoAllocations keeps the steady state free of them.
func TestNoAllocations(t *testing.T) {
	for _, verdict := range []policy.Verdict{policy.Allow, policy.Deny} {
		for _, call := range []bool{false, true} {
			x := newCycle(t, verdict, 4, call)
			x.run(t)
			limit := 0.0
			if n := testing.AllocsPerRun(100, func() { x.run(t) }); n > limit {
				t.Errorf("%v allocations for verdict %s, call %v", n, verdict, call)
			}
		}
	}
}
