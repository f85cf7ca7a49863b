package xds

import (
	"time"

	xdsmatcher "github.com/cncf/xds/go/xds/type/matcher/v3"
	accesslogconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	grpclogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/grpc/v3"
	setstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	directresponsev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/direct_response/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	networkstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/headgate/headgate/redirect"
)

// Filter chains of a listener that looks at TLS.
const (
	chainCarried  = "carried"
	chainCarried2 = "carried2" // of clients that take HTTP/2, by TLS on both sides
	chainRefused  = "refused"  // TLS, by a name that is not allowed
	chainClosed   = "closed"   // what else came
	chainUnread   = "unread"   // what is not TLS, where nobody minds
	chainIdle     = "idle"     // nothing
)

// helloTime is how long a client may take to say hello, and to end its handshake.
const helloTime = 10 * time.Second

// carriedInterval is how often Envoy tells of a connection that it carries unread, so that
// an agent that comes later knows of it.
const carriedInterval = 5 * time.Second

// accessDenied is the alert (RFC 8446, section 6.2) to a client whose server name is denied.
var accessDenied = []byte{21, 3, 3, 0, 2, 2, 49}

// tlsListener makes the listener of a pair whose connections are, or become, TLS.
func (b *builder) tlsListener(p pair, port redirect.ProxyPort, plan *tlsPlan) *listenerv3.Listener {
	l := b.listener(p, port)
	l.AccessLog = b.chainLogOf(p, plan)
	if plan.shut() {
		b.shut(l, plan)
		return l
	}
	carried := b.carrying(p, plan, chainCarried)
	if !plan.greeted() {
		l.FilterChains = []*listenerv3.FilterChain{carried}
		if plan.raw && plan.http {
			b.passUnread(l, p, plan)
			l.DefaultFilterChain.Name = chainUnread
		}
		return l
	}
	l.ListenerFilters = append(l.ListenerFilters, b.listenerFilter("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}))
	l.ListenerFiltersTimeout = durationpb.New(helloTime)
	other := b.answering(chainClosed, nil)
	if plan.raw {
		l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = durationpb.New(sniffTime), true
		other = &listenerv3.FilterChain{Name: chainUnread, Filters: []*listenerv3.Filter{
			b.filter("envoy.filters.network.rbac", onlyRedirected()), b.filter("envoy.filters.network.tcp_proxy", b.unread(p, clusterName)),
		}}
	}
	l.FilterChains = []*listenerv3.FilterChain{carried, other}
	if plan.chooses() {
		l.FilterChains = append(l.FilterChains, b.carrying(p, plan, chainCarried2))
	}
	if plan.named() {
		l.FilterChains = append(l.FilterChains, b.answering(chainRefused, accessDenied))
	}
	l.FilterChainMatcher = b.sort(plan, other.GetName())
	return l
}

// shut has a listener close what comes. It goes on to ask for its routes, by a filter chain
// to which nothing comes: whoever changes them waits for Envoy to have them.
func (b *builder) shut(l *listenerv3.Listener, plan *tlsPlan) {
	l.FilterChains[0].Name = chainIdle
	if !plan.http {
		l.FilterChains = nil
	}
	l.FilterChains = append(l.FilterChains, b.answering(chainClosed, nil))
	l.FilterChainMatcher = &xdsmatcher.Matcher{OnNoMatch: b.goesTo(chainClosed)}
}

// protocols are what a client is offered, by ALPN. Where the server speaks plain text
// HTTP/1.1 comes first, which every server knows. Where it speaks TLS too it is asked for
// what the client took, or for HTTP/1.1 if it does not know that.
func (t *tlsPlan) protocols(chain string) []string {
	switch {
	case !t.http:
		return nil
	case chain == chainCarried2:
		return []string{http2Name, http1Name}
	case t.begun():
		return []string{http1Name}
	}
	return []string{http1Name, http2Name}
}

const http1Name, http2Name = "http/1.1", "h2"

// carrying is the chain of what is allowed.
func (b *builder) carrying(p pair, plan *tlsPlan, name string) *listenerv3.FilterChain {
	c := &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{b.filter("envoy.filters.network.rbac", onlyRedirected())}}
	if plan.begun() {
		s := serverName()
		if plan.chooses() && name == chainCarried {
			s.OnNewConnection = append(s.OnNewConnection, state("envoy.network.application_protocols", http1Name))
		}
		c.Filters = append(c.Filters, b.filter("envoy.filters.network.set_filter_state", s))
	}
	if plan.http {
		m := b.connectionManager(p)
		if plan.ended() {
			// What is asked is the same for all connections of a route: see routesOf.
			m.HttpFilters = append([]*hcmv3.HttpFilter{b.httpFilter(namesFilter, &httprbacv3.RBAC{})}, m.HttpFilters...)
		}
		c.Filters = append(c.Filters, b.filter("envoy.filters.network.http_connection_manager", m))
	} else {
		carry := b.unread(p, plan.serverCluster())
		carry.AccessLog = b.carriedLogOf(p)
		carry.AccessLogOptions = &tcpproxyv3.TcpProxy_TcpAccessLogOptions{
			FlushAccessLogOnConnected: true, AccessLogFlushInterval: durationpb.New(carriedInterval),
		}
		c.Filters = append(c.Filters, b.filter("envoy.filters.network.tcp_proxy", carry))
	}
	if plan.ended() {
		c.TransportSocket = b.clientTLS(plan.ends, plan.protocols(name))
		c.TransportSocketConnectTimeout = durationpb.New(helloTime)
	}
	return c
}

// unread carries what comes as it is.
func (b *builder) unread(p pair, cluster string) *tcpproxyv3.TcpProxy {
	return &tcpproxyv3.TcpProxy{
		StatPrefix: p.name(), ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		IdleTimeout: durationpb.New(0), AccessLog: b.unreadLogOf(p),
	}
}

// answering is a chain that closes connections, with a last word.
func (b *builder) answering(name string, word []byte) *listenerv3.FilterChain {
	c := &directresponsev3.Config{}
	if len(word) > 0 {
		c.Response = &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: word}}
	}
	return &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{b.filter("envoy.filters.network.direct_response", c)}}
}

