package xds

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/policy"
)

const (
	transportSocket = "envoy.transport_sockets.tls"
	upstreamOptions = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// clientTLS ends the client's TLS.
func (b *builder) clientTLS(e policy.TLSSecrets, protocols []string) *corev3.TransportSocket {
	c := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: versionsOfTLS(), AlpnProtocols: protocols}}
	show(c.CommonTlsContext, e.Certificate, e.PrivateKey)
	if e.ClientCA != (policy.SecretRef{}) {
		trust(c.CommonTlsContext, e.ClientCA)
		c.RequireClientCertificate = wrapperspb.Bool(true)
	}
	return b.overTLS(c)
}

func show(c *tlsv3.CommonTlsContext, certificate, key policy.SecretRef) {
	c.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{{Name: certificateName(certificate, key), SdsConfig: byADS()}}
}

func trust(c *tlsv3.CommonTlsContext, authority policy.SecretRef) {
	c.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
		ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: authorityName(authority), SdsConfig: byADS()},
	}
}

// serverClusterOf is the cluster that leads where the client dialled, by TLS.
func serverClusterOf(plan *tlsPlan) (*clusterv3.Cluster, error) {
	c, err := clusterOf()
	if err != nil {
		return nil, err
	}
	var b builder
	e := plan.ends
	c.Name = plan.serverCluster()
	if plan.chooses() {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{upstreamOptions: b.pack(&upstreamhttpv3.HttpProtocolOptions{
			CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(0)},
			UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_AutoConfig{AutoConfig: &upstreamhttpv3.HttpProtocolOptions_AutoHttpConfig{
				HttpProtocolOptions: b.http1(), Http2ProtocolOptions: http2(),
			}},
		})}
	}
	context := &tlsv3.UpstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{TlsParams: versionsOfTLS()},
		// A session that goes on has no certificate to ask for the name of this connection.
		MaxSessionKeys: wrapperspb.UInt32(0),
	}
	trust(context.CommonTlsContext, e.TrustedCA)
	if e.OwnCertificate != (policy.SecretRef{}) {
		show(context.CommonTlsContext, e.OwnCertificate, e.OwnKey)
	}
	c.TransportSocket = b.overTLS(context)
	return c, b.check(c)
}

func (b *builder) overTLS(m interface {
	types.Resource
	ValidateAll() error
}) *corev3.TransportSocket {
	return &corev3.TransportSocket{Name: transportSocket, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: b.pack(m)}}
}

func versionsOfTLS() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3}
}
