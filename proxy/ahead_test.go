package proxy

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestServerEndsAhead: a server that was asked what it speaks, and ends before the first
// request, ends the client's connection too: no request is written to nobody.
func TestServerEndsAhead(t *testing.T) {
	own, servers := certify(t, "web.example"), certify(t, "web.example")
	for _, protocol := range []string{alpnHTTP1, alpnHTTP2} {
		ended := make(chan error, 1)
		to := server(t, func(c *net.TCPConn) {
			s := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{servers.pair}, NextProtos: []string{protocol}})
			if err := s.Handshake(); err != nil {
				ended <- err
				return
			}
			_ = s.CloseWrite()
			_ = c.CloseWrite()
			_, err := io.Copy(io.Discard, c)
			ended <- err
		})
		r := startProxy(t, to, func(c *Config) { c.Compile = nil })
		r.sets(map[redirect.SetNumber]*policy.L7Set{setA: endedSet(endsBoth)}, func(s *redirect.Snapshot) {
			s.Secrets = map[policy.SecretRef]string{certificateRef: own.certificate, keyRef: own.key, caRef: servers.certificate}
		})
		c := tls.Client(r.dial(), &tls.Config{RootCAs: own.pool, ServerName: "web.example", NextProtos: []string{protocol}})
		must(t, c.Handshake())
		if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
			t.Errorf("%s: %q %v, want the end", protocol, b, err)
		}
		_ = c.Close()
		if err := <-ended; err != nil {
			t.Errorf("%s: the server's side: %v", protocol, err)
		}
		eventually(t, "the connection is forgotten", func() bool { return r.status().Connections == 0 })
	}
}
