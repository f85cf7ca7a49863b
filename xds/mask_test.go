package xds

import (
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
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
	if c.GetAltStatName() != "before hunter2.after" {
		t.Error("what is served was changed")
	}
}
