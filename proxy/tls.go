package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/headgate/headgate/parsers"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/proxy/epoll"
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
	e.err = e.configure(secrets)
	return e
}

// configure makes the configuration of each side.
func (e *ends) configure(secrets map[policy.SecretRef]string) (err error) {
	none := policy.SecretRef{}
	if e.by.Certificate != none || e.by.ClientCA != none {
		e.client = &tls.Config{MinVersion: tls.VersionTLS12, GetConfigForClient: greeted}
		e.client.Certificates, err = pair(e.by.Certificate, e.by.PrivateKey, secrets)
		if err == nil && e.by.ClientCA != none {
			e.client.ClientAuth = tls.RequireAndVerifyClientCert
			e.client.ClientCAs, err = authority(e.by.ClientCA, secrets)
		}
		if err != nil {
			return fmt.Errorf("end TLS by %w", err)
		}
	}
	if e.by.TrustedCA != none || e.by.OwnCertificate != none {
		e.server = &tls.Config{MinVersion: tls.VersionTLS12}
		e.server.RootCAs, err = authority(e.by.TrustedCA, secrets)
		if err == nil && e.by.OwnCertificate != none {
			e.server.Certificates, err = pair(e.by.OwnCertificate, e.by.OwnKey, secrets)
		}
		if err != nil {
			return fmt.Errorf("begin TLS by %w", err)
		}
	}
	return nil
}

// pair is a certificate with its key.
func pair(certificate, key policy.SecretRef, secrets map[policy.SecretRef]string) ([]tls.Certificate, error) {
	c, err := tls.X509KeyPair([]byte(secrets[certificate]), []byte(secrets[key]))
	if err != nil {
		return nil, fmt.Errorf("secret %s/%s: %w", certificate.Namespace, certificate.Name, err)
	}
	return []tls.Certificate{c}, nil
}

// authority is who issues certificates.
func authority(ref policy.SecretRef, secrets map[policy.SecretRef]string) (*x509.CertPool, error) {
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(secrets[ref])) {
		return nil, fmt.Errorf("secret %s/%s: %s holds no certificate", ref.Namespace, ref.Name, ref.Key)
	}
	return pool, nil
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
// was reported, and what it still sends is dropped: a reset would overtake the alert that
// tells it why.
func (c *conn) endTLS() bool {
	if c.ending == nil {
		return true
	}
	over, err := c.handshake()
	if err != nil {
		c.mu.Lock()
		switch {
		case errors.Is(err, errDenied):
		case c.ahead != nil && c.ahead.err != nil && errors.Is(err, c.ahead.err): // not the client's fault
			c.report(1, err.Error())
		default:
			c.malformed(1, fmt.Errorf("end the client's TLS: %w", err))
		}
		flush := c.closeBoth()
		c.mu.Unlock()
		c.flush(flush)
		return false
	}
	c.ends[parsers.Client].tls = over
	return true
}

// handshake has the client say hello, if it is to. Its name is judged on the way.
func (c *conn) handshake() (*tls.Conn, error) {
	if c.ending.client == nil {
		return nil, c.greet(&policy.TLSRequest{})
	}
	under := &wire{Socket: c.ends[parsers.Client].sock, local: c.destination, remote: c.source, conn: c}
	over := tls.Server(under, c.ending.client)
	ctx, cancel := context.WithTimeout(c.p.life, c.p.config.Limits.Head)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	under.greeted.Store(true)
	return over, nil
}

