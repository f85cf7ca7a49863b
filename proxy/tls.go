package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// ends is how TLS ends on the client's side of a connection and begins on the
// server's, by what rules say. Sessions see what is in it and know nothing of it.
//
// It belongs to an L7 set, and is made anew when one of its secrets changes: new
// connections have the new certificate. Without a secret that it needs nothing can be
// ended, and connections are refused.
type ends struct {
	by             policy.TLSSecrets
	client, server *tls.Config // of each side; nil: plain text
	err            error       // why it cannot be done
}

// newEnds makes what a set asks for; nil: it asks for nothing.
func newEnds(by *policy.TLSSecrets, secrets map[policy.SecretRef]string) *ends {
	if by == nil {
		return nil
	}
	e := &ends{by: *by}
	if by.Conflict {
		e.err = errors.New("end TLS: rules for one port name different secrets: write the same in all of them")
		return e
	}
	for _, ref := range by.Refs() {
		if secrets[ref] == "" {
			e.err = fmt.Errorf("end TLS: there is no %s in secret %s/%s", ref.Key, ref.Namespace, ref.Name)
			return e
		}
	}
	if by.Certificate != (policy.SecretRef{}) {
		pair, err := tls.X509KeyPair([]byte(secrets[by.Certificate]), []byte(secrets[by.PrivateKey]))
		if err != nil {
			e.err = fmt.Errorf("end TLS by secret %s/%s: %w", by.Certificate.Namespace, by.Certificate.Name, err)
			return e
		}
		e.client = &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	}
	if by.TrustedCA != (policy.SecretRef{}) {
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM([]byte(secrets[by.TrustedCA])) {
			e.err = fmt.Errorf("begin TLS by secret %s/%s: %s holds no certificate", by.TrustedCA.Namespace, by.TrustedCA.Name, by.TrustedCA.Key)
			return e
		}
		e.server = &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}
	}
	return e
}

func (e *ends) failed() bool { return e != nil && e.err != nil }

// same reports whether a connection that began with e may go on under o.
func (e *ends) same(o *ends) bool {
	if e == nil || o == nil {
		return e == o
	}
	return e.by == o.by && !o.failed()
}

// ending is how TLS ends on a route: as either set says, and both the same.
func (s *snapshot) ending(r route) (found *ends) {
	for _, n := range [2]redirect.SetNumber{r.egress, r.ingress} {
		switch e := s.sets[n].ends; {
		case n == 0 || e == nil:
		case found == nil || found.err == nil && found.by == e.by:
			found = e
		case found.err == nil:
			found = &ends{err: errors.New("end TLS: rules of egress and of ingress name different secrets: write the same in both")}
		}
	}
	return found
}

// endTLS has the client say hello where rules end its TLS. False: it did not, which
// was reported.
func (c *conn) endTLS() bool {
	if c.ending == nil || c.ending.client == nil {
		return true
	}
	e := &c.ends[parsers.Client]
	over := tls.Server(e.sock, c.ending.client)
	ctx, cancel := context.WithTimeout(c.p.life, c.p.config.Limits.Head)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		c.mu.Lock()
		c.malformed(1, fmt.Errorf("end the client's TLS: %w", err))
		c.mu.Unlock()
		return false
	}
	e.tls = over
	return true
}

// beginTLS says hello to the server where rules want that: by the name that the client
// asked for, or the address that it dialled.
func (c *conn) beginTLS(sock *net.TCPConn) (*tls.Conn, error) {
	if c.ending == nil || c.ending.server == nil {
		return nil, nil
	}
	config := c.ending.server.Clone()
	config.ServerName = c.destination.Addr().String()
	if client := c.ends[parsers.Client].tls; client != nil {
		if name := client.ConnectionState().ServerName; name != "" {
			config.ServerName = name
		}
	}
	over := tls.Client(sock, config)
	ctx, cancel := context.WithTimeout(c.p.life, c.p.config.Limits.Dial)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("begin TLS to the server %s: %w", config.ServerName, err)
	}
	return over, nil
}

// readTLS is read of a side that speaks TLS. It holds a buffer also while it waits.
func (c *conn) readTLS(e *end) (int, error) {
	if e.buf == nil {
		e.acquire()
	}
	n, err := e.tls.Read(e.buf[e.w:])
	e.w += n
	switch {
	case n > 0:
		err = nil // it comes again
	case e.w == 0:
		e.release()
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF // many end without saying so in TLS; messages have lengths of their own
	}
	c.activity.Add(1)
	return n, err
}

// stream is what is written to a side by.
func (e *end) stream() io.Writer {
	if e.tls != nil {
		return e.tls
	}
	return e.sock
}

// endStream says that nothing more will be written, where that is said in TLS too.
func (e *end) endStream() {
	if e.tls != nil {
		_ = e.tls.CloseWrite()
	}
}
