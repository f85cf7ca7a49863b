package proxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// endedSet is HTTP rules before which TLS ends.
func endedSet(by policy.TLSSecrets, names ...string) *policy.L7Set {
	set := httpSet(allow("GET", "/public.*"))
	set.Ends = &by
	set.TLS = named(names...).TLS
	return set
}

var endsBoth = policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef, TrustedCA: caRef}

// ended is a proxy before a server that speaks some protocols, with TLS or without.
type ended struct {
	*running
	own, servers certified
	version      byte
	asked        chan string // of the server: "HTTP/2.0 name /path"
}

func startEnded(t *testing.T, set *policy.L7Set, encrypted bool, protocols ...string) *ended {
	t.Helper()
	e := &ended{own: certify(t, "web.example"), servers: certify(t, "web.example"), asked: make(chan string, 100)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	var p http.Protocols
	p.SetHTTP1(slices.Contains(protocols, alpnHTTP1))
	p.SetHTTP2(slices.Contains(protocols, alpnHTTP2))
	p.SetUnencryptedHTTP2(slices.Contains(protocols, alpnHTTP2))
	s := &http.Server{
		Protocols: &p, TLSConfig: &tls.Config{Certificates: []tls.Certificate{e.servers.pair}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			name := "-"
			if q.TLS != nil {
				name = q.TLS.ServerName
			}
			e.asked <- q.Proto + " " + name + " " + q.URL.Path
			fmt.Fprint(w, "hello")
		}),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go func() {
		if encrypted {
			_ = s.ServeTLS(l, "", "")
		} else {
			_ = s.Serve(l)
		}
	}()
	t.Cleanup(func() { s.Close() })
	e.running = startProxy(t, l.Addr().String(), func(c *Config) { c.Compile = nil })
	e.put(set, nil)
	return e
}

// put puts a set in force with secrets, of which some may be others.
func (e *ended) put(set *policy.L7Set, instead map[policy.SecretRef]string) {
	e.t.Helper()
	s := redirect.Snapshot{
		Revision: 9, Secrets: map[policy.SecretRef]string{certificateRef: e.own.certificate, keyRef: e.own.key, caRef: e.servers.certificate},
	}
	for ref, value := range instead {
		s.Secrets[ref] = value
	}
	e.version++
	set.ID = policy.SetID{e.version}
	s.Sets = map[policy.SetID]redirect.NumberedSet{set.ID: {Number: setA, Set: set}}
	_, err := e.running.client.Enforce(e.t.Context(), snapshotToProto(s))
	must(e.t, err)
}

// client of HTTPS by that name, with those protocols.
func (e *ended) client(name string, protocols ...string) *http.Client {
	var p http.Protocols
	p.SetHTTP1(slices.Contains(protocols, alpnHTTP1))
	p.SetHTTP2(slices.Contains(protocols, alpnHTTP2))
	transport := &http.Transport{
		Protocols: &p, TLSClientConfig: &tls.Config{RootCAs: e.own.pool, ServerName: name},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("tcp", e.addr) },
	}
	e.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

func fetch(c *http.Client, path string) (status int, protocol, body string, err error) {
	r, err := c.Get("https://web.example" + path)
	if err != nil {
		return 0, "", "", err
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	return r.StatusCode, r.Proto, string(b), err
}

// await waits for a record.
func await(t *testing.T, records <-chan observe.Record, what string, is func(observe.Record) bool) {
	t.Helper()
	for timeout := time.After(patience); ; {
		select {
		case r := <-records:
			if is(r) {
				return
			}
		case <-timeout:
			t.Fatalf("never: %s", what)
		}
	}
}

// TestTLSBeforeHTTP: TLS ends and begins, rules hold, and what the client speaks is what
// the server speaks.
func TestTLSBeforeHTTP(t *testing.T) {
	both := []string{alpnHTTP1, alpnHTTP2}
	plain := policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef}
	for name, tt := range map[string]struct {
		by             policy.TLSSecrets
		client, server []string
		want           string
	}{
		"both speak both":          {endsBoth, both, both, "HTTP/2.0 web.example"},
		"the server HTTP/1.1":      {endsBoth, both, both[:1], "HTTP/1.1 web.example"},
		"the client HTTP/1.1":      {endsBoth, both[:1], both, "HTTP/1.1 web.example"},
		"both HTTP/2 alone":        {endsBoth, both[1:], both[1:], "HTTP/2.0 web.example"},
		"the client HTTP/2 alone":  {endsBoth, both[1:], both[:1], ""},
		"the server HTTP/2 alone":  {endsBoth, both[:1], both[1:], ""},
		"plain text":               {plain, both, both, "HTTP/1.1 -"},
		"plain text, HTTP/2 alone": {plain, both[1:], both, "HTTP/2.0 -"},
	} {
		t.Run(name, func(t *testing.T) {
			e := startEnded(t, endedSet(tt.by), tt.by.TrustedCA != policy.SecretRef{}, tt.server...)
			records := e.records()
			c := e.client("web.example", tt.client...)
			status, protocol, body, err := fetch(c, "/public/a")
			if tt.want == "" {
				if err == nil && status != http.StatusBadGateway {
					t.Errorf("answered: %d %s %q", status, protocol, body)
				}
				if len(e.asked) > 0 {
					t.Errorf("asked: %s", <-e.asked)
				}
				return
			}
			if err != nil || status != 200 || body != "hello" || !strings.HasPrefix(tt.want, protocol) {
				t.Fatalf("%d %s %q %v", status, protocol, body, err)
			}
			if got := <-e.asked; got != tt.want+" /public/a" {
				t.Errorf("the server was asked %q", got)
			}
			if got := next(t, records); got.Word != observe.Forwarded || got.HTTP == nil || got.HTTP.URL != "https://web.example/public/a" {
				t.Errorf("%+v %+v", got, got.HTTP)
			}
			if status, _, _, err = fetch(c, "/secret"); status != 403 || err != nil || len(e.asked) > 0 {
				t.Errorf("%d %v, asked %d times", status, err, len(e.asked))
			}
		})
	}
}

// TestTLSBeforeHTTPFails: who cannot reach the server as rules say is told so, in HTTP if
// that can be.
func TestTLSBeforeHTTPFails(t *testing.T) {
	for _, protocol := range []string{alpnHTTP1, alpnHTTP2} {
		e := startEnded(t, endedSet(endsBoth), true, alpnHTTP1, alpnHTTP2)
		e.put(endedSet(endsBoth), map[policy.SecretRef]string{caRef: certify(t, "web.example").certificate})
		records := e.records()
		status, _, _, err := fetch(e.client("web.example", protocol), "/public")
		unserved(t, protocol, status, err)
		await(t, records, "a flow that says why", func(r observe.Record) bool {
			return r.Word == observe.Errored && strings.Contains(r.Detail, "begin TLS to the server web.example")
		})
		// Of another name than the server has.
		e.put(endedSet(endsBoth), nil)
		wrong := e.client("other.example", protocol)
		wrong.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
		status, _, _, err = fetch(wrong, "/public")
		unserved(t, protocol, status, err)
		await(t, records, "a flow that says why", func(r observe.Record) bool {
			return r.Word == observe.Errored && strings.Contains(r.Detail, "begin TLS to the server other.example")
		})
		e.put(endedSet(endsBoth), map[policy.SecretRef]string{keyRef: ""})
		if _, _, _, err := fetch(e.client("web.example", protocol), "/public"); err == nil {
			t.Error("TLS ends without a key")
		}
		await(t, records, "a flow that says why", func(r observe.Record) bool {
			return r.Word == observe.Errored && strings.Contains(r.Detail, "end TLS: there is no tls.key")
		})
		if len(e.asked) > 0 {
			t.Errorf("the server was asked: %s", <-e.asked)
		}
	}
}

// TestTLSBeforeHTTPNames: the name is judged before TLS ends, and again when it changes.
func TestTLSBeforeHTTPNames(t *testing.T) {
	e := startEnded(t, endedSet(endsBoth, "web.example"), true, alpnHTTP1, alpnHTTP2)
	records := e.records()
	c := e.client("web.example", alpnHTTP1, alpnHTTP2)
	if status, _, _, err := fetch(c, "/public"); status != 200 {
		t.Fatal(status, err)
	}
	if got := next(t, records); got.Word != observe.Forwarded || got.TLS == nil || got.TLS.ServerName != "web.example" || got.Rule.Path != "serverNames[0]" {
		t.Errorf("%+v", got)
	}
	denied := e.client("evil.example", alpnHTTP1)
	denied.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	if _, _, _, err := fetch(denied, "/public"); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("%v, want an alert that access is denied", err)
	}
	await(t, records, "a flow of the denied name", func(r observe.Record) bool { return r.TLS != nil && r.Word == observe.Dropped })
	// The connection that there is is of a name that is denied now.
	e.put(endedSet(endsBoth, "other.example"), nil)
	for len(e.asked) > 0 {
		<-e.asked
	}
	if status, _, _, err := fetch(c, "/public"); err == nil && status != 403 || len(e.asked) > 0 {
		t.Errorf("%d %v, asked %d times", status, err, len(e.asked))
	}
}

