package http

import (
	"strconv"
	"testing"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
)

const (
	upgrade   = "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	switched  = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	connect   = "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n"
	connected = "HTTP/1.1 200 Connection established\r\n\r\n"
	tunnelFIN = "closed=true err=<nil> fin=[true true]"
)

// TestTunnels plays connections that become tunnels, and those that do not.
func TestTunnels(t *testing.T) {
	tcp := "POST /attach HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n\r\nhello"
	converse(t, judge{}, map[string]conversation{
		"WebSocket": {
			[]arrival{c(upgrade), v(switched + "\x81\x02hi"), c("\x81\x82GET /deny"), v("\x88\x00"), v(fin), c("\x88\x00"), c(fin)},
			upgrade + "\x81\x82GET /deny\x88\x00", switched + "\x81\x02hi\x88\x00", "1 GET /ws h redirect|1 101", tunnelFIN,
		},
		"WebSocket behind others": {
			[]arrival{c(get + getDenied + upgrade), v(ok + switched), c("x")},
			get + upgrade + "x", ok + denied + switched, "1 GET /a h redirect|2 GET /deny h deny|3 GET /ws h redirect|1 200|2 403 local|3 101", open,
		},
		"WebSocket declined": {
			[]arrival{c(upgrade + get), v("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n"), v(ok)},
			upgrade + get, "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n" + ok, "1 GET /ws h redirect|1 426|2 GET /a h redirect|2 200", open,
		},
		"nothing is read before the answer": {
			[]arrival{c(upgrade + getDenied + get)},
			upgrade, "", "1 GET /ws h redirect", open,
		},
		"a 200 is no upgrade": {
			[]arrival{c(upgrade + getDenied), v(ok)},
			upgrade, ok + denied, "1 GET /ws h redirect|1 200|2 GET /deny h deny|2 403 local", open,
		},
		"WebSocket denied": {
			[]arrival{c("GET /deny HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n" + get)},
			"", deniedClose, "1 GET /deny h deny|1 403 local", closed,
		},
		"client gone before the answer": {
			[]arrival{c(upgrade + "early"), c(fin), v(switched + "hi"), v(fin)},
			upgrade + "early", switched + "hi", "1 GET /ws h redirect|1 101", tunnelFIN,
		},
		"another protocol, with content": {
			[]arrival{c(tcp[:len(tcp)-2]), c(tcp[len(tcp)-2:] + "early"), v("HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nhi")},
			tcp + "early", "HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nhi", "1 POST /attach h redirect|1 101", open,
		},
		"another protocol, with content that its server might take for a request": {
			[]arrival{c("GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: " + strconv.Itoa(len(getDenied)) + "\r\n\r\n" + getDenied), v(ok)},
			"GET /a HTTP/1.1\r\nHost: h\r\nContent-Length: " + strconv.Itoa(len(getDenied)) + "\r\nConnection: close\r\n\r\n" + getDenied, ok, "1 GET /a h redirect|1 200", closed,
		},
		"CONNECT": {
			[]arrival{c(connect + "early"), v(connected + "hi"), c("more"), c(fin), v(fin)},
			connect + "earlymore", connected + "hi", "1 CONNECT  db:5432 redirect|1 200", tunnelFIN,
		},
		"CONNECT 1.0": {
			[]arrival{c("CONNECT [::1]:443 HTTP/1.0\r\n\r\n"), v("HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhi")},
			"CONNECT [::1]:443 HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\nhi", "1 CONNECT  [::1]:443 redirect|1 200", open,
		},
		"CONNECT, Host without port": {
			[]arrival{c("CONNECT db:5432 HTTP/1.1\r\nHost: db\r\nA: b\r\n\r\n")},
			"CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\nA: b\r\n\r\n", "", "1 CONNECT  db:5432 redirect", open,
		},
		"CONNECT refused": {
			[]arrival{c(connect + get), v("HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nok"), v(ok)},
			connect + get, "HTTP/1.1 407 No\r\nContent-Length: 2\r\n\r\nok" + ok, "1 CONNECT  db:5432 redirect|1 407|2 GET /a h redirect|2 200", open,
		},
		"h2c is left out": {
			[]arrival{c("GET /a HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, te, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nX:\ty\r\n\r\n" + get), v(ok + ok)},
			"GET /a HTTP/1.1\r\nHost: h\r\nConnection: te\r\nX: y\r\n\r\n" + get, ok + ok, "1 GET /a h redirect|2 GET /a h redirect|1 200|2 200", open,
		},
		"h2c alone, to another path": {
			[]arrival{c("GET //deny/.. HTTP/1.1\r\nHost: h\r\nUpgrade: H2C\r\nConnection: upgrade\r\n\r\n")},
			"GET / HTTP/1.1\r\nHost: h\r\n\r\n", "", "1 GET / h redirect", open,
		},
		"h2c behind WebSocket": {
			[]arrival{c("GET /a HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\nUpgrade: x, h2c\r\n\r\n"), v(switched)},
			"GET /a HTTP/1.1\r\nHost: h\r\n\r\n", "", "1 GET /a h redirect|1 server http: 101 that takes no offer of the client",
			"closed=true err=http: 101 that takes no offer of the client fin=[false false]",
		},
		"TLS is left out": {
			[]arrival{c("OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, close\r\nUpgrade: TLS/1.2\r\n\r\n")},
			"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "", "1 OPTIONS * h redirect", open,
		},
		"not asked for in Connection": {
			[]arrival{c("GET /a HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n\r\n")},
			get, "", "1 GET /a h redirect", open,
		},
		"asked for in 1.0": {
			[]arrival{c("GET /a HTTP/1.0\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")},
			"GET /a HTTP/1.0\r\n\r\n", "", "1 GET /a  redirect", open,
		},
	})
}

