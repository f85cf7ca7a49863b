package integration

import (
	"crypto"
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// secureRules lets the client in at a port, by what stands in toPorts besides.
func secureRules(name string, port int, more string) string {
	return allow(name, "server", fromApp("client"), port) + more
}

const (
	endsOnly = "      terminatingTLS: {secret: {name: proxy}}\n"
	endsBoth = endsOnly + "      originatingTLS: {secret: {name: servers}}\n"
	onlyOK   = "      rules: {http: [{path: \"/ok.*\"}]}\n"
)

func serverNames(names string) string { return "      serverNames: [" + names + "]\n" }

// secureWorld is a node with servers that speak TLS, and rules about it.
type secureWorld struct {
	*node
	backend        backend
	server, client *workload
	audited        *workload // whose policies are only audited
	secrets        string
	own, proxy     *issuer // of the servers' certificates, and of those that end TLS before them
	named          *secureServer
}

// Ports of the servers, by what rules say of them.
const (
	portNames = 8441 // server names alone
	portEnds  = 8442 // TLS ends and begins again; HTTP rules and server names
	portPlain = 8443 // TLS ends, the server speaks plain text
	portOld   = 8444 // as 8442, and the server knows HTTP/1.1 alone
	portBegin = 8445 // the client speaks plain text, the server TLS
	portBoth  = 8446 // egress rules for server names, ingress rules that end TLS
	portCerts = 8447 // both sides are asked for certificates
	portCarry = 8448 // TLS ends and begins again; what is in it is not read
	portAudit = 8449 // server names, which are only audited
)

func newSecureWorld(t *testing.T, b backend) *secureWorld {
	t.Helper()
	w := &secureWorld{backend: b, secrets: filepath.Join(t.TempDir(), "secrets"), own: newIssuer(t), proxy: newIssuer(t)}
	w.node = startNode(t, append([]string{"--secrets-dir", w.secrets}, b.flags...)...)
	w.server, w.client = w.workload(t, "server", "app=server"), w.workload(t, "client", "app=client")
	certificate, key := w.own.issue(t, ellipticKey(t), "www.example.com", "web.example.com", "a.b.example.com", w.server.addr(4).String(), w.server.addr(6).String())
	w.replace(t, "first", ellipticKey(t))
	own, ownKey := w.proxy.issue(t, ellipticKey(t), "proxy")
	for name, text := range map[string][]byte{"servers/ca.crt": w.own.pem, "both/ca.crt": w.own.pem, "both/tls.crt": own, "both/tls.key": ownKey, "proxy/ca.crt": w.own.pem} {
		put(t, filepath.Join(w.secrets, "default", name), text)
	}
	w.audited = w.workload(t, "audited", "app=audited")
	w.audited.serveSecure(t, portAudit, certificate, key, nil)
	w.named = w.server.serveSecure(t, portNames, certificate, key, nil)
	for _, port := range []int{portEnds, portBegin, portBoth, portCarry} {
		w.server.serveSecure(t, port, certificate, key, nil)
	}
	w.server.serveSecure(t, portOld, certificate, key, &tls.Config{NextProtos: []string{"http/1.1"}})
	w.server.serveSecure(t, portCerts, certificate, key, &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: w.proxy.pool()})
	w.server.serveWeb(t, portPlain)
	w.apply(t,
		secureRules("names", portNames, serverNames(`www.example.com, "*.b.example.com"`)),
		secureRules("ends", portEnds, endsBoth+onlyOK+serverNames(`"*.example.com"`)),
		secureRules("plain", portPlain, endsOnly+onlyOK),
		secureRules("old", portOld, endsBoth+onlyOK),
		secureRules("begin", portBegin, "      originatingTLS: {secret: {name: servers}}\n"+onlyOK),
		secureRules("both", portBoth, endsBoth+onlyOK),
		allow("out", "client", "toEndpoints: [{matchLabels: {app: server}}]", portBoth)+serverNames("web.example.com"),
		allow("rest", "client", "toEndpoints: [{matchLabels: {app: server}}]", 1)+"    - ports: [{port: \"8441\", endPort: 8445, protocol: TCP}, {port: \"8447\", endPort: 8448, protocol: TCP}]\n",
		secureRules("certs", portCerts, "      terminatingTLS: {secret: {name: proxy}, trustedCA: ca.crt}\n      originatingTLS: {secret: {name: both}, certificate: tls.crt, privateKey: tls.key}\n"+onlyOK),
		secureRules("carry", portCarry, endsBoth),
		allow("toaudited", "client", "toEndpoints: [{matchLabels: {app: audited}}]", portAudit),
		strings.Replace(allow("audit", "audited", fromApp("client"), portAudit)+serverNames("www.example.com"), "{name: audit}", "{name: audit, annotations: {headgate.dev/mode: audit}}", 1),
	)
	return w
}