// TestTLSBeforeServers begins TLS for clients that speak plain text, of either version.
func TestTLSBeforeServers(t *testing.T) {
	for i := range 8 {
		version, speaks, observed := alpnHTTP1, alpnHTTP1, i&4 != 0
		if i&1 != 0 {
			version = alpnHTTP2
		}
		if i&2 != 0 {
			speaks = alpnHTTP2
		}
		t.Run(fmt.Sprintf("%s to %s, observed %v", version, speaks, observed), func(t *testing.T) {
			set := endedSet(policy.TLSSecrets{TrustedCA: caRef})
			set.Observed = observed
			e := startEnded(t, set, true, speaks)
			records := e.records()
			var p http.Protocols
			p.SetHTTP1(version == alpnHTTP1)
			p.SetUnencryptedHTTP2(version == alpnHTTP2)
			transport := &http.Transport{Protocols: &p}
			t.Cleanup(transport.CloseIdleConnections)
			r, err := (&http.Client{Transport: transport, Timeout: patience}).Get("http://" + e.addr + "/public")
			status := 0
			if err == nil {
				status = r.StatusCode
				r.Body.Close()
			}
			if version == speaks {
				if status != 200 {
					t.Errorf("%d %v", status, err)
				}
				return
			}
			if speaks == alpnHTTP2 { // Go's agrees on nothing then, and hangs up
				if err == nil && status != http.StatusBadGateway || err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
					t.Errorf("%d %v", status, err)
				}
			} else {
				unserved(t, version, status, err)
				await(t, records, "a flow that says why", func(r observe.Record) bool {
					return r.Word == observe.Errored && strings.Contains(r.Detail, "begin TLS to the server")
				})
			}
			if len(e.asked) > 0 {
				t.Errorf("the server was asked: %s", <-e.asked)
			}
		})
	}
}