// TestBadSwitches wants a 101 that does not take the client's offer to end the
// connection: somebody may have made the server say so.
func TestBadSwitches(t *testing.T) {
	for name, answer := range map[string]string{
		"no key":       "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n\r\n",
		"wrong key":    "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOO=\r\n\r\n",
		"no protocol":  "HTTP/1.1 101 x\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"another":      "HTTP/1.1 101 x\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"two":          "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nUpgrade: h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"list":         "HTTP/1.1 101 x\r\nUpgrade: websocket, h2c\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
		"nothing":      "HTTP/1.1 101 x\r\n\r\n",
		"for a folder": "HTTP/1.1 101 x\r\nUpgrade: websocket\r\n folded\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			o := playAll(t, Limits{}, c(upgrade), v(answer), c(getDenied))
			if o.server != upgrade || o.client != "" || !o.relay.Closed {
				t.Errorf("server got %q, client %q, %s", o.server, o.client, o.state)
			}
		})
	}
	o := playAll(t, Limits{}, c(connect), v(switched), c(get))
	if o.server != connect || o.client != "" || !o.relay.Closed {
		t.Errorf("101 to CONNECT: server got %q, client %q, %s", o.server, o.client, o.state)
	}
}

// TestPass: where nothing is enforced, what cannot be read goes on, and all behind
// it.
func TestPass(t *testing.T) {
	line := "http: version is neither HTTP/1.0 nor HTTP/1.1"
	converse(t, judge{pass: true}, map[string]conversation{
		"another protocol": {
			[]arrival{c("HELO x y/1\r\n"), v("250 hi\r\n"), c("QUIT\r\n"), c(fin), v(fin)},
			"HELO x y/1\r\nQUIT\r\n", "250 hi\r\n", "1 client " + line, tunnelFIN,
		},
		"the server speaks first": {
			[]arrival{v("220 hi\r\n"), c("HELO\r\n")},
			"HELO\r\n", "220 hi\r\n", "0 server http: response without a request", open,
		},
		"behind a request": {
			[]arrival{c(get + "GET /b\r\n\r\n" + getDenied), v(ok)},
			get + "GET /b\r\n\r\n" + getDenied, ok, "1 GET /a h redirect|2 client " + line, open,
		},
		"a bad chunk": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n-1\r\n"), v("HTTP/1.1 400 x\n\n")},
			"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n-1\r\n", "HTTP/1.1 400 x\n\n",
			"1 client http: malformed chunk", open,
		},
		"a bad chunk, late": {
			[]arrival{c("POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na"), c(later), c("\r\n-1\r\n"), v("HTTP/1.1 400 x\n\n")},
			"POST /p HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n-1\r\n", "HTTP/1.1 400 x\n\n",
			"1 POST /p h redirect|1 client http: malformed chunk", open,
		},
		"a bad answer": {
			[]arrival{c(get), v("HTTP/1.1 200 OK\n\nhi"), v(fin), c(fin)},
			get, "HTTP/1.1 200 OK\n\nhi", "1 GET /a h redirect|1 server http: line does not end in CRLF", tunnelFIN,
		},
		"a head that ends": {
			[]arrival{c("GET /"), c(fin), v("x"), v(fin)},
			"GET /", "x", "1 client http: input ends inside a message", tunnelFIN,
		},
		"an answer that ends": {
			[]arrival{c(get), v("HTTP/1.1 2"), v(fin)},
			get, "HTTP/1.1 2", "1 GET /a h redirect|1 server http: input ends inside a message", "closed=false err=<nil> fin=[true false]",
		},
	})
}

// TestEdits: the head goes on with the fields that the decision has, and its
// framing is the client's.
func TestEdits(t *testing.T) {
	edits := []policy.HTTPHeader{{Name: []byte("Host"), Value: []byte("h")}, {Name: []byte("X-Team"), Value: []byte("a b")}, {Name: []byte("Content-Length"), Value: []byte("5")}}
	head := "POST /p?q HTTP/1.1\r\nHost: h\r\nX-Team: a b\r\nContent-Length: 5\r\n\r\n"
	converse(t, judge{edits: edits}, map[string]conversation{
		"fields": {
			[]arrival{c("POST /p?q HTTP/1.1\r\nhost:h\r\nContent-Length: 5\r\nX-Evil: a\r\n\r\nhe"), c("llo" + getDenied), v(ok)},
			head + "hello", ok + denied, "1 POST /p?q h redirect|2 GET /deny h deny|1 200|2 403 local", open,
		},
		"fields and path": {
			[]arrival{c("POST http://h//p?q HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")},
			head + "hello", "", "1 POST /p?q h redirect", open,
		},
	})
}

// TestDenyResponse: a denied client gets what the policy says.
func TestDenyResponse(t *testing.T) {
	const answer = "HTTP/1.1 451 Unavailable For Legal Reasons\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\n"
	o := playAllFor(t, judge{response: &policy.DenyResponse{Status: 451, Body: "Not here"}}, Limits{},
		c(getDenied+"HEAD /deny HTTP/1.1\r\nHost: h\r\n\r\n"))
	if want := answer + "Not here\r\n" + answer; o.client != want || o.server != "" {
		t.Errorf("client got %q\n      want %q", o.client, want)
	}
	if got := o.judge.responses; len(got) != 2 || got[0].Answer != (parsers.Answer{Status: 451, Local: true}) {
		t.Errorf("%+v", got)
	}
}
