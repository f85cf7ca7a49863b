package integration

import "testing"

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
