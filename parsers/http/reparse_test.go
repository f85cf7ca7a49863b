package http

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// reparsed is what another reader makes of a request.
type reparsed struct{ method, uri, host string }

// careless reads requests as a lenient server might: lines end in LF, names are
// trimmed, the last of several fields counts, Transfer-Encoding wins.
func careless(upstream string) (got []reparsed) {
	in := upstream
	line := func() (string, bool) {
		l, rest, ok := strings.Cut(in, "\n")
		in = rest
		return strings.TrimSuffix(l, "\r"), ok
	}
	for {
		first, ok := line()
		if !ok {
			return got
		}
		parts := strings.Fields(first)
		if len(parts) != 3 {
			return append(got, reparsed{uri: first})
		}
		r := reparsed{method: parts[0], uri: parts[1]}
		length, chunked := 0, false
		for {
			l, ok := line()
			if !ok {
				return append(got, reparsed{uri: "cut"})
			}
			if l == "" {
				break
			}
			name, value, _ := strings.Cut(l, ":")
			value = strings.TrimSpace(value)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "host":
				r.host = value
			case "content-length":
				length, _ = strconv.Atoi(value)
			case "transfer-encoding":
				chunked = strings.Contains(strings.ToLower(value), "chunked")
			}
		}
		got = append(got, r)
		for chunked {
			l, ok := line()
			if !ok {
				return got
			}
			size, _, _ := strings.Cut(l, ";")
			n, _ := strconv.ParseInt(strings.TrimSpace(size), 16, 64)
			if n == 0 {
				for l, ok = line(); ok && l != ""; l, ok = line() {
				}
				break
			}
			in = in[min(n, int64(len(in))):]
			line()
		}
		in = in[min(length, len(in)):]
	}
}

// strict reads requests as net/http does. It stops without a complaint at a path
// that net/url does not read.
func strict(upstream string) (got []reparsed, err error) {
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
		got = append(got, reparsed{r.Method, r.RequestURI, r.Host})
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return got, nil // a body that is not whole
		}
	}
}

// checkUpstream wants one forwarded request for each judged one, and the same.
func checkUpstream(t testing.TB, o outcome) {
	t.Helper()
	var want []reparsed
	for _, r := range o.judge.requests {
		want = append(want, reparsed{r.method, r.path, r.host})
		if last := &want[len(want)-1]; r.method == "CONNECT" {
			last.uri = r.host
		}
	}
	got := careless(o.server)
	if n := len(want); n > 0 && want[n-1].method == "CONNECT" && len(got) > n && o.judge.tunnelled {
		if got = got[:n]; fmt.Sprint(got) != fmt.Sprint(want) {
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