// replace writes another certificate by which TLS ends, and its key.
func (w *secureWorld) replace(t *testing.T, name string, of crypto.Signer) {
	t.Helper()
	certificate, key := w.proxy.issue(t, of, name, "www.example.com", "web.example.com", "a.b.example.com", "other.example.com")
	put(t, filepath.Join(w.secrets, "default/proxy/tls.crt"), certificate)
	put(t, filepath.Join(w.secrets, "default/proxy/tls.key"), key)
}

// TestTLSOnBothBackends asks both backends the same about server names, and TLS that ends before rules.
func TestTLSOnBothBackends(t *testing.T) {
	t.Parallel()
	eachBackend(t, func(t *testing.T, b backend) {
		w := newSecureWorld(t, b)
		eachVersion(t, func(t *testing.T, v ipVersion) {
			w.namesAreAsked(t, v)
			w.requestsAreAsked(t, v)
			w.certificatesAreAsked(t, v)
		})
		w.namesAreFlows(t)
		if w.backend.bound {
			w.refusedBesideTLS(t)
			w.silenceIsNoHello(t)
		}
		w.namesChange(t)
		w.certificatesChange(t)
		w.secretsStaySecret(t)
		w.secretsFailClosed(t)
	})
}

func seenBy(protocol, name string, client netip.Addr) string {
	return fmt.Sprintf("%s by %q shown %q from %s", protocol, name, "nothing", client)
}

func (w *secureWorld) namesAreAsked(t *testing.T, v ipVersion) {
	for name, good := range map[string]bool{
		"www.example.com": true, "WWW.Example.com": true, "a.b.example.com": true, "web.example.com": false, "b.example.com": false, "a.a.b.example.com": false, "": false,
	} {
		before := w.named.count()
		c, err := w.client.secure(w.server.at(v, portNames), name, w.own, nil)
		switch {
		case good && err == nil:
			r, err := c.ask("GET", "/x", "")
			if err != nil || !strings.EqualFold(r.body, seenBy("HTTP/1.1", name, w.client.addr(v))) {
				t.Errorf("%s %q: %+v, %v", v, name, r, err)
			}
			c.Close()
		case good:
			t.Errorf("%s %q: %v", v, name, err)
		case err == nil:
			t.Errorf("%s %q: it is let through", v, name)
			c.Close()
		default:
			if !refusedByAlert(err) {
				t.Errorf("%s %q: %v, want an alert", v, name, err)
			}
			if w.named.count() != before {
				t.Errorf("%s %q: the server was asked", v, name)
			}
		}
	}
	c := w.client.mustOpen(t, w.server.at(v, portNames))
	if r, err := c.ask("GET", "/", ""); err == nil {
		t.Errorf("%s: plain text where names are asked is answered %+v", v, r)
	}
	// Where they are only audited, all passes.
	w.client.mustSecure(t, w.audited.at(v, portAudit), "web.example.com", w.own, nil).mustAsk(t, "GET", "/", 200)
	w.client.mustAsk(t, w.audited.at(v, portAudit), "GET", "/", 400) // it is the server's answer to plain text
}

// refusedByAlert: what the client had sent may be answered by a reset right behind the alert.
func refusedByAlert(err error) bool {
	return err != nil && strings.Contains(err.Error(), "access denied") || errors.Is(err, unix.ECONNRESET)
}

