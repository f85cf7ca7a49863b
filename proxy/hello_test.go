package proxy

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"github.com/headgate/headgate/observe"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

const setTLS = redirect.SetNumber(uint32(policy.ProtocolTLS)<<24 | 1)

// named is rules for server names, in their order.
func named(names ...string) *policy.L7Set {
	set := &policy.L7Set{Protocol: policy.ProtocolTLS}
	for i, n := range names {
		set.TLS = append(set.TLS, policy.TLSRule{ServerName: n, Ref: policy.Ref{Policy: "default/p", Path: fmt.Sprintf("serverNames[%d]", i)}})
	}
	return set
}

// names starts a proxy before a server that speaks TLS and says all that it is told.
// What it is asked for comes from the channel.
func names(t *testing.T, config *tls.Config, set *policy.L7Set) (*running, chan string) {
	t.Helper()
	asked := make(chan string, 100)
	to := server(t, func(c *net.TCPConn) {
		s := tls.Server(c, config)
		if s.Handshake() != nil {
			asked <- "broken"
			return
		}
		asked <- s.ConnectionState().ServerName
		_, _ = io.Copy(s, s)
		_ = s.CloseWrite()
	})
	r := startProxy(t, to, func(c *Config) { c.Compile = nil })
	r.connections.set(Connection{SourceIdentity: 1000, DestinationIdentity: 2000, Egress: setTLS}, false)
	r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: set}, nil)
	return r, asked
}

// says sends something and wants it back.
func says(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("said %q, heard %q: %v", text, b, err)
	}
}

// slowly writes what it is given byte by byte.
type slowly struct{ net.Conn }

func (s slowly) Write(b []byte) (int, error) { return bytewise{s.Conn}.Write(b) }

func TestServerNamesAreJudged(t *testing.T) {
	cert := certify(t, "www.example.com")
	config := &tls.Config{Certificates: []tls.Certificate{cert.pair}}
	r, asked := names(t, config, named("www.example.com", "*.api.example.com", "**.deep.example.com"))
	for name, tt := range map[string]struct {
		allowed bool
		version uint16
	}{
		"www.example.com": {true, tls.VersionTLS13}, "WWW.Example.com": {true, tls.VersionTLS12}, "a.api.example.com": {true, tls.VersionTLS13},
		"a.b.deep.example.com": {true, tls.VersionTLS13}, "api.example.com": {false, tls.VersionTLS13}, "a.b.api.example.com": {false, tls.VersionTLS12},
		"deep.example.com": {false, tls.VersionTLS13}, "": {false, tls.VersionTLS12}, "evil.example": {false, tls.VersionTLS13},
	} {
		ways := map[string]net.Conn{"at once": r.dial()}
		if tt.version == tls.VersionTLS12 { // such hellos are short
			ways["slowly"] = slowly{r.dial()}
		}
		for way, under := range ways {
			c := tls.Client(under, &tls.Config{ServerName: name, MaxVersion: tt.version, InsecureSkipVerify: true})
			switch err := c.Handshake(); {
			case tt.allowed && err != nil:
				t.Fatalf("%q, %s: %v", name, way, err)
			case !tt.allowed && (err == nil || !strings.Contains(err.Error(), "access denied")):
				t.Errorf("%q, %s: %v, want an alert that access is denied", name, way, err)
			case tt.allowed:
				if got := <-asked; !strings.EqualFold(got, name) {
					t.Errorf("the server was asked for %q, not %q", got, name)
				}
				says(t, c, "hello")
				_ = c.CloseWrite()
				if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
					t.Errorf("the end of %q, %s: %q %v", name, way, rest, err)
				}
			}
			_ = under.Close()
		}
	}
	// What is no TLS is told nothing, and reaches nobody.
	c := r.dial()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: www.example.com\r\n\r\n")
	if b, err := io.ReadAll(c); len(b) > 0 {
		t.Errorf("answered %q %v", b, err)
	}
	if len(asked) > 0 {
		t.Errorf("the server was asked for %q", <-asked)
	}
	eventually(t, "connections to end", func() bool { return r.status().Connections == 0 })
}

