package integration

import (
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// nginxTLS says by which name it was asked for.
const nginxTLS = `user root;
worker_processes 1;
daemon off;
pid %[1]s/pid;
error_log %[1]s/error.log;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	ssl_certificate %[1]s/tls.crt;
	ssl_certificate_key %[1]s/tls.key;
	ssl_session_cache shared:sessions:1m;
	server {
		listen 443 ssl http2;
		listen [::]:443 ssl http2;
		listen 8443 ssl http2;
		listen [::]:8443 ssl http2;
		listen 8080;
		listen [::]:8080;
		location / { return 200 "asked for $ssl_server_name$host by $server_protocol $request_uri\n"; }
	}
}
`

// tlsSite is a server of TLS, and a client of it, with a node between them.
type tlsSite struct {
	*node
	server, client *workload
	servers, own   *issuer // whose certificates the server has, and the proxy
	secrets, ca    string  // directories; ca has own.pem and servers.pem
	curl, openssl  string
}

func newTLSSite(t *testing.T) *tlsSite {
	s := &tlsSite{
		servers: newIssuer(t), own: newIssuer(t), secrets: t.TempDir(), ca: t.TempDir(),
		curl: needProgram(t, "curl"), openssl: needProgram(t, "openssl"),
	}
	s.node = startNode(t, "--secrets-dir", s.secrets)
	s.server, s.client = s.workload(t, "server", "app=server"), s.workload(t, "client", "app=client")
	put(t, filepath.Join(s.ca, "own.pem"), s.own.pem)
	put(t, filepath.Join(s.ca, "servers.pem"), s.servers.pem)
	certificate, key := s.servers.issue(t, ellipticKey(t), "www.example.com", "*.api.example.com", "*.b.api.example.com", "kept.example.com", "gone.example.com", "evil.example", "web.example")
	s.server.serveNginxAs(t, nginxTLS, map[string][]byte{"tls.crt": certificate, "tls.key": key})
	s.reissue(t)
	put(t, filepath.Join(s.secrets, "default/servers/ca.crt"), s.servers.pem)
	eventually(t, patience, "nginx listens", func() error {
		c, err := s.server.dial(s.server.at(4, 443), patience)
		if err == nil {
			c.Close()
		}
		return err
	})
	return s
}

// reissue gives the proxy a new certificate.
func (s *tlsSite) reissue(t *testing.T) {
	certificate, key := s.own.issue(t, ellipticKey(t), "web.example")
	put(t, filepath.Join(s.secrets, "default/proxy/tls.key"), key)
	put(t, filepath.Join(s.secrets, "default/proxy/tls.crt"), certificate)
}

// ask has curl fetch a path by a name, and trust one of the authorities.
func (s *tlsSite) ask(t *testing.T, v ipVersion, name string, port int, path, ca string, args ...string) (string, error) {
	t.Helper()
	to := s.server.at(v, port)
	return s.client.attempt(t, s.curl, append([]string{
		"-q", "-sS", "--max-time", "60", "--cacert", filepath.Join(s.ca, ca), "-w", "%{http_code}",
		"--connect-to", fmt.Sprintf("::%s", to), fmt.Sprintf("https://%s:%d%s", name, port, path),
	}, args...)...)
}

// toServer is a policy for what the client may do at a port of the server.
func toServer(name string, port int, rest string) string {
	return fmt.Sprintf(`apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: %s}
spec:
  endpointSelector: {matchLabels: {app: client}}
  egress:
  - toEndpoints: [{matchLabels: {app: server}}]
    toPorts:
    - ports: [{port: "%d", protocol: TCP}]
      %s
`, name, port, rest)
}

const rulesForTLS = `rules: {http: [{method: GET, path: "/public.*"}]}`

// TestTLS has curl, openssl and Go ask nginx over TLS.
func TestTLS(t *testing.T) {
	t.Parallel()
	s := newTLSSite(t)
	s.apply(t, toServer("names", 443, `serverNames: [www.example.com, "*.api.example.com", kept.example.com, gone.example.com]`),
		toServer("ends", 8443, "terminatingTLS: {secret: {name: proxy}}\n      originatingTLS: {secret: {name: servers}}\n      "+rulesForTLS),
		toServer("plain", 8080, "terminatingTLS: {secret: {name: proxy}}\n      "+rulesForTLS))
	eachVersion(t, s.names)
	t.Run("a hello in pieces", s.pieces)
	t.Run("sessions are resumed", s.resumed)
	t.Run("a name is revoked", s.revoked)
	eachVersion(t, s.ends)
	t.Run("secrets", s.rotates)
}

func (s *tlsSite) names(t *testing.T, v ipVersion) {
	for _, name := range []string{"www.example.com", "v1.api.example.com", "WWW.example.com"} {
		for _, how := range [][]string{{"--http2"}, {"--http1.1", "--tls-max", "1.2"}} {
			got, err := s.ask(t, v, name, 443, "/a", "servers.pem", how...)
			if want := "asked for " + name; err != nil || !strings.HasPrefix(strings.ToLower(got), strings.ToLower(want)) || !strings.HasSuffix(got, "200") {
				t.Errorf("%s %v: %q %v", name, how, got, err)
			}
		}
	}
	for _, name := range []string{"evil.example", "a.b.api.example.com", "api.example.com"} {
		if got, err := s.ask(t, v, name, 443, "/a", "servers.pem"); err == nil || !strings.Contains(err.Error(), "access denied") {
			t.Errorf("%s: %q %v, want an alert that access is denied", name, got, err)
		}
	}
	// An address is no name: none is sent.
	to := s.server.at(v, 443).String()
	if got, err := s.client.attempt(t, s.curl, "-q", "-sSk", "--max-time", "60", "https://"+to+"/"); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("no name: %q %v", got, err)
	}
	if got, err := s.client.attempt(t, s.openssl, "s_client", "-connect", to, "-servername", "evil.example"); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("openssl: %q %v", got, err)
	}
	if got, err := s.client.attempt(t, s.curl, "-q", "-sS", "--max-time", "60", "http://"+to+"/"); err == nil {
		t.Errorf("plain text: %q", got)
	}
	for name, want := range map[string]flowpb.Verdict{"evil.example": flowpb.Verdict_DROPPED, "v1.api.example.com": flowpb.Verdict_FORWARDED} {
		s.awaitFlow(t, name, []string{"--type", "l7", "--port", "443"}, func(f *flowpb.Flow) bool {
			by := f.GetEgressAllowedBy()
			return f.GetIP().GetSource() == s.client.addr(v).String() && f.GetVerdict() == want && f.GetSummary() == "TLS server name "+name && //nolint:staticcheck // what is shown
				(len(by) == 1 && by[0].GetName() == "names") == (want == flowpb.Verdict_FORWARDED)
		})
	}
}

