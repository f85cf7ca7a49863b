package tls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/parsers/parsertest"
	"github.com/headgate/headgate/policy"
)

// fed is a connection on which everything has come already.
type fed struct {
	net.Conn
	in *bytes.Reader
}

func (f *fed) Read(b []byte) (int, error)     { return f.in.Read(b) }
func (*fed) Write(b []byte) (int, error)      { return len(b), nil }
func (*fed) Close() error                     { return nil }
func (*fed) SetDeadline(time.Time) error      { return nil }
func (*fed) SetWriteDeadline(time.Time) error { return nil }
func (*fed) LocalAddr() net.Addr              { return nil }
func (*fed) RemoteAddr() net.Addr             { return nil }

// oracle is the name that crypto/tls reads.
func oracle(data []byte) (name string, read bool) {
	server := tls.Server(&fed{in: bytes.NewReader(data)}, &tls.Config{
		MinVersion: tls.VersionTLS10,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			name, read = h.ServerName, true
			return nil, io.EOF
		},
	})
	_ = server.HandshakeContext(context.Background())
	return name, read
}

// anyName allows every name.
type anyName struct{ judge }

func (a *anyName) Request(id uint64, r policy.Request) policy.Decision {
	a.judge.Request(id, r)
	return policy.Decision{Verdict: policy.Allow}
}

// FuzzHello: a name that is allowed is the one that crypto/tls reads; how the bytes come
// makes no difference; nothing reaches the server but what was judged.
func FuzzHello(f *testing.F) {
	for _, b := range [][]byte{
		hello("www.example.com"), real(f, &tls.Config{ServerName: "go.example"}), real(f, &tls.Config{ServerName: "go.example", MaxVersion: tls.VersionTLS12}),
		records(said{names: names("a.example")}.message(), 30), records(said{before: many(), names: names("a.example", "b.example")}.message(), 3000),
		records(said{before: extension(extensionName, names("a.example")), names: names("b.example")}.message(), maxRecord),
		append(hello("a.example"), hello("b.example")...), append(hello("a.example"), 23, 3, 3, 0, 2, 'h', 'i'),
		{0x80, 46, 1, 0, 2, 0, 21, 0, 0, 0, 16}, []byte("GET / HTTP/1.1\r\n\r\n"),
	} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var first *judge
		var out []byte
		for _, split := range []parsertest.Splits{parsertest.Whole, parsertest.Bytewise, parsertest.Random(uint64(len(data)))} {
			j := &anyName{}
			r := parsertest.New(New(j))
			r.Splits = split
			r.Write(parsers.Client, data)
			if errors.Is(r.Err, parsertest.ErrCut) || r.Err != nil {
				t.Fatalf("the session fails: %v", r.Err)
			}
			if len(j.asked) > 1 || len(j.malformed) > 1 || len(j.asked) == 0 && len(r.Out[parsers.Server]) > 0 {
				t.Fatalf("asked for %q, %v, the server got %x", j.asked, j.malformed, r.Out[parsers.Server])
			}
			if !bytes.HasPrefix(data, r.Out[parsers.Server]) {
				t.Fatalf("the server got %x of %x", r.Out[parsers.Server], data)
			}
			if first == nil {
				first, out = &j.judge, r.Out[parsers.Server]
			} else if strings.Join(first.asked, " ") != strings.Join(j.asked, " ") || len(first.malformed) != len(j.malformed) || !bytes.Equal(out, r.Out[parsers.Server]) {
				t.Fatalf("it matters how the bytes come: %q %v %x, or %q %v %x", first.asked, first.malformed, out, j.asked, j.malformed, r.Out[parsers.Server])
			}
		}
		if len(first.asked) == 0 {
			return
		}
		if name, read := oracle(data); read && !strings.EqualFold(name, first.asked[0]) {
			t.Fatalf("asked for %q, and crypto/tls reads %q", first.asked[0], name)
		}
	})
}

// FuzzAnswers: whatever a server and a client say behind the hello, either it goes on as
// it is, or the connection ends.
func FuzzAnswers(f *testing.F) {
	f.Add(greeting(retryRandom, 50), hello("a.example"))
	f.Add(greeting(retryRandom, 50), append([]byte{20, 3, 3, 0, 1, 1}, hello("b.example")...))
	f.Add([]byte{21, 3, 3, 0, 2, 2, 40}, []byte{23, 3, 3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, server, client []byte) {
		for _, split := range []parsertest.Splits{parsertest.Whole, parsertest.Bytewise} {
			j := &judge{allowed: []string{"a.example"}}
			r := parsertest.New(New(j))
			r.Splits = split
			first := hello("a.example")
			r.Write(parsers.Client, first)
			r.Write(parsers.Server, server)
			r.Write(parsers.Client, client)
			if !bytes.HasPrefix(append(first, client...), r.Out[parsers.Server]) || !r.Closed && !bytes.HasPrefix(server, r.Out[parsers.Client]) {
				t.Fatalf("the server got %x, the client %x", r.Out[parsers.Server], r.Out[parsers.Client])
			}
			retry, known := retries(server)
			if known && !retry && (!bytes.Equal(r.Out[parsers.Client], server) || r.Closed) {
				t.Fatalf("the client got %x, closed %v", r.Out[parsers.Client], r.Closed)
			}
		}
	})
}
