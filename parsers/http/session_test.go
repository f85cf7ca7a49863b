package http

import (
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers"
)

const (
	denied      = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\n\r\nAccess denied\r\n"
	deniedClose = "HTTP/1.1 403 Forbidden\r\nContent-Type: text/plain\r\nContent-Length: 15\r\nConnection: close\r\n\r\nAccess denied\r\n"
	get         = "GET /a HTTP/1.1\r\nHost: h\r\n\r\n"
	getDenied   = "GET /deny HTTP/1.1\r\nHost: h\r\n\r\n"
	ok          = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	open        = "closed=false err=<nil> fin=[false false]"
	closed      = "closed=true err=<nil> fin=[false false]"
	halfClosed  = "closed=true err=<nil> fin=[false true]"
)

// small keeps tests of the limits short.
var small = Limits{RequestLine: 1 << 10, Head: 4 << 10}

// TestConversations plays conversations, however their bytes come in.
func TestConversations(t *testing.T) {
	post := "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
	chunked := "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=b;c=\"d\\\"\"\r\nhello\r\n00\r\nX: y\r\n\r\n"
	expect := "POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
	last := "GET /a HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n"
	converse(t, judge{}, map[string]conversation{
		"one request": {
			[]arrival{c(get), v(ok)},
			get, ok, "1 GET /a h redirect|1 200", open,
		},
		"kept alive": {
			[]arrival{c(get), v(ok), c(post), v(ok), c(chunked), v(ok)},
			get + post + chunked, ok + ok + ok,
			"1 GET /a h redirect|1 200|2 POST /p h redirect|2 200|3 POST /p h redirect|3 200", open,
		},
		"pipelined": {
			[]arrival{c(get + chunked + post), v(ok + ok + ok)},
			get + chunked + post, ok + ok + ok,
			"1 GET /a h redirect|2 POST /p h redirect|3 POST /p h redirect|1 200|2 200|3 200", open,
		},
		"denied": {
			[]arrival{c(getDenied), c(get), v(ok)},
			get, denied + ok, "1 GET /deny h deny|1 403 local|2 GET /a h redirect|2 200", open,
		},
		"denied between allowed": {
			[]arrival{c(get + getDenied + get + getDenied + getDenied), v(ok), v(ok)},
			get + get, ok + denied + ok + denied + denied,
			"1 GET /a h redirect|2 GET /deny h deny|3 GET /a h redirect|4 GET /deny h deny|5 GET /deny h deny|" +
				"1 200|2 403 local|3 200|4 403 local|5 403 local", open,
		},
		"denied with bodies": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"),
				c("POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nGET\r\n1\r\n \r\n0\r\nX: y\r\n\r\n" + get), v(ok)},
			get, denied + denied + ok,
			"1 POST /deny h deny|1 403 local|2 POST /deny h deny|2 403 local|3 GET /a h redirect|3 200", open,
		},
		"denied with a long body": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 1048577\r\n\r\nhello")},
			"", deniedClose, "1 POST /deny h deny|1 403 local", closed,
		},
		"denied with an endless body": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
				c("100000\r\n" + strings.Repeat("x", 1<<12))},
			"", denied, "1 POST /deny h deny|1 403 local", closed,
		},
		"denied with a bad chunk": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello" + get)},
			"", refusal(ErrChunk), "1 client http: malformed chunk|1 400 local", closed,
		},
		"denied with a bad chunk later": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"), c(later), c(get)},
			"", denied, "1 POST /deny h deny|1 403 local|1 client http: malformed chunk", closed,
		},
		"denied before it sends": {
			[]arrival{c("POST /deny HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\n"), c(get)},
			"", deniedClose, "1 POST /deny h deny|1 403 local", closed,
		},
		"denied HEAD": {
			[]arrival{c("HEAD /deny HTTP/1.1\r\nHost: h\r\n\r\n")},
			"", strings.TrimSuffix(denied, "Access denied\r\n"), "1 HEAD /deny h deny|1 403 local", open,
		},
		"denied and last": {
			[]arrival{c(get + "GET /deny HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n" + get), v(ok)},
			get, ok + deniedClose, "1 GET /a h redirect|2 GET /deny h deny|1 200|2 403 local", closed,
		},
		"denied 1.0": {
			[]arrival{c("GET /deny HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")},
			"", deniedClose, "1 GET /deny  deny|1 403 local", closed,
		},
		"continue": {
			[]arrival{c(expect), v("HTTP/1.1 100 Continue\r\n\r\n"), c("hello"), v(ok), c(get), v(ok)},
			expect + "hello" + get, "HTTP/1.1 100 Continue\r\n\r\n" + ok + ok,
			"1 POST /p h redirect|1 200|2 GET /a h redirect|2 200", open,
		},
		"final instead of continue": {
			[]arrival{c(expect), v("HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"), c("hello"), c(get)},
			expect, "HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n", "1 POST /p h redirect|1 417", closed,
		},
		"does not wait for continue": {
			[]arrival{c(expect + "hello" + get), v(ok), v(ok)},
			expect + "hello" + get, ok + ok, "1 POST /p h redirect|2 GET /a h redirect|1 200|2 200", open,
		},
		"chunks without continue": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123"), c("4567"), v(ok), c("89" + get)},
			"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n1234567", ok, "1 POST /p h redirect|1 200", closed,
		},
		"chunks after continue": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"), v("HTTP/1.1 100 Continue\r\n\r\n"), c("9\r\n123"), v(ok), c("456789\r\n0\r\n\r\n" + get)},
			"POST /p HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n123456789\r\n0\r\n\r\n" + get, "HTTP/1.1 100 Continue\r\n\r\n" + ok, "1 POST /p h redirect|1 200|2 GET /a h redirect", open,
		},
		"early hints": {
			[]arrival{c(get), v("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 \r\n\r\n"), v(ok)},
			get, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 \r\n\r\n" + ok, "1 GET /a h redirect|1 200", open,
		},
		"early answer": {
			[]arrival{c(post[:len(post)-3]), v(ok), c(post[len(post)-3:] + get), v(ok)},
			post + get, ok + ok, "1 POST /p h redirect|1 200|2 GET /a h redirect|2 200", open,
		},
		"early answer, chunked": {
			[]arrival{c(chunked[:len(chunked)-3]), c(later), v(ok), c(chunked[len(chunked)-3:] + get), v(ok)},
			chunked + get, ok + ok, "1 POST /p h redirect|1 200|2 GET /a h redirect|2 200", open,
		},
		"no bodies": {
			[]arrival{c("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n" + get + get), v("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"),
				v("HTTP/1.1 204\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n")},
			"HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n" + get + get,
			"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nHTTP/1.1 204\r\n\r\nHTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
			"1 HEAD /a h redirect|2 GET /a h redirect|3 GET /a h redirect|1 200|2 204|3 304", open,
		},
		"chunked answer": {
			[]arrival{c(get + get), v("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0; x = y\r\nT: z\r\n\r\n" + ok)},
			get + get, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0; x = y\r\nT: z\r\n\r\n" + ok,
			"1 GET /a h redirect|2 GET /a h redirect|1 200|2 200", open,
		},
		"answer until close": {
			[]arrival{c(get), v("HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200"), v(" more"), v(fin)},
			get, "HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 more", "1 GET /a h redirect|1 200", closed,
		},
		"client's last": {
			[]arrival{c(last + get), v(ok)},
			last, ok, "1 GET /a h redirect|1 200", closed,
		},
		"server's last": {
			[]arrival{c(get + get), v("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")},
			get + get, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", "1 GET /a h redirect|2 GET /a h redirect|1 200", closed,
		},
		"1.0": {
			[]arrival{c("GET /a HTTP/1.0\r\n\r\n"), v(ok)},
			"GET /a HTTP/1.0\r\n\r\n", ok, "1 GET /a  redirect|1 200", closed,
		},
		"1.0 kept alive": {
			[]arrival{c("GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"),
				v("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n"), c("GET /b HTTP/1.0\r\n\r\n"), v(ok)},
			"GET /a HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
			"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n" + ok,
			"1 GET /a  redirect|1 200|2 GET /b  redirect|2 200", closed,
		},
		"half-close": {
			[]arrival{c(get), c(fin), v(ok)},
			get, ok, "1 GET /a h redirect|1 200", halfClosed,
		},
		"half-close with a denied one": {
			[]arrival{c(get + getDenied), c(fin), v(ok)},
			get, ok + denied, "1 GET /a h redirect|2 GET /deny h deny|1 200|2 403 local", halfClosed,
		},
		"client leaves":                {[]arrival{c(fin)}, "", "", "", closed},
		"client leaves after answers":  {[]arrival{c(get), v(ok), c(fin)}, get, ok, "1 GET /a h redirect|1 200", closed},
		"server leaves":                {[]arrival{c(get), v(ok), v(fin)}, get, ok, "1 GET /a h redirect|1 200", closed},
		"server leaves without answer": {[]arrival{c(get), v(fin)}, get, "", "1 GET /a h redirect", closed},
		"empty line first":             {[]arrival{c("\r\n" + get + "\r\n" + get)}, get + get, "", "1 GET /a h redirect|2 GET /a h redirect", open},
		"normal form": {
			[]arrival{c("GET //a/../%62?x=//.. HTTP/1.1\r\nhOST:h:80\r\nX:\t y \r\n\r\n" + get)},
			"GET /b?x=//.. HTTP/1.1\r\nhOST:h:80\r\nX:\t y \r\n\r\n" + get, "", "1 GET /b?x=//.. h:80 redirect|2 GET /a h redirect", open,
		},
		"already normal": {
			[]arrival{c("GET /.well-known/%2e%20x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n")},
			"GET /.well-known/.%20x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "", "1 GET /.well-known/.%20x [::1]:80 redirect", open,
		},
		"absolute-form": {
			[]arrival{c("GET HTTP://h:80?q HTTP/1.1\r\nHost: h:80\r\n\r\nOPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\nGET http://h/a HTTP/1.1\r\nHost: h\r\n\r\n")},
			"GET /?q HTTP/1.1\r\nHost: h:80\r\n\r\nOPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n" + get,
			"", "1 GET /?q h:80 redirect|2 OPTIONS * h redirect|3 GET /a h redirect", open,
		},
		"asterisk-form": {
			[]arrival{c("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n")},
			"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "", "1 OPTIONS * h redirect", open,
		},
		"content of a GET": { // read by the server or not, it is the last
			[]arrival{c("GET /a HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, TE\r\nContent-Length: 28\r\n\r\n" + get + get), v(ok)},
			"GET /a HTTP/1.1\r\nHost: h\r\nConnection: TE\r\nContent-Length: 28\r\nConnection: close\r\n\r\n" + get, ok, "1 GET /a h redirect|1 200", closed,
		},
		"denied content of a GET": {
			[]arrival{c("GET /deny HTTP/1.1\r\nHost: h\r\nContent-Length: 28\r\n\r\n" + get + get), v(ok)},
			get, denied + ok, "1 GET /deny h deny|1 403 local|2 GET /a h redirect|2 200", open,
		},
		"refused behind others": {
			[]arrival{c(get + getDenied + "GET /b\r\n\r\n" + get), v(ok)},
			get, ok + denied + refusal(ErrVersion),
			"1 GET /a h redirect|2 GET /deny h deny|3 client http: version is neither HTTP/1.0 nor HTTP/1.1|1 200|2 403 local|3 400 local", closed,
		},
		"input ends in a head": {
			[]arrival{c(get + "GET /"), c(fin), v(ok)},
			get, ok + refusal(ErrTruncated), "1 GET /a h redirect|2 client http: input ends inside a message|1 200|2 400 local", halfClosed,
		},
		"bad chunk": {
			[]arrival{c(get + "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"), c(later), v(ok), c("1\r\na\r\n-1\r\n")},
			get + "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n", ok + refusal(ErrChunk),
			"1 GET /a h redirect|2 POST /p h redirect|1 200|2 client http: malformed chunk|2 400 local",
			"closed=true err=http: malformed chunk fin=[false false]",
		},
		"bad chunk, answer due": {
			[]arrival{c(get + "POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\n")},
			get, "", "1 GET /a h redirect|2 client http: line does not end in CRLF", open,
		},
		"chunks after a pause": {
			[]arrival{c(chunked[:len(chunked)-20]), c(later), c(chunked[len(chunked)-20:]), v(ok)},
			chunked, ok, "1 POST /p h redirect|1 200", open,
		},
		"no pause within the first chunk line": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5"), c(later), c(" \r\nhello")},
			"", refusal(ErrChunk), "1 client http: malformed chunk|1 400 local", closed,
		},
		"bad chunk after another and a pause": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello"), c(later), c("\n0\r\n\r\n")},
			"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello", refusal(ErrChunk),
			"1 POST /p h redirect|1 client http: malformed chunk|1 400 local", "closed=true err=http: malformed chunk fin=[false false]",
		},
		"body cut": {
			[]arrival{c(chunked[:len(chunked)-2]), c(fin)},
			"", refusal(ErrTruncated), "1 client http: input ends inside a message|1 400 local", closed,
		},
		"body cut after a pause": {
			[]arrival{c(chunked[:len(chunked)-2]), c(later), c(fin)},
			chunked[:len(chunked)-2], refusal(ErrTruncated), "1 POST /p h redirect|1 client http: input ends inside a message|1 400 local",
			"closed=true err=http: input ends inside a message fin=[false false]",
		},
	})
}