func (w *secureWorld) requestsAreAsked(t *testing.T, v ipVersion) {
	for _, tt := range []struct {
		port        int
		name        string
		second      bool
		path        string
		status      int
		seen, asked string
	}{
		{portEnds, "web.example.com", false, "/ok", 200, "HTTP/1.1", "web.example.com"},
		{portEnds, "web.example.com", false, "/no", 403, "", ""},
		{portEnds, "web.example.com", true, "/ok", 200, "HTTP/2.0", "web.example.com"},
		{portEnds, "web.example.com", true, "/no", 403, "", ""},
		{portOld, "web.example.com", false, "/ok", 200, "HTTP/1.1", "web.example.com"},
		{portPlain, "web.example.com", false, "/ok", 200, "", ""},
		{portPlain, "web.example.com", false, "/no", 403, "", ""},
		{portBoth, "web.example.com", false, "/ok", 200, "HTTP/1.1", "web.example.com"},
		{portBoth, "web.example.com", false, "/no", 403, "", ""},
		{portCarry, "web.example.com", false, "/no", 200, "HTTP/1.1", "web.example.com"},
	} {
		if tt.port == portBoth && !w.backend.bound {
			continue
		}
		var r *reply
		var err error
		if tt.second {
			r = &reply{}
			r.status, r.body, err = w.client.asksByHTTP2(w.server.at(v, tt.port), tt.name, w.proxy, tt.path)
		} else {
			r, err = w.client.mustSecure(t, w.server.at(v, tt.port), tt.name, w.proxy, nil).ask("GET", tt.path, "")
		}
		if err != nil || r.status != tt.status || tt.seen != "" && r.body != seenBy(tt.seen, tt.asked, w.client.addr(v)) || tt.status == 403 && r.body != deniedBody {
			t.Errorf("%s %+v: %+v, %v", v, tt, r, err)
		}
	}
	// Who names nobody is connected by the address that it dialled.
	r, err := w.client.mustSecure(t, w.server.at(v, portOld), "", w.proxy, nil).ask("GET", "/ok", "")
	if err != nil || r.status != 200 || r.body != seenBy("HTTP/1.1", "", w.client.addr(v)) {
		t.Errorf("%s without a name: %+v, %v", v, r, err)
	}
	for path, status := range map[string]int{"/ok": 200, "/no": 403} {
		if r := w.client.mustAsk(t, w.server.at(v, portBegin), "GET", path, status); status == 200 && r.body != seenBy("HTTP/1.1", "", w.client.addr(v)) {
			t.Errorf("%s from plain text: %+v", v, r)
		}
	}
	for port, name := range map[int]string{portEnds: "www.example.org", portBoth: "www.example.com"} {
		if port == portBoth && !w.backend.bound {
			w.client.mustNotConnect(t, w.server.at(v, port)) // headgate's own proxy reads a connection as one protocol
			continue
		}
		if _, err := w.client.secure(w.server.at(v, port), name, w.proxy, nil); !refusedByAlert(err) {
			t.Errorf("%s: %q on port %d: %v, want an alert", v, name, port, err)
		}
	}
	// A server is known by the name that the client asks for.
	if r, err := w.client.mustSecure(t, w.server.at(v, portEnds), "other.example.com", w.proxy, nil).ask("GET", "/ok", ""); err == nil && r.status < 500 {
		t.Errorf("%s: a server that has another name answers %+v", v, r)
	}
	c := w.client.mustOpen(t, w.server.at(v, portEnds))
	if r, err := c.ask("GET", "/ok", ""); err == nil {
		t.Errorf("%s: plain text where TLS ends is answered %+v", v, r)
	}
}

// certificatesAreAsked: of clients, and by servers.
func (w *secureWorld) certificatesAreAsked(t *testing.T, v ipVersion) {
	to := w.server.at(v, portCerts)
	shown := func(by *issuer) *tls.Config {
		certificate, key := by.issue(t, ellipticKey(t), "client")
		pair, err := tls.X509KeyPair(certificate, key)
		if err != nil {
			t.Fatal(err)
		}
		return &tls.Config{GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }}
	}
	r, err := w.client.mustSecure(t, to, "web.example.com", w.proxy, shown(w.own)).ask("GET", "/ok", "")
	if want := fmt.Sprintf("HTTP/1.1 by %q shown %q from %s", "web.example.com", "proxy", w.client.addr(v)); err != nil || r.status != 200 || r.body != want {
		t.Errorf("%s with a certificate: %+v, %v", v, r, err)
	}
	for name, config := range map[string]*tls.Config{"none": nil, "another issuer's": shown(w.proxy)} {
		if c, err := w.client.secure(to, "web.example.com", w.proxy, config); err == nil { // TLS 1.3: it is told later
			if r, err := c.ask("GET", "/ok", ""); err == nil {
				t.Errorf("%s with %s certificate: %+v", v, name, r)
			}
			c.Close()
		}
	}
}