func next(t *testing.T, records <-chan observe.Record) (found observe.Record) {
	t.Helper()
	await(t, records, "a flow", func(r observe.Record) bool { found = r; return true })
	return found
}

// TestServerNameFlows: flows have the name and the rule, or the one that came nearest.
func TestServerNameFlows(t *testing.T) {
	cert := certify(t, "www.example.com")
	r, _ := names(t, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, named("a.example", "www.example.com"))
	records := r.records()
	for name, want := range map[string]observe.Record{
		"www.example.com": {Word: observe.Forwarded, Rule: policy.Ref{Policy: "default/p", Path: "serverNames[1]"}, TLS: &observe.TLS{ServerName: "www.example.com"}},
		"evil.example":    {Word: observe.Dropped, Reason: observe.ReasonPolicyDenied, Nearest: policy.Ref{Policy: "default/p", Path: "serverNames[0]"}, TLS: &observe.TLS{ServerName: "evil.example"}},
		"":                {Word: observe.Dropped, Reason: observe.ReasonPolicyDenied, Nearest: policy.Ref{Policy: "default/p", Path: "serverNames[0]"}, TLS: &observe.TLS{}},
	} {
		c := tls.Client(r.dial(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		_ = c.Handshake()
		got := next(t, records)
		if got.Kind != observe.KindL7 || got.Word != want.Word || got.Reason != want.Reason || got.Rule != want.Rule || got.Nearest != want.Nearest ||
			got.TLS == nil || *got.TLS != *want.TLS || got.Direction != policy.Egress || got.SourceIdentity != 1000 {
			t.Errorf("%q: %+v %+v", name, got, got.TLS)
		}
		_ = c.Close()
	}
	c := r.dial()
	_, _ = io.WriteString(c, "no TLS")
	if got := next(t, records); got.Word != observe.Errored || !strings.Contains(got.Detail, "does not begin with TLS") {
		t.Errorf("%+v", got)
	}
}

// TestServerNamesAgain: a session that is resumed names its server too, as does a second
// hello, which a server asks for whose keys the client did not guess.
func TestServerNamesAgain(t *testing.T) {
	cert := certify(t, "www.example.com")
	for name, tt := range map[string]struct {
		server, client *tls.Config
	}{
		"TLS 1.3":      {&tls.Config{}, &tls.Config{}},
		"TLS 1.2":      {&tls.Config{MaxVersion: tls.VersionTLS12}, &tls.Config{}},
		"second hello": {&tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}, &tls.Config{CurvePreferences: []tls.CurveID{tls.X25519, tls.CurveP521}}},
	} {
		t.Run(name, func(t *testing.T) {
			server, client := tt.server.Clone(), tt.client.Clone()
			server.Certificates = []tls.Certificate{cert.pair}
			client.RootCAs, client.ServerName, client.ClientSessionCache = cert.pool, "www.example.com", tls.NewLRUClientSessionCache(10)
			r, asked := names(t, server, named("www.example.com"))
			for again := range 3 {
				c := tls.Client(r.dial(), client)
				must(t, c.Handshake())
				<-asked
				says(t, c, "hello")
				if state := c.ConnectionState(); state.DidResume != (again > 0) || name == "second hello" && !state.HelloRetryRequest {
					t.Errorf("connection %d: resumed %v, a second hello %v", again, state.DidResume, state.HelloRetryRequest)
				}
				_ = c.Close()
			}
			// The name of a rule that is no more.
			r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: named("other.example")}, nil)
			if err := tls.Client(r.dial(), client).Handshake(); err == nil || !strings.Contains(err.Error(), "access denied") {
				t.Errorf("resumed though it is denied: %v", err)
			}
		})
	}
}

