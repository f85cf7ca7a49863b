package xds

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tracingv3 "github.com/envoyproxy/go-control-plane/envoy/type/tracing/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/redirect"
)

// directionTag tells of what a request was judged as, where no filter of ours says so.
const directionTag = "headgate.direction"

// customListener makes a listener of a policy one of a route: at a port of ours,
// transparent and marked; with what it leads to marked such that the gate judges it; with
// our access log. It says which route configurations it asks for.
func customListener(p pair, port redirect.ProxyPort, name string, l *listenerv3.Listener) (*listenerv3.Listener, []string, error) {
	var b builder
	l.Name, l.StatPrefix = p.name(), name
	l.Address = tcp(loopback4, port)
	l.AdditionalAddresses = []*listenerv3.AdditionalAddress{{Address: tcp(loopback6, port)}}
	l.Transparent, l.Freebind = wrapperspb.Bool(true), nil
	l.SocketOptions, l.TcpKeepalive = []*corev3.SocketOption{mark()}, keepalive()
	l.ListenerFilters = append([]*listenerv3.ListenerFilter{
		b.listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}),
		b.listenerFilter("envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{Mark: redirect.MarkFromProxy | redirect.MarkElsewhere}),
	}, l.ListenerFilters...)
	chains := l.GetFilterChains()
	if c := l.GetDefaultFilterChain(); c != nil {
		chains = append(chains, c)
	}
	var routes []string
	for _, c := range chains {
		for _, f := range c.GetFilters() {
			if route := b.instrument(p, name, f); route != "" {
				routes = append(routes, route)
			}
		}
		c.Filters = append([]*listenerv3.Filter{b.filter("envoy.filters.network.rbac", onlyRedirected())}, c.Filters...)
	}
	return l, routes, b.check(l)
}

// instrument adds our access log to a filter that reads requests, and says which route
// configuration it asks for.
func (b *builder) instrument(p pair, name string, f *listenerv3.Filter) (route string) {
	m := &hcmv3.HttpConnectionManager{}
	if !f.GetTypedConfig().MessageIs(m) {
		return ""
	}
	if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
		b.err = err
		return ""
	}
	m.StatPrefix = name
	m.AccessLog = b.accessLogOf(p)
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: b.pack(m)}
	return m.GetRds().GetRouteConfigName()
}

// tagsOf mark what a listener of a policy logs.
func tagsOf(p pair) []*tracingv3.CustomTag {
	if !p.custom() {
		return nil
	}
	return []*tracingv3.CustomTag{{
		Tag: directionTag, Type: &tracingv3.CustomTag_Literal_{Literal: &tracingv3.CustomTag_Literal{Value: "egress"}},
	}}
}
