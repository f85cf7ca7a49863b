package integration

import (
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// namesAreFlows: what was allowed and denied is seen, with the rule.
func (w *secureWorld) namesAreFlows(t *testing.T) {
	seen := func(what, verdict, port, text string) *flowpb.Flow {
		return w.awaitFlow(t, what, []string{"--type", "l7", "--verdict", verdict, "--port", port}, func(f *flowpb.Flow) bool { return strings.Contains(f.String(), text) })
	}
	for _, tt := range [][4]string{
		{"a name that is denied", "DROPPED", "8441", "web.example.com"},
		{"a name that is allowed", "FORWARDED", "8441", "a.b.example.com"},
		{"a name before requests", "DROPPED", "8442", "www.example.org"},
		{"a request in TLS", "DROPPED", "8442", "https://server/no"},
		{"what is no TLS", "ERROR", "8442", "TLS"},
		{"a name that is audited", "AUDIT", "8449", "web.example.com"},
	} {
		seen(tt[0], tt[1], tt[2], tt[3])
	}
	if f := seen("a name that is allowed", "FORWARDED", "8441", "a.b.example.com"); !strings.Contains(fmt.Sprint(f.GetIngressAllowedBy()), "names") {
		t.Errorf("the flow of a name that is allowed does not name its rule: %v", f)
	}
	cases := [][4]string{{"DROPPED", "8441", "web.example.com", "serverNames[0]"}}
	if w.backend.bound {
		cases = append(cases, [4]string{"DROPPED", "8446", "www.example.com", "default/out"})
	}
	for _, tt := range cases {
		out := w.headgate(t, "observe", "--type", "l7", "--verdict", tt[0], "--port", tt[1], "--last", "1000", "-o", "dict")
		if !strings.Contains(out, tt[2]) || !strings.Contains(out, tt[3]) {
			t.Errorf("flows on port %s do not name %s and %s:\n%s", tt[1], tt[2], tt[3], out)
		}
	}
}

// namesChange: a change ends the connections that it denies, and no others.
func (w *secureWorld) namesChange(t *testing.T) {
	at := w.server.at(4, portNames)
	www, other := w.client.mustSecure(t, at, "www.example.com", w.own, nil), w.client.mustSecure(t, at, "a.b.example.com", w.own, nil)
	read := w.client.mustSecure(t, w.server.at(4, portEnds), "web.example.com", w.proxy, nil)
	for _, c := range []*session{www, other, read} {
		c.mustAsk(t, "GET", "/ok", 200)
	}
	w.apply(t, secureRules("names", portNames, serverNames(`"*.b.example.com"`)))
	www.mustEnd(t)
	other.mustAsk(t, "GET", "/ok", 200)
	read.mustAsk(t, "GET", "/ok", 200)
	w.apply(t, secureRules("names", portNames, serverNames(`www.example.com, "*.b.example.com"`)))
	other.mustAsk(t, "GET", "/ok", 200)
	w.client.mustSecure(t, at, "www.example.com", w.own, nil).mustAsk(t, "GET", "/ok", 200)

	w.apply(t, secureRules("ends", portEnds, endsBoth+onlyOK+serverNames("www.example.com")))
	if r, err := read.ask("GET", "/ok", ""); err == nil && r.status != 403 {
		t.Errorf("a request under a name that is denied now is answered %+v", r)
	}
	w.apply(t, secureRules("ends", portEnds, endsBoth+onlyOK+serverNames(`"*.example.com"`)))
	// Connections outlive the agent, and are judged by the next one.
	www = w.client.mustSecure(t, at, "www.example.com", w.own, nil)
	read = w.client.mustSecure(t, w.server.at(4, portEnds), "web.example.com", w.proxy, nil)
	w.killAgent()
	for _, c := range []*session{www, other, read} {
		c.mustAsk(t, "GET", "/ok", 200)
	}
	w.startAgent(t)
	for _, c := range []*session{www, other, read} {
		c.mustAsk(t, "GET", "/ok", 200)
	}
	w.apply(t, secureRules("names", portNames, serverNames("www.example.com")))
	// Envoy tells of it every five seconds; headgate's own proxy judges it when it moves.
	eventually(t, patience, "a connection of before the agent ends", func() error {
		if r, err := other.ask("GET", "/ok", ""); err == nil {
			return fmt.Errorf("answered %+v", r)
		}
		return nil
	})
	www.mustAsk(t, "GET", "/ok", 200)
}

// certificatesChange: new connections have the certificate that is there now; one that
// cannot be used does not take the place of another where only Envoy says so.
func (w *secureWorld) certificatesChange(t *testing.T) {
	at := w.server.at(4, portEnds)
	has := func(name string) func() error {
		return func() error {
			c, err := w.client.secure(at, "web.example.com", w.proxy, nil)
			if err != nil {
				return err
			}
			defer c.Close()
			if got := c.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Subject.CommonName; got != name {
				return fmt.Errorf("the certificate is of %s", got)
			}
			r, err := c.ask("GET", "/ok", "")
			if err == nil && r.status != 200 {
				err = fmt.Errorf("answered %+v", r)
			}
			return err
		}
	}
	open := w.client.mustSecure(t, at, "web.example.com", w.proxy, nil)
	open.mustAsk(t, "GET", "/ok", 200)
	w.replace(t, "second", ellipticKey(t))
	eventually(t, patience, "the new certificate", has("second"))
	open.mustAsk(t, "GET", "/ok", 200)
	if !w.backend.bound {
		return
	}
	w.replace(t, "weak", weakKey(t))
	eventually(t, patience, "Envoy's words", func() error {
		if out := w.try(t, "", "status", "-o", "json").stdout; !strings.Contains(out, "certificate/default/proxy/tls.crt/tls.key") || !strings.Contains(out, "2048") {
			return errors.New(out)
		}
		return nil
	})
	if err := has("second")(); err != nil {
		t.Errorf("after a certificate that Envoy refused: %v", err)
	}
	open.mustAsk(t, "GET", "/ok", 200)
	w.replace(t, "third", ellipticKey(t))
	eventually(t, patience, "the certificate after that", has("third"))
	open.mustAsk(t, "GET", "/ok", 200)
	w.waitUntilWell(t)
}

// secretsStaySecret: neither a key nor who would lead to it shows.
func (w *secureWorld) secretsStaySecret(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(w.secrets, "default/proxy/tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Split(string(text), "\n")[1]
	needles := []string{line, base64.StdEncoding.EncodeToString(text)[:64]}
	shows := func(where, text string) {
		for _, n := range needles {
			if strings.Contains(text, n) {
				t.Errorf("the key is in %s", where)
			}
		}
	}
	shows("what is told", w.headgate(t, "observe", "-o", "json", "--last", "1000")+w.try(t, "", "status", "-o", "json").stdout+w.headgate(t, "policy", "get", "-o", "json"))
	if slices.Contains(w.flags, "envoy") {
		shows("xds dump", w.headgate(t, "xds", "dump", "-o", "json")+w.headgate(t, "xds", "dump"))
	}
	_ = filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if text, err := os.ReadFile(path); err == nil {
				shows(path, string(text))
			}
		}
		return nil
	})
}