// conversation is what arrives, and what comes of it.
type conversation struct {
	script                     []arrival
	server, client, log, state string
}

func converse(t *testing.T, j judge, conversations map[string]conversation) {
	t.Helper()
	for name, tt := range conversations {
		t.Run(name, func(t *testing.T) {
			o := playAllFor(t, j, Limits{}, tt.script...)
			if o.server != tt.server {
				t.Errorf("server got %q\n        want %q", o.server, tt.server)
			}
			if o.client != tt.client {
				t.Errorf("client got %q\n        want %q", o.client, tt.client)
			}
			if log := strings.ReplaceAll(o.log, "\n", "|"); log != tt.log {
				t.Errorf("log %s\nwant %s", log, tt.log)
			}
			if o.state != tt.state {
				t.Errorf("state %s\n want %s", o.state, tt.state)
			}
		})
	}
}

// refusal is what a client gets for r.
func refusal(r *Refusal) string {
	s := New(&judge{}, Limits{})
	s.answer(pending{refusal: r, close: true})
	return string(s.out)
}

// TestBadResponses wants every response whose end is in doubt, or that nobody
// asked for, to end the connection.
func TestBadResponses(t *testing.T) {
	for name, tt := range map[string]struct {
		response string
		client   string // what may reach the client
		err      *Refusal
	}{
		"both framings":      {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "", ErrBothFramings},
		"two lengths":        {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok", "", ErrLengthTwice},
		"list of lengths":    {"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", "", ErrLength},
		"negative length":    {"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok", "", ErrLength},
		"another coding":     {"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "", ErrCoding},
		"coding in 1.0":      {"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "", ErrCodingVersion},
		"bare LF":            {"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok", "", ErrLineEnd},
		"bare CR":            {"HTTP/1.1 200 OK\r\nA: b\rContent-Length: 2\r\n\r\nok", "", ErrFieldValue},
		"folded":             {"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", "", ErrFolded},
		"space before colon": {"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok", "", ErrFieldName},
		"version":            {"HTTP/2.0 200 OK\r\n\r\n", "", ErrStatusLine},
		"status":             {"HTTP/1.1 20 OK\r\n\r\n", "", ErrStatusLine},
		"low status":         {"HTTP/1.1 099 OK\r\n\r\n", "", ErrStatusLine},
		"long status":        {"HTTP/1.1 2000 OK\r\n\r\n", "", ErrStatusLine},
		"not HTTP":           {"SSH-2.0", "", ErrStatusLine},
		"101":                {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "", ErrSwitched},
		"bad chunk":          {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ErrChunk},
		"unsolicited":        {ok + ok, ok, ErrUnsolicited},
		"too long a body":    {"HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 204 No\r\nContent-Length: 1\r\n\r\n", ErrUnsolicited},
		"too long a head":    {"HTTP/1.1 200 " + strings.Repeat("x", 4<<10), "", ErrHeadLong},
		"cut":                {"HTTP/1.1 200 OK\r\n" + fin, "", ErrTruncated},
		"cut in chunks":      {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + fin, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", ErrTruncated},
	} {
		t.Run(name, func(t *testing.T) {
			script := []arrival{c(get)}
			if data, cut := strings.CutSuffix(tt.response, fin); cut {
				script = append(script, v(data), v(fin))
			} else {
				script = append(script, v(data))
			}
			o := playAll(t, small, script...)
			if o.client != tt.client || o.relay.Err != error(tt.err) {
				t.Errorf("client got %q, %v; want %q, %v", o.client, o.relay.Err, tt.client, tt.err)
			}
			if !strings.Contains(o.log, "1 server "+tt.err.Error()) {
				t.Errorf("not reported: %s", o.log)
			}
		})
	}
}

func TestPhase(t *testing.T) {
	s := New(&judge{}, Limits{})
	feed := func(from parsers.Side, data string, want parsers.Phase) {
		t.Helper()
		if _, err := s.Feed(from, []byte(data), false); err != nil {
			t.Fatal(err)
		}
		if got := s.Phase(); got != want {
			t.Errorf("after %q: phase %d, want %d", data, got, want)
		}
	}
	feed(parsers.Client, "", parsers.Idle)
	feed(parsers.Client, "GET / HT", parsers.Head)
	feed(parsers.Client, get, parsers.Response)
	feed(parsers.Server, ok, parsers.Idle)
	feed(parsers.Client, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n", parsers.Body)
	feed(parsers.Client, "", parsers.Response)
	feed(parsers.Server, ok, parsers.Idle)
	feed(parsers.Client, "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n", parsers.Body)
	feed(parsers.Client, "\r\n0\r\n\r\n", parsers.Response)
	feed(parsers.Server, ok, parsers.Idle)
	feed(parsers.Client, upgrade, parsers.Response)
	feed(parsers.Server, ok, parsers.Idle)
	feed(parsers.Client, get, parsers.Response)
	feed(parsers.Server, "HTTP/1.1 200 OK\r\n\r\n", parsers.Ended)
	s = New(&judge{}, Limits{})
	feed(parsers.Client, upgrade, parsers.Response)
	feed(parsers.Server, switched, parsers.Response)
	feed(parsers.Client, "anything", parsers.Response)
}

func TestReset(t *testing.T) {
	j := &judge{}
	s := New(j, Limits{})
	if _, err := s.Feed(parsers.Client, []byte(get+get+"GET"), false); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Feed(parsers.Server, []byte("x"), false); err == nil {
		t.Fatal("no error")
	}
	s.Reset(j)
	if s.Phase() != parsers.Idle {
		t.Error("not idle")
	}
	steps, err := s.Feed(parsers.Client, []byte(get), false)
	if err != nil || len(steps) != 1 || steps[0].N != int64(len(get)) {
		t.Errorf("%+v, %v", steps, err)
	}
}

func TestDefaults(t *testing.T) {
	want := Limits{16384, 65536, 100, 1024, 8192, 1024, 1048576, 500 * time.Millisecond}
	if got := (Limits{}).withDefaults(); got != want {
		t.Errorf("%+v", got)
	}
	if got := small.withDefaults(); got.Head != small.Head || got.Headers != want.Headers {
		t.Errorf("%+v", got)
	}
}

func TestTooManyPipelined(t *testing.T) {
	o := playAll(t, Limits{Pipelined: 2}, c(get+get+get), v(ok+ok))
	if o.server != get+get || o.client != ok+ok+refusal(ErrPipelined) || !o.relay.Closed {
		t.Errorf("%+v", o)
	}
}