// inPieces divides the hello among records and segments.
type inPieces struct {
	net.Conn
	said bool
}

func (p *inPieces) Write(b []byte) (int, error) {
	if p.said {
		return p.Conn.Write(b)
	}
	p.said = true
	for rest := b[5:]; len(rest) > 0; {
		n := min(len(rest), 50)
		record := append(binary.BigEndian.AppendUint16([]byte{b[0], b[1], b[2]}, uint16(n)), rest[:n]...)
		for i := range record {
			if _, err := p.Conn.Write(record[i : i+1]); err != nil {
				return 0, err
			}
		}
		rest = rest[n:]
	}
	return len(b), nil
}

// begin has Go's client say hello.
func (s *tlsSite) begin(t *testing.T, name string, config *tls.Config, over func(net.Conn) net.Conn) (*tls.Conn, error) {
	t.Helper()
	under, err := s.client.dial(s.server.at(4, 443), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { under.Close() })
	_ = under.SetDeadline(time.Now().Add(10 * patience))
	config.RootCAs, config.ServerName = s.servers.pool(), name
	c := tls.Client(over(under), config)
	return c, c.Handshake()
}

func asItIs(c net.Conn) net.Conn { return c }

// fetchBy asks for a page by HTTP/1.1 and leaves the connection open.
func fetchBy(c *tls.Conn, name string) error {
	if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", name); err != nil {
		return err
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err == nil && !strings.HasPrefix(string(b[:n]), "HTTP/1.1 200 ") {
		err = fmt.Errorf("answered %q", b[:n])
	}
	return err
}

func (s *tlsSite) pieces(t *testing.T) {
	pieces := func(c net.Conn) net.Conn { return &inPieces{Conn: c} }
	c, err := s.begin(t, "www.example.com", &tls.Config{}, pieces)
	if err == nil {
		err = fetchBy(c, "www.example.com")
	}
	if err != nil {
		t.Error(err)
	}
	if _, err := s.begin(t, "evil.example", &tls.Config{}, pieces); err == nil || !strings.Contains(err.Error(), "access denied") {
		t.Errorf("denied: %v", err)
	}
}

func (s *tlsSite) resumed(t *testing.T) {
	for _, most := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		config := &tls.Config{ClientSessionCache: tls.NewLRUClientSessionCache(1), MaxVersion: most}
		for again := range 2 {
			c, err := s.begin(t, "www.example.com", config, asItIs)
			if err == nil {
				err = fetchBy(c, "www.example.com")
			}
			if err != nil || c.ConnectionState().DidResume != (again == 1) {
				t.Fatalf("TLS %x, connection %d: %v", most, again, err)
			}
			c.Close()
		}
	}
}

