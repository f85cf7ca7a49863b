package integration

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// issuer issues certificates.
type issuer struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{}
	var raw []byte
	i.certificate, i.key, raw = certificateBy(t, nil, &x509.Certificate{
		Subject: pkix.Name{CommonName: "issuer"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	i.pem = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw})
	return i
}

func (i *issuer) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(i.certificate)
	return p
}

func certificateBy(t *testing.T, by *issuer, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := template, key
	if by != nil {
		parent, signer = by.certificate, by.key
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	return c, key, raw
}

// issue makes a certificate for names and addresses, as PEM.
func (i *issuer) issue(t *testing.T, names ...string) (certificate, key []byte) {
	t.Helper()
	template := &x509.Certificate{Subject: pkix.Name{CommonName: names[0]}}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	_, private, raw := certificateBy(t, i, template)
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// tlsServer answers HTTPS with what it sees: the name that it was asked by, the client's
// address, the version of HTTP.
type tlsServer struct {
	mu     sync.Mutex
	hellos []string
}

func (s *tlsServer) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.hellos)
}

func (n *namespace) serveTLS(t *testing.T, port int, certificate, key []byte) *tlsServer {
	t.Helper()
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	s := &tlsServer{}
	l := n.listen(t, port)
	h := &http.Server{
		ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{pair}, GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.hellos = append(s.hellos, h.ServerName)
			return nil, nil
		}},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s by %q from %s", r.Proto, r.TLS.ServerName, r.RemoteAddr)
		}),
	}
	go func() { _ = h.ServeTLS(l, "", "") }()
	t.Cleanup(func() { h.Close() })
	return s
}

// secure is a client's TLS connection to a server by a name.
func (n *namespace) secure(to netip.AddrPort, name string, trust *x509.CertPool, protocols ...string) (*tls.Conn, error) {
	c, err := n.dial(to, patience)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{ServerName: name, RootCAs: trust, NextProtos: protocols, InsecureSkipVerify: name == ""}
	over := tls.Client(c, config)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := over.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	_ = over.SetDeadline(time.Now().Add(6 * patience))
	return over, nil
}

// asks sends a request by HTTP/1 over TLS and returns status and body.
func asks(c *tls.Conn, path string) (int, string, error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: www.example.com\r\n\r\n", path); err != nil {
		return 0, "", err
	}
	r, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return r.StatusCode, string(body), err
}

// allowTLS lets a client in at a port, by what stands in toPorts besides.
func allowTLS(name string, port int, more string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: server}}
  ingress:
  - fromEndpoints: [{matchLabels: {app: client}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
%s`, name, port, more)
}

const (
	endsBoth = "      terminatingTLS: {secret: {name: proxy}}\n      originatingTLS: {secret: {name: servers}}\n"
	onlyGet  = "      rules: {http: [{path: \"/ok.*\"}]}\n"
)

// TestTLS asks both backends the same about server names and TLS that ends before rules.
func TestEnvoyTLS(t *testing.T) {
	t.Parallel()
	secrets := t.TempDir()
	b := backend{name: "envoy", bound: true, flags: []string{"--backend", "envoy", "--envoy-path", envoyBinary(t), "--envoy-workers", "1"}}
	n := startNode(t, append(b.flags, "--secrets-dir", secrets)...)
	server, client := n.workload(t, "server", "app=server"), n.workload(t, "client", "app=client")
	own, proxy := newIssuer(t), newIssuer(t)
	certificate, key := own.issue(t, "www.example.com", "a.b.example.com", "web.example.com", server.addr(4).String(), server.addr(6).String())
	front, frontKey := proxy.issue(t, "www.example.com", "web.example.com", "other.example.com")
	put(t, filepath.Join(secrets, "default/proxy/tls.crt"), front)
	put(t, filepath.Join(secrets, "default/proxy/tls.key"), frontKey)
	put(t, filepath.Join(secrets, "default/servers/ca.crt"), own.pem)
	names := server.serveTLS(t, 8441, certificate, key)
	server.serveTLS(t, 8442, certificate, key)
	n.apply(t,
		allowTLS("names", 8441, "      serverNames: [www.example.com, \"*.b.example.com\"]\n"),
		allowTLS("ends", 8442, endsBoth+onlyGet+"      serverNames: [\"*.example.com\"]\n"),
	)
	eachVersion(t, func(t *testing.T, v ipVersion) {
		for name, good := range map[string]bool{"www.example.com": true, "WWW.Example.com": true, "a.b.example.com": true, "web.example.com": false, "b.example.com": false, "": false} {
			before := names.count()
			c, err := client.secure(server.at(v, 8441), name, own.pool())
			if (err == nil) != good {
				t.Errorf("%q: %v, want %v", name, err, good)
			}
			if err != nil {
				if !good && !strings.Contains(err.Error(), "access denied") {
					t.Errorf("%q: %v, want an alert", name, err)
				}
				if names.count() != before {
					t.Errorf("%q: the server was asked", name)
				}
				continue
			}
			status, body, err := asks(c, "/x")
			if want := fmt.Sprintf("HTTP/1.1 by %q from %s:", strings.ToLower(name), bracketed(client.addr(v))); err != nil || status != 200 || !strings.HasPrefix(strings.ToLower(body), strings.ToLower(want)) {
				t.Errorf("%q: %d %q %v, want %q", name, status, body, err, want)
			}
			c.Close()
		}
		n.awaitFlow(t, "a refused name", []string{"--verdict", "DROPPED", "--port", "8441"}, func(f *flowpb.Flow) bool { return strings.Contains(f.String(), "web.example.com") })
		for _, protocol := range []string{"http/1.1", "h2"} {
			c, err := client.secure(server.at(v, 8442), "web.example.com", proxy.pool(), protocol)
			if err != nil {
				t.Fatal(err)
			}
			if protocol == "http/1.1" {
				for path, want := range map[string]int{"/ok": 200, "/no": 403} {
					status, body, err := asks(c, path)
					if err != nil || status != want || want == 200 && !strings.HasPrefix(body, fmt.Sprintf("HTTP/1.1 by %q from %s:", "web.example.com", bracketed(client.addr(v)))) {
						t.Errorf("%s: %d %q %v", path, status, body, err)
					}
				}
			} else if got := c.ConnectionState().NegotiatedProtocol; got != "h2" {
				t.Errorf("negotiated %q", got)
			}
			c.Close()
		}
	})
	t.Log(n.headgate(t, "observe", "--last", "60", "-o", "compact"))
	t.Log(n.headgate(t, "xds", "dump", "-o", "json"))
}

func bracketed(ip netip.Addr) string {
	if ip.Is6() {
		return "[" + ip.String() + "]"
	}
	return ip.String()
}
