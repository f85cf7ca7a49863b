package integration

import (
	"bufio"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// issuer issues certificates.
type issuer struct {
	certificate *x509.Certificate
	key         crypto.Signer
	pem         []byte
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	i.certificate, i.key, i.pem = i.sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, ellipticKey(t))
	return i
}

func ellipticKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// weakKey is one that Go takes and Envoy does not.
func weakKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (i *issuer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(i.certificate)
	return p
}

// sign signs a certificate; the first one signs itself.
func (i *issuer) sign(t *testing.T, template *x509.Certificate, key crypto.Signer) (*x509.Certificate, crypto.Signer, []byte) {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if i.certificate != nil {
		parent, signer = i.certificate, i.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
}

// issue makes a certificate of a key for names and addresses, as PEM.
func (i *issuer) issue(t *testing.T, key crypto.Signer, names ...string) (certificate, private []byte) {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	_, _, certificate = i.sign(t, template, key)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return certificate, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// secureServer answers HTTPS with what it sees: the version of HTTP, the name that it was
// asked by, the certificate that it was shown, and the client's address.
type secureServer struct {
	mu     sync.Mutex
	hellos int
}

func (s *secureServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.hellos
}

func (n *namespace) serveSecure(t *testing.T, port int, certificate, key []byte, more *tls.Config) *secureServer {
	t.Helper()
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &secureServer{}
	if more == nil {
		more = &tls.Config{}
	}
	more.Certificates = []tls.Certificate{pair}
	more.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.hellos++
		return nil, nil
	}
	h := &http.Server{ErrorLog: log.New(io.Discard, "", 0), TLSConfig: more, Handler: http.HandlerFunc(sayWhatIsSeen)}
	if len(more.NextProtos) > 0 { // else both versions
		h.Protocols = new(http.Protocols)
		h.Protocols.SetHTTP1(true)
	}
	l := n.listen(t, port)
	go func() { _ = h.ServeTLS(l, "", "") }()
	t.Cleanup(func() { h.Close() })
	return s
}

func sayWhatIsSeen(w http.ResponseWriter, r *http.Request) {
	name, shown := "no TLS", "nothing"
	if r.TLS != nil {
		if name = r.TLS.ServerName; len(r.TLS.PeerCertificates) > 0 {
			shown = r.TLS.PeerCertificates[0].Subject.CommonName
		}
	}
	fmt.Fprintf(w, "%s by %q shown %q from %s", r.Proto, name, shown, netip.MustParseAddrPort(r.RemoteAddr).Addr())
}

// secure begins TLS with a server, as a client that asks for a name and trusts an issuer.
func (n *namespace) secure(to netip.AddrPort, name string, trust *issuer, more *tls.Config) (*session, error) {
	c, err := n.dial(to, patience)
	if err != nil {
		return nil, err
	}
	if more == nil {
		more = &tls.Config{}
	}
	more.ServerName, more.RootCAs, more.InsecureSkipVerify = name, trust.pool(), name == ""
	over := tls.Client(c, more)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return &session{over, bufio.NewReader(over)}, nil
}

func (n *namespace) mustSecure(t *testing.T, to netip.AddrPort, name string, trust *issuer, more *tls.Config) *session {
	t.Helper()
	s, err := n.secure(to, name, trust, more)
	if err != nil {
		t.Fatalf("TLS with %s by %q: %v", to, name, err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// asksByHTTP2 sends one request by HTTP/2 over TLS.
func (n *namespace) asksByHTTP2(to netip.AddrPort, name string, trust *issuer, path string) (int, string, error) {
	var p http.Protocols
	p.SetHTTP2(true)
	transport := &http.Transport{
		Protocols: &p, TLSClientConfig: &tls.Config{ServerName: name, RootCAs: trust.pool()},
		DialContext: func(context.Context, string, string) (net.Conn, error) { return n.dial(to, patience) },
	}
	defer transport.CloseIdleConnections()
	r, err := (&http.Client{Transport: transport, Timeout: 6 * patience}).Get("https://" + name + path)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}
