package integration

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// portRefused is of a server about which one of the rules is none to Envoy.
const portRefused = 8450

// refusedBesideTLS: a rule that Envoy refuses, the first time that rules of its port are
// served, does not take with it that TLS ends there and that names are asked.
func (w *secureWorld) refusedBesideTLS(t *testing.T) {
	certificate, key := w.own.issue(t, ellipticKey(t), "www.example.com", "web.example.com")
	w.server.serveSecure(t, portRefused, certificate, key, nil)
	w.apply(t,
		allow("rest2", "client", "toEndpoints: [{matchLabels: {app: server}}]", portRefused),
		secureRules("refused", portRefused, endsBoth+"      rules: {http: [{path: \"/ok.*\"}, {path: \""+`/\\p{Letter}+`+"\"}]}\n"+serverNames("web.example.com")))
	eachVersion(t, func(t *testing.T, v ipVersion) {
		at := w.server.at(v, portRefused)
		c := w.client.mustOpen(t, at)
		if r, err := c.ask("GET", "/ok", ""); err == nil {
			t.Errorf("plain text where TLS ends is answered %+v", r)
		}
		if _, err := w.client.secure(at, "www.example.com", w.proxy, nil); !refusedByAlert(err) {
			t.Errorf("a name that is denied: %v, want an alert", err)
		}
		s := w.client.mustSecure(t, at, "web.example.com", w.proxy, nil)
		s.mustAsk(t, "GET", "/ok", 200)
		s.mustAsk(t, "GET", "/abc", 403)
	})
}

// silenceIsNoHello: of who connects and ends, without a word, no flow says that it was let
// through.
func (w *secureWorld) silenceIsNoHello(t *testing.T) {
	for _, port := range []int{portNames, portEnds} {
		for _, waits := range []bool{false, true} {
			c, err := w.client.dial(w.server.at(4, port), patience)
			if err != nil {
				t.Fatal(err)
			}
			from := netip.MustParseAddrPort(c.LocalAddr().String()).Port()
			if waits {
				_ = c.SetReadDeadline(time.Now().Add(6 * patience))
				if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
					t.Errorf("a connection to port %d that says nothing: %v", port, err)
				}
			}
			c.Close()
			w.awaitFlow(t, "silence", []string{"--type", "l7", "--verdict", "ERROR", "--port", fmt.Sprint(port)}, func(f *flowpb.Flow) bool {
				return f.GetL4().GetTCP().GetSourcePort() == uint32(from)
			})
			for _, f := range w.flows(t, "--type", "l7", "--verdict", "FORWARDED", "--port", fmt.Sprint(port)) {
				if f.GetL4().GetTCP().GetSourcePort() == uint32(from) {
					t.Errorf("silence at port %d is told of as %s", port, f.GetSummary()) //nolint:staticcheck // what is shown
				}
			}
		}
	}
}
