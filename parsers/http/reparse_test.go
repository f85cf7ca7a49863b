package http

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/headgate/headgate/parsers/parsertest"
)

// strict reads requests as net/http does. It stops without a complaint at a path
// that net/url does not read.
func strict(upstream string) (got []parsertest.LenientRequest, err error) {
	in := bufio.NewReader(strings.NewReader(upstream))
	for {
		if _, err := in.Peek(1); err != nil {
			return got, nil
		}
		r, err := http.ReadRequest(in)
		if err != nil {
			if strings.Contains(err.Error(), "invalid URL escape") {
				err = nil
			}
			return got, err
		}
		got = append(got, parsertest.LenientRequest{Method: r.Method, URI: r.RequestURI, Host: r.Host})
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return got, nil // a body that is not whole
		}
	}
}

// checkUpstream wants one forwarded request for each judged one, and the same.
func checkUpstream(t testing.TB, o outcome) {
	t.Helper()
	var want []parsertest.LenientRequest
	for _, r := range o.judge.requests {
		want = append(want, parsertest.LenientRequest{Method: r.method, URI: r.path, Host: r.host})
		if last := &want[len(want)-1]; r.method == "CONNECT" {
			last.URI = r.host
		}
	}
	got := parsertest.Lenient(o.server)
	for i := range got {
		if got[i].Method == "CONNECT" && got[i].Host == "" { // HTTP/1.0: the target says where to
			got[i].Host = got[i].URI
		}
	}
	if n := len(want); n > 0 && o.judge.tunnelled {
		if got = got[:min(n, len(got))]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("before the tunnel a careless server reads %q\njudged %q", got, want)
		}
		return
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Fatalf("a careless server reads %q\njudged %q\nfrom %q", got, want, o.server)
	}
	got, err := strict(o.server)
	if err != nil || len(got) > len(want) || fmt.Sprint(got) != fmt.Sprint(want[:len(got)]) {
		t.Fatalf("net/http reads %q, %v\njudged %q\nfrom %q", got, err, want, o.server)
	}
}
