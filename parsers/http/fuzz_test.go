package http

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers/parsertest"
)

// sameInPieces plays the script whole and in the pieces that seed gives. Of a body that
// is wrong only far behind its head, or that was announced with Expect, more may go on
// if it came in pieces, but nothing else.
func sameInPieces(t *testing.T, seed uint64, script ...arrival) outcome {
	whole := play(parsertest.Whole, Limits{}, script...)
	pieces := play(parsertest.Random(seed), Limits{}, script...)
	var late *Refusal
	if errors.As(pieces.relay.Err, &late) && whole.relay.Err == nil && strings.Contains(whole.log, late.Error()) {
		checkUpstream(t, pieces)
		if !strings.HasPrefix(pieces.server, whole.server) {
			t.Fatalf("whole %q\nin pieces %q", whole.server, pieces.server)
		}
		return whole
	}
	if whole.server != pieces.server || whole.client != pieces.client || whole.log != pieces.log || whole.state != pieces.state {
		t.Fatalf("whole\n%q\n%q\n%s\n%s\nin pieces\n%q\n%q\n%s\n%s", whole.server, whole.client, whole.log, whole.state,
			pieces.server, pieces.client, pieces.log, pieces.state)
	}
	if err := whole.relay.Err; err != nil {
		if _, ok := err.(*Refusal); !ok && err != parsertest.ErrCut {
			t.Fatal(err)
		}
	}
	return whole
}

// FuzzRequests: what goes upstream is what was judged, for any other reader, and
// does not depend on how it came in.
func FuzzRequests(f *testing.F) {
	for _, s := range []string{
		get + getDenied + get,
		"\r\nPOST //a/../%62 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\nA: b\r\n\r\n" + get,
		"POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n" + get,
		"POST http://h/?q HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\nhello" + get,
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET / HTTP/1.1\r\nHost: h\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
		upgrade + get, connect + get, "GET / HTTP/1.0\r\nUpgrade: h2c, x\r\nConnection: upgrade, te\r\nHTTP2-Settings: a\r\n\r\n" + get,
		"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get,
	} {
		f.Add([]byte(s), uint64(len(s)))
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		checkUpstream(t, sameInPieces(t, seed, c(string(input)), c(later), v(ok), v(fin)))
		checkUpstream(t, sameInPieces(t, seed, c(string(input)), c(fin), v(ok), v(ok)))
		checkUpstream(t, sameInPieces(t, seed, c(string(input)), v(switched), c(get), v(ok)))
	})
}

// FuzzResponses: whoever reads what the client got finds the answers that were
// reported, each to its request.
func FuzzResponses(f *testing.F) {
	for _, s := range []string{
		ok + "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + ok,
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\nA: b\r\n\r\nHTTP/1.1 204\r\n\r\n" + ok,
		"HTTP/1.0 304 x\r\nConnection: keep-alive\r\n\r\nHTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\nuntil close",
		"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok" + ok,
	} {
		f.Add([]byte(s), uint64(len(s)))
	}
	requests := get + "HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n" + getDenied + get
	methods := []string{"GET", "HEAD", "GET", "GET"}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64) {
		o := sameInPieces(t, seed, c(requests), v(string(input)), v(fin))
		in := bufio.NewReader(strings.NewReader(o.client))
		for _, a := range o.judge.responses {
			status := 100
			for status < 200 {
				r, err := http.ReadResponse(in, &http.Request{Method: methods[a.id-1]})
				if err != nil {
					t.Fatalf("%v\nclient got %q\n%s", err, o.client, o.log)
				}
				if status = r.StatusCode; status >= 200 {
					if _, err := io.Copy(io.Discard, r.Body); err != nil && o.relay.Err == nil {
						t.Fatalf("%v\nclient got %q\n%s", err, o.client, o.log)
					}
				}
			}
			if status != a.Status || a.Local != (a.id == 3) {
				t.Fatalf("answer %+v is read as %d\nclient got %q", a, status, o.client)
			}
		}
	})
}
