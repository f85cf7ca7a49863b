package http

import (
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

// allowAll is the cheapest policy.
type allowAll struct{}

func (allowAll) Request(uint64, policy.Request) policy.Decision {
	return policy.Decision{Verdict: policy.Redirect}
}
func (allowAll) Response(uint64, parsers.Answer)            {}
func (allowAll) Malformed(uint64, parsers.Side, error) bool { return false }

const (
	benchRequest = "GET /api/v1/items/42?full=1 HTTP/1.1\r\nHost: api.example.com:8080\r\nUser-Agent: curl/8.5.0\r\n" +
		"Accept: application/json, text/plain, */*\r\nAccept-Encoding: gzip, deflate\r\nX-Request-ID: 6f1c1e0a-7f0f-4f7e-9c55-0d3f2a0f3b6d\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef\r\n\r\n"
	benchResponse = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: application/json\r\n" +
		"Content-Length: 2\r\nConnection: keep-alive\r\n\r\n{}"
)

func cycle(tb testing.TB, s *Session, request, response []byte) {
	if _, err := s.Feed(parsers.Client, request, false); err != nil {
		tb.Fatal(err)
	}
	if _, err := s.Feed(parsers.Server, response, false); err != nil {
		tb.Fatal(err)
	}
}

// BenchmarkCycle is a request and its answer on a kept connection.
func BenchmarkCycle(b *testing.B) {
	for name, input := range map[string]string{
		"plain":     benchRequest,
		"rewritten": "GET //api/../v1 HTTP/1.1\r\nHost: h\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			s := New(allowAll{}, Limits{})
			request, response := []byte(input), []byte(benchResponse)
			b.ReportAllocs()
			b.SetBytes(int64(len(request) + len(response)))
			for b.Loop() {
				cycle(b, s, request, response)
			}
		})
	}
	b.Run("denied", func(b *testing.B) {
		s := New(&denyAll{}, Limits{})
		request := []byte(benchRequest)
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Feed(parsers.Client, request, false); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("chunked", func(b *testing.B) {
		s := New(allowAll{}, Limits{})
		request := []byte("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		response := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
		b.ReportAllocs()
		for b.Loop() {
			cycle(b, s, request, response)
		}
	})
}

type denyAll struct{ allowAll }

func (*denyAll) Request(uint64, policy.Request) policy.Decision { return policy.Decision{} }

// TestNoAllocations keeps the steady state free of them.
func TestNoAllocations(t *testing.T) {
	response := []byte(benchResponse)
	for _, input := range []string{benchRequest, "GET /.a/../b HTTP/1.1\r\nHost: h\r\n\r\n", "GET /.a HTTP/1.1\r\nHost: h\r\n\r\n"} {
		s, request := New(allowAll{}, Limits{}), []byte(input)
		if n := testing.AllocsPerRun(100, func() { cycle(t, s, request, response) }); n > 0 {
			t.Errorf("%v allocations for %q", n, input)
		}
	}
}

// TestLongHeadBytewise keeps a head that comes in byte by byte from being
// searched again and again: 64 KiB would be two gigabytes.
func TestLongHeadBytewise(t *testing.T) {
	s := New(allowAll{}, Limits{})
	head := []byte("GET / HTTP/1.1\r\nHost: h\r\nA: ")
	for len(head) < 64<<10-4 {
		head = append(head, 'a')
	}
	head = append(head, "\r\n\r\n"...)
	for n := 1; n < len(head); n++ {
		if steps, err := s.Feed(parsers.Client, head[:n], false); len(steps) > 0 || err != nil {
			t.Fatal(steps, err)
		}
		if s.client.head.pos != n {
			t.Fatalf("searched to %d of %d", s.client.head.pos, n)
		}
	}
	if steps, err := s.Feed(parsers.Client, head, false); err != nil || len(steps) != 1 || steps[0].N != int64(len(head)) {
		t.Fatal(steps, err)
	}
}