// serverName has a server be asked by the name that its client gave, or else the address
// that it dialled, and its certificate be for that.
func serverName() *networkstatev3.Config {
	const names, asked = "envoy.network.upstream_subject_alt_names", "%REQUESTED_SERVER_NAME%"
	return &networkstatev3.Config{OnNewConnection: []*setstatev3.FilterStateValue{
		state(names, "%DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT%"),
		state(names, asked),
		state("envoy.network.upstream_server_name", asked),
	}}
}

// state is what a connection to the server is made by.
func state(key, format string) *setstatev3.FilterStateValue {
	return &setstatev3.FilterStateValue{
		Key: &setstatev3.FilterStateValue_ObjectKey{ObjectKey: key},
		Value: &setstatev3.FilterStateValue_FormatString{FormatString: &corev3.SubstitutionFormatString{
			Format:          &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: format}}},
			OmitEmptyValues: true,
		}},
		SkipIfEmpty: true,
	}
}

// namesFilter asks each request for the server name that its connection began with.
const (
	namesFilter    = "headgate.names"
	namesStatistic = "names_"
)

// askNames is what the filter does: names of either side that are not allowed are denied.
func (b *builder) askNames(egress, ingress *program) *anypb.Any {
	deny := &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{}}
	for direction, p := range map[string]*program{egressWord: egress, ingressWord: ingress} {
		if p != nil && p.names != nil {
			deny.Policies[direction] = policyOf(not(p.names.permission()))
		}
	}
	if len(deny.Policies) == 0 {
		return b.rules(ruled{}, namesStatistic)
	}
	return b.rules(ruled{enforced: deny}, namesStatistic)
}

// Tags of what is logged: by which filter chain it went, why nothing passes there, that it
// is carried, and that it passes unread.
const (
	chainTag   = "headgate.chain"
	brokenTag  = "headgate.broken"
	carriedTag = "headgate.carried"
	passedTag  = "headgate.passed"
)

// chainLogOf makes Envoy report connections of a listener, when they are over.
func (b *builder) chainLogOf(p pair, plan *tlsPlan) []*accesslogconfigv3.AccessLog {
	tags := []*tracingv3.CustomTag{{Tag: chainTag, Type: &tracingv3.CustomTag_Value{Value: "%FILTER_CHAIN_NAME%"}}}
	if plan.shut() {
		tags = append(tags, literal(brokenTag, "end TLS: "+plan.broken))
	}
	return b.connectionLog(p, tags...)
}

// carriedLogOf makes Envoy report connections that are carried.
func (b *builder) carriedLogOf(p pair) []*accesslogconfigv3.AccessLog {
	return b.connectionLog(p, literal(carriedTag, "yes"))
}

func literal(tag, value string) *tracingv3.CustomTag {
	return &tracingv3.CustomTag{Tag: tag, Type: &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: value}}}
}

func (b *builder) connectionLog(p pair, tags ...*tracingv3.CustomTag) []*accesslogconfigv3.AccessLog {
	c := commonLog(p)
	c.CustomTags = append(c.CustomTags, tags...)
	return []*accesslogconfigv3.AccessLog{{
		Name:       "envoy.access_loggers.tcp_grpc",
		ConfigType: &accesslogconfigv3.AccessLog_TypedConfig{TypedConfig: b.pack(&grpclogv3.TcpGrpcAccessLogConfig{CommonConfig: c})},
	}}
}