// TestServerNamesRevoked ends connections whose name is no longer allowed, and no others.
func TestServerNamesRevoked(t *testing.T) {
	cert := certify(t, "www.example.com")
	r, _ := names(t, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, named("*.example.com"))
	dial := func(name string) *tls.Conn {
		c := tls.Client(r.dial(), &tls.Config{ServerName: name, InsecureSkipVerify: true})
		must(t, c.Handshake())
		says(t, c, "hello")
		return c
	}
	kept, gone := dial("kept.example.com"), dial("gone.example.com")
	waits := r.dial() // said nothing so far
	r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: named("kept.example.com")}, nil)
	if _, err := gone.Read(make([]byte, 1)); err == nil {
		t.Error("it goes on")
	}
	says(t, kept, "still here")
	if err := tls.Client(waits, &tls.Config{ServerName: "gone.example.com", InsecureSkipVerify: true}).Handshake(); err == nil {
		t.Error("who connected before is not denied")
	}
	// Where no rule reads it any more, it goes on; where the connection is denied, it ends.
	r.connections.set(Connection{SourceIdentity: 1000, DestinationIdentity: 2000}, false)
	says(t, kept, "and here")
	r.connections.set(Connection{Denied: true}, false)
	if _, err := kept.Read(make([]byte, 1)); err == nil {
		t.Error("it goes on")
	}
}

// TestServerNamesObserved: where policies only audit or observe all goes on, TLS or not.
func TestServerNamesObserved(t *testing.T) {
	cert := certify(t, "www.example.com")
	r, _ := names(t, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, named("a.example"))
	records := r.records()
	observed := named("")
	observed.Observed, observed.Audit = true, named("a.example")
	r.sets(map[redirect.SetNumber]*policy.L7Set{setTLS: observed}, nil)
	c := tls.Client(r.dial(), &tls.Config{RootCAs: cert.pool, ServerName: "www.example.com"})
	must(t, c.Handshake())
	says(t, c, "hello")
	if got := next(t, records); got.Word != observe.Audited || got.TLS == nil || got.TLS.ServerName != "www.example.com" {
		t.Errorf("%+v", got)
	}
	_, _ = io.WriteString(r.dial(), "no TLS at all")
	if got := next(t, records); got.Word != observe.Audited || !strings.Contains(got.Detail, "passed on unread") {
		t.Errorf("%+v", got)
	}
}

// TestServerNamesCarryMuch: what follows is carried as it is, both ways at once.
func TestServerNamesCarryMuch(t *testing.T) {
	cert := certify(t, "www.example.com")
	r, _ := names(t, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, named("www.example.com"))
	c := tls.Client(r.dial(), &tls.Config{RootCAs: cert.pool, ServerName: "www.example.com"})
	much := make([]byte, 8<<20)
	for i := range much {
		much[i] = byte(rand.Uint32())
	}
	go func() {
		_, _ = c.Write(much)
		_ = c.CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, much) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(much), err)
	}
}

// TestServerNamesFailClosed: without a set nothing is passed on.
func TestServerNamesFailClosed(t *testing.T) {
	cert := certify(t, "www.example.com")
	r, asked := names(t, &tls.Config{Certificates: []tls.Certificate{cert.pair}}, named())
	try := func(why string) {
		t.Helper()
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			return
		}
		defer c.Close()
		if err := tls.Client(c, &tls.Config{RootCAs: cert.pool, ServerName: "www.example.com"}).Handshake(); err == nil {
			t.Error(why)
		}
	}
	try("no name is allowed")
	bad := named("a b")
	bad.ID = policy.SetID{2}
	_, err := r.client.Enforce(t.Context(), snapshotToProto(redirect.Snapshot{
		Revision: 8, Sets: map[policy.SetID]redirect.NumberedSet{bad.ID: {Number: setTLS, Set: bad}},
	}))
	must(t, err)
	try("a set that cannot be compiled")
	r.sets(nil, nil)
	try("no set")
	if len(asked) > 0 {
		t.Error("the server was asked")
	}
}