// beginTLS says hello to the server where rules want that: by the name that the client
// asked for, or the address that it dialled.
func (c *conn) beginTLS(sock *epoll.Socket, offer []string) (*tls.Conn, error) {
	if c.ending == nil || c.ending.server == nil {
		return nil, nil
	}
	config := c.ending.server.Clone()
	config.NextProtos = offer
	config.ServerName = c.destination.Addr().String()
	c.mu.Lock()
	if c.hello != nil && c.hello.ServerName != "" {
		config.ServerName = c.hello.ServerName
	}
	c.mu.Unlock()
	under := &wire{Socket: sock, local: c.source, remote: c.destination}
	over := tls.Client(under, config)
	ctx, cancel := context.WithTimeout(c.p.life, c.p.config.Limits.Dial)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("begin TLS to the server %s: %w", config.ServerName, err)
	}
	under.greeted.Store(true)
	return over, nil
}

// tryRead reads what there is of a side. EAGAIN: nothing.
func (e *end) tryRead(b []byte) (int, error) {
	if e.tls == nil {
		return e.sock.TryRead(b)
	}
	n, err := e.tls.Read(b)
	if n > 0 {
		err = nil // it comes again
	}
	if e.dry = errors.Is(err, errLater); e.dry {
		return 0, unix.EAGAIN
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF // many end without saying so in TLS
	}
	if w, ok := e.tls.NetConn().(*wire); ok && err == io.EOF && w.ended {
		e.ragged.Store(true)
	}
	return n, err
}

// dryTLS reads what is left in TLS of what came, before the side may be parked: of that
// the loop knows nothing. It stands for await.
func (c *conn) dryTLS(s parsers.Side) (alive, parked bool) {
	e := &c.ends[s]
	err := c.makeRoom(s)
	if err == nil {
		_, err = e.fill()
	}
	switch err {
	case nil:
		c.activity.Add(1)
		return true, false
	case unix.EAGAIN:
		return c.await(s)
	}
	return c.readFailed(s, err), false
}

// seal writes to a side that speaks TLS.
func (c *conn) seal(e *end, slices [][]byte) (err error) {
	for _, b := range slices {
		if len(b) > 0 && err == nil {
			_, err = e.tls.Write(b)
		}
	}
	c.activity.Add(1)
	return err
}

// endStream says that nothing more will be written, where that is said in TLS too. It is
// not if the other side did not say so either: it may have been cut off.
func (e *end) endStream(peer *end) {
	if e.tls != nil && !peer.ragged.Load() {
		_ = e.tls.CloseWrite()
	}
}

// wire is the socket under TLS. It waits during the handshake, and then no more for
// input: the relay does.
type wire struct {
	*epoll.Socket
	local, remote netip.AddrPort
	greeted       atomic.Bool
	ended         bool // before TLS did

	conn  *conn  // of a client that says hello
	hello []byte // what it said, until it was heard
	heard bool
	mute  bool // it was told all that it is to know
}

func (w *wire) Read(b []byte) (int, error) {
	for {
		n, err := w.TryRead(b)
		if err != unix.EAGAIN {
			w.ended = w.ended || err == io.EOF
			if w.conn != nil && !w.heard && n > 0 {
				w.hello = append(w.hello, b[:n]...)
			}
			return n, err
		}
		if w.greeted.Load() {
			return 0, errLater
		}
		if err := w.AwaitInput(); err != nil {
			return 0, err
		}
	}
}

func (w *wire) Write(b []byte) (int, error) {
	if w.mute {
		return len(b), nil
	}
	if err := w.WriteAll([][]byte{b}); err != nil {
		return 0, err
	}
	return len(b), nil
}

func (w *wire) Close() error                   { w.Socket.Close(); return nil }
func (w *wire) LocalAddr() net.Addr            { return net.TCPAddrFromAddrPort(w.local) }
func (w *wire) RemoteAddr() net.Addr           { return net.TCPAddrFromAddrPort(w.remote) }
func (*wire) SetDeadline(time.Time) error      { return nil } // who is late is closed
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }

// errLater is what TLS takes for a passing failure: it goes on where it was.
var errLater net.Error = later{}

type later struct{}

func (later) Error() string   { return "nothing has come yet" }
func (later) Timeout() bool   { return true }
func (later) Temporary() bool { return true }