// unserved is how a request ends for which there is no server: in HTTP/2 the client may
// have been sent away before it was heard.
func unserved(t *testing.T, version string, status int, err error) {
	t.Helper()
	switch timeout := (net.Error)(nil); {
	case err == nil && status == http.StatusBadGateway:
	case err == nil || version == alpnHTTP1:
		t.Errorf("%s: %d %v, want 502", version, status, err)
	case errors.As(err, &timeout) && timeout.Timeout():
		t.Errorf("%s: not told: %v", version, err)
	}
}

// TestTLSOfWhatIsNotRead ends TLS before what no rule reads: the server may speak first.
func TestTLSOfWhatIsNotRead(t *testing.T) {
	own, servers := certify(t, "mail.example"), certify(t, "mail.example")
	r, asked := names(t, &tls.Config{Certificates: []tls.Certificate{servers.pair}, NextProtos: []string{"imap", "smtp"}}, named())
	set := named("")
	set.Ends = &endsBoth
	r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: set}, func(s *redirect.Snapshot) {
		s.Secrets = map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: servers.certificate}
	})
	c := tls.Client(r.dial(), &tls.Config{RootCAs: own.pool, ServerName: "mail.example", NextProtos: []string{"smtp"}})
	must(t, c.Handshake())
	if got := <-asked; got != "mail.example" { // before the client has said anything
		t.Errorf("asked for %q", got)
	}
	if got := c.ConnectionState().NegotiatedProtocol; got != "smtp" {
		t.Errorf("%q was agreed on", got)
	}
	says(t, c, strings.Repeat("much ", 100_000))
	_ = c.CloseWrite()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Errorf("%q %v", rest, err)
	}
}