// secretsFailClosed: without a secret nothing passes, and a flow says why.
func (w *secureWorld) secretsFailClosed(t *testing.T) {
	at, key := w.server.at(4, portEnds), filepath.Join(w.secrets, "default/proxy/tls.key")
	kept, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	open := w.client.mustSecure(t, at, "web.example.com", w.proxy, nil)
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	eventually(t, patience, "nothing passes", func() error {
		if c, err := w.client.secure(at, "web.example.com", w.proxy, nil); err == nil {
			c.Close()
			return errors.New("TLS still ends")
		}
		return nil
	})
	// The one before may have begun while the key was there.
	if c, err := w.client.secure(at, "web.example.com", w.proxy, nil); err == nil {
		c.Close()
		t.Error("TLS ends again, without a key")
	}
	w.awaitFlow(t, "why", []string{"--verdict", "ERROR", "--port", "8442"}, func(f *flowpb.Flow) bool {
		return strings.Contains(f.String(), "there is no tls.key in secret default/proxy")
	})
	if w.backend.bound {
		eventually(t, patience, "status says why", func() error {
			if out := w.try(t, "", "status", "-o", "json").stdout; !strings.Contains(out, "there is no tls.key in secret default/proxy") {
				return errors.New(out)
			}
			return nil
		})
		open.mustEnd(t)
	}
	w.client.mustSecure(t, w.server.at(4, portNames), "www.example.com", w.own, nil).mustAsk(t, "GET", "/ok", 200)
	put(t, key, kept)
	eventually(t, patience, "it passes again", func() error {
		c, err := w.client.secure(at, "web.example.com", w.proxy, nil)
		if err == nil {
			c.Close()
		}
		return err
	})
	// A server of another issuer gets nothing.
	put(t, filepath.Join(w.secrets, "default/servers/ca.crt"), w.proxy.pem)
	eventually(t, patience, "no trust in the server", func() error {
		r, err := w.client.mustSecure(t, at, "web.example.com", w.proxy, nil).ask("GET", "/ok", "")
		if err == nil && r.status < 500 {
			return fmt.Errorf("answered %+v", r)
		}
		return nil
	})
}
