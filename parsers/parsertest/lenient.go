package parsertest

import (
	"strconv"
	"strings"
)

// LenientRequest is what a lenient server makes of a request.
type LenientRequest struct{ Method, URI, Host string }

// Lenient reads requests as a careless server might: lines end in LF, names are
// trimmed, the last of several fields counts, Transfer-Encoding wins.
func Lenient(upstream string) (got []LenientRequest) {
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
			return append(got, LenientRequest{URI: first})
		}
		r := LenientRequest{Method: parts[0], URI: parts[1]}
		length, chunked := 0, false
		for {
			l, ok := line()
			if !ok {
				return append(got, LenientRequest{URI: "cut"})
			}
			if l == "" {
				break
			}
			name, value, _ := strings.Cut(l, ":")
			value = strings.TrimSpace(value)
			switch strings.ToLower(strings.TrimSpace(name)) {
			case "host":
				r.Host = value
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