// TestTLSWithoutServer: that a server cannot be reached before TLS ends is not taken for a
// fault of the client's.
func TestTLSWithoutServer(t *testing.T) {
	own := certify(t, "mail.example")
	r := startProxy(t, "", func(c *Config) {
		c.Compile = nil
		c.Dial = func(netip.AddrPort, netip.AddrPort) (int, error) { return -1, unix.ECONNREFUSED }
	})
	r.connections.set(Connection{SourceIdentity: 1000, DestinationIdentity: 2000, Egress: setTLS}, false)
	set := named("")
	set.Ends = &endsBoth
	r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: set}, func(s *redirect.Snapshot) {
		s.Secrets = map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: own.certificate}
	})
	records := r.records()
	c := tls.Client(r.dial(), &tls.Config{RootCAs: own.pool, ServerName: "mail.example"})
	if err := c.Handshake(); err == nil {
		t.Error("TLS ends before nobody")
	}
	await(t, records, "a flow that says why", func(e observe.Record) bool {
		return e.Word == observe.Errored && strings.HasPrefix(e.Detail, "connect to server")
	})
	if n := r.status().Malformed; n != 0 {
		t.Errorf("%d malformed", n)
	}
}

// TestTLSBeforeHTTPObserved: where nothing is enforced, TLS ends behind a hello that would
// be refused, and what is in it is read.
func TestTLSBeforeHTTPObserved(t *testing.T) {
	plain := policy.TLSSecrets{Certificate: certificateRef, PrivateKey: keyRef}
	set := endedSet(plain)
	e := startEnded(t, set, false, alpnHTTP1)
	c := e.client("127.1", alpnHTTP1) // a name that could be taken for an address
	c.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	if status, _, _, err := fetch(c, "/public"); err == nil {
		t.Errorf("enforced: %d", status)
	}
	set = endedSet(plain)
	set.Observed = true
	e.put(set, nil)
	records := e.records()
	if status, _, body, err := fetch(c, "/public"); status != 200 || body != "hello" {
		t.Errorf("observed: %d %q %v", status, body, err)
	}
	await(t, records, "a flow of the hello", func(r observe.Record) bool {
		return r.Word == observe.Forwarded && strings.Contains(r.Detail, "TLS ends here all the same")
	})
	await(t, records, "a flow of the request", func(r observe.Record) bool { return r.HTTP != nil && r.Word == observe.Forwarded })
}

// kinds notes which kinds of records come.
type kinds struct {
	net.Conn
	seen bytes.Buffer
}

func (k *kinds) Read(b []byte) (int, error) {
	n, err := k.Conn.Read(b)
	k.seen.Write(b[:n])
	return n, err
}

// last is the kind of the last record.
func (k *kinds) last() (kind byte) {
	for b := k.seen.Bytes(); len(b) >= 5; b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):] {
		kind = b[0]
	}
	return kind
}

// TestTLSCutOff: where the server ends without saying so in TLS, so does the client's
// side, that a client can tell that something may be missing.
func TestTLSCutOff(t *testing.T) {
	own, servers := certify(t, "web.example"), certify(t, "web.example")
	const alert, data = 21, 23
	for name, want := range map[string]byte{"said so": alert, "cut off": data} {
		to := server(t, func(c *net.TCPConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{servers.pair}})
			_, _ = s.Read(make([]byte, 1000))
			_, _ = io.WriteString(s, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello")
			if want == alert {
				_ = s.CloseWrite()
			}
			_ = c.CloseWrite()
			_, _ = io.Copy(io.Discard, c)
		})
		r := startProxy(t, to, func(c *Config) { c.Compile = nil })
		r.sets(map[redirect.SetNumber]*policy.L7Set{setA: endedSet(endsBoth)}, func(s *redirect.Snapshot) {
			s.Secrets = map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: servers.certificate}
		})
		k := &kinds{Conn: r.dial()}
		c := tls.Client(k, &tls.Config{RootCAs: own.pool, ServerName: "web.example", MaxVersion: tls.VersionTLS12})
		_, err := io.WriteString(c, "GET /public HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n")
		must(t, err)
		b, err := io.ReadAll(c)
		if !strings.HasSuffix(string(b), "hello") || err != nil || k.last() != want {
			t.Errorf("%s: %q %v, the last record is of kind %d", name, b, err, k.last())
		}
	}
}