func (s *tlsSite) revoked(t *testing.T) {
	open := map[string]*tls.Conn{}
	for _, name := range []string{"kept.example.com", "gone.example.com"} {
		c, err := s.begin(t, name, &tls.Config{}, asItIs)
		if err == nil {
			err = fetchBy(c, name)
		}
		if err != nil {
			t.Fatal(err)
		}
		open[name] = c
	}
	s.apply(t, toServer("names", 443, `serverNames: [www.example.com, "*.api.example.com", kept.example.com]`))
	if _, err := open["gone.example.com"].Read(make([]byte, 1)); err == nil {
		t.Error("it goes on")
	}
	if err := fetchBy(open["kept.example.com"], "kept.example.com"); err != nil {
		t.Errorf("the other was ended: %v", err)
	}
	s.awaitFlow(t, "the revoked name", []string{"--type", "l7", "--port", "443", "--verdict", "DROPPED"}, func(f *flowpb.Flow) bool {
		return f.GetSummary() == "TLS server name gone.example.com" //nolint:staticcheck // what is shown
	})
	// Beside a rule for all, names do not matter.
	s.apply(t, toServer("all", 443, ""))
	if got, err := s.ask(t, 4, "evil.example", 443, "/", "servers.pem"); err != nil {
		t.Errorf("with a rule for every name: %q %v", got, err)
	}
	s.withdraw(t, toServer("all", 443, ""))
	eventually(t, patience, "names to matter again", func() error {
		if got, err := s.ask(t, 4, "evil.example", 443, "/", "servers.pem"); err == nil {
			return fmt.Errorf("evil.example: %q", got)
		}
		return nil
	})
}

func (s *tlsSite) ends(t *testing.T, v ipVersion) {
	for port, want := range map[int]string{8443: "web.exampleweb.example", 8080: "web.example"} {
		for flag, protocol := range map[string]string{"--http2": "HTTP/2.0", "--http1.1": "HTTP/1.1"} {
			if port == 8080 {
				protocol = "HTTP/1.1" // which servers of plain text know
			}
			got, err := s.ask(t, v, "web.example", port, "/public", "own.pem", flag)
			if want := "asked for " + want + " by " + protocol + " /public\n200"; err != nil || got != want {
				t.Errorf("port %d, %s: %q %v, want %q", port, flag, got, err, want)
			}
			if got, err := s.ask(t, v, "web.example", port, "/secret", "own.pem", flag); err != nil || !strings.HasSuffix(got, "403") {
				t.Errorf("port %d, %s, denied: %q %v", port, flag, got, err)
			}
		}
		if got, err := s.ask(t, v, "web.example", port, "/public", "servers.pem"); err == nil {
			t.Errorf("port %d: the server's own certificate came through: %q", port, got)
		}
	}
	s.awaitFlow(t, "a denied request", []string{"--http-path", "/secret", "--verdict", "DROPPED", "--port", "8443"}, func(f *flowpb.Flow) bool {
		return f.GetL7().GetHttp().GetUrl() == "https://web.example:8443/secret"
	})
}

func (s *tlsSite) rotates(t *testing.T) {
	s.own = newIssuer(t)
	s.reissue(t)
	put(t, filepath.Join(s.ca, "own.pem"), s.own.pem)
	try := func(want string) func() error {
		return func() error {
			if got, err := s.ask(t, 4, "web.example", 8443, "/public", "own.pem"); (err == nil) != (want != "") || !strings.HasSuffix(got, want) {
				return fmt.Errorf("%q %v, want %q", got, err, want)
			}
			return nil
		}
	}
	eventually(t, patience, "the new certificate", try("200"))
	put(t, filepath.Join(s.secrets, "default/servers/ca.crt"), s.own.pem)
	eventually(t, patience, "no trust in the server", try("502"))
	if err := os.Remove(filepath.Join(s.secrets, "default/proxy/tls.key")); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "TLS that does not end without a key", try(""))
	for _, why := range []string{"begin TLS to the server web.example", "there is no tls.key in secret default/proxy"} {
		eventually(t, patience, "a flow that says why", func() error {
			if seen := s.headgate(t, "observe", "--port", "8443", "--last", "200"); !strings.Contains(seen, why) {
				return fmt.Errorf("no flow says %q:\n%s", why, seen[max(0, len(seen)-2<<10):])
			}
			return nil
		})
	}
}
