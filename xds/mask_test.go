package xds

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/redirect"
)

// TestSecretsAreMasked: neither what Envoy's schema calls sensitive is shown, packed as it
// may be, nor the value of a secret, wherever it stands.
func TestSecretsAreMasked(t *testing.T) {
	var b builder
	text := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	c := &clusterv3.Cluster{
		Name: "k", AltStatName: "before hunter2.after",
		TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.pack(&tlsv3.UpstreamTlsContext{
			Sni: "shown.example",
			CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{{
				CertificateChain: text("public"), PrivateKey: text("PRIVATE"), Password: text("PASSWORD"),
			}}},
		})}},
	}
	out, err := renderMasked(c, []string{"hunter2.", ""})
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"PRIVATE", "PASSWORD", "hunter2"} {
		if strings.Contains(string(out), secret) {
			t.Errorf("%s is shown: %s", secret, out)
		}
	}
	for _, shown := range []string{"public", "shown.example", masked, `"k"`} {
		if !strings.Contains(string(out), shown) {
			t.Errorf("%s is not shown: %s", shown, out)
		}
	}
	if got := maskText(`in "a%25\\.b" and a%\\.b`, []string{"a%.b"}); got != `in "`+masked+`" and `+masked {
		t.Errorf("of a refusal is shown %s", got)
	}
	if c.GetAltStatName() != "before hunter2.after" {
		t.Error("what is served was changed")
	}
}

// TestSecretsOfBeforeAreMasked: while a change is not in force, resources hold the secrets of
// before, and perhaps the new ones.
func TestSecretsOfBeforeAreMasked(t *testing.T) {
	of := func(value string) redirect.Snapshot {
		return redirect.Snapshot{Secrets: map[policy.SecretRef]string{{Name: "s"}: value}}
	}
	b := &Backend{}
	b.noteSecrets(of("old"), false)
	b.noteSecrets(of("old"), true)
	b.noteSecrets(of("new"), false)
	if got := b.secretValues(); !slices.Equal(got, []string{"new", "old"}) {
		t.Errorf("before the change is in force %q are masked", got)
	}
	b.noteSecrets(of("new"), true)
	if got := b.secretValues(); !slices.Equal(got, []string{"new"}) {
		t.Errorf("afterwards %q are masked", got)
	}
}

// TestEnvoysWordsAreMasked: what Envoy says is without secrets wherever it goes.
func TestEnvoysWordsAreMasked(t *testing.T) {
	b, _, _ := served(t, func(r *discoveryv3.DeltaDiscoveryResponse) string {
		if strings.Contains(r.String(), "BAD") {
			return "cannot read hunter2"
		}
		return ""
	})
	s := snapshot(2, httpSet(2, "BAD"))
	s.Secrets = map[policy.SecretRef]string{certificateRef: "hunter2"}
	err := b.Enforce(patient(t), s)
	for where, text := range map[string]string{"the error": failure(err), "status": b.Status().Detail, "what was refused last": b.store.status().Detail} {
		if where != "what was refused last" && !strings.Contains(text, "cannot read "+masked) || strings.Contains(text, "hunter2") {
			t.Errorf("%s: %q", where, text)
		}
	}
}
