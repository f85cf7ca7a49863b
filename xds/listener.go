package xds

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	httpinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	networkrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/redirect"
)

const loopback4, loopback6 = "127.0.0.1", "::1"

// pair is the sets that apply to a connection, by number. Zero: none.
type pair struct{ egress, ingress redirect.SetNumber }

// name of the pair's listener and of its route configuration.
func (p pair) name() string {
	return fmt.Sprintf("route-%08x-%08x", uint32(p.egress), uint32(p.ingress))
}

// pairNamed reads a name; no pair: it is none.
func pairNamed(name string) pair {
	var p pair
	if _, err := fmt.Sscanf(name, "route-%08x-%08x", &p.egress, &p.ingress); err != nil {
		return pair{}
	}
	return p
}

// listenerOf makes the listener of a pair. What changes is the route configuration of
// the same name; the listener does only when what is not HTTP begins, or ceases, to pass
// unread.
func listenerOf(p pair, port redirect.ProxyPort, raw bool) (*listenerv3.Listener, error) {
	var b builder
	l := b.listener(p, port)
	if raw {
		b.passUnread(l, p, nil)
	}
	return l, b.check(l)
}

func (b *builder) listener(p pair, port redirect.ProxyPort) *listenerv3.Listener {
	return &listenerv3.Listener{
		Name:                p.name(),
		StatPrefix:          p.name(),
		Address:             tcp(loopback4, port),
		AdditionalAddresses: []*listenerv3.AdditionalAddress{{Address: tcp(loopback6, port)}},
		Transparent:         wrapperspb.Bool(true),
		SocketOptions:       []*corev3.SocketOption{mark()},
		TcpKeepalive:        keepalive(),
		ListenerFilters: []*listenerv3.ListenerFilter{
			b.listenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}),
			b.listenerFilter("envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{Mark: redirect.MarkFromProxy}),
		},
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{
			b.filter("envoy.filters.network.rbac", onlyRedirected()),
			b.filter("envoy.filters.network.http_connection_manager", b.connectionManager(p)),
		}}},
	}
}

// sniffTime is how long a client may take to say what it speaks, where that need not be
// HTTP: its server may be to speak first.
const sniffTime = time.Second

// passUnread has the listener carry what is not HTTP as it is.
func (b *builder) passUnread(l *listenerv3.Listener, p pair, plan *tlsPlan) {
	l.ListenerFilters = append(l.ListenerFilters, b.listenerFilter("envoy.filters.listener.http_inspector", &httpinspectorv3.HttpInspector{}))
	l.ListenerFiltersTimeout, l.ContinueOnListenerFiltersTimeout = durationpb.New(sniffTime), true
	l.FilterChains[0].FilterChainMatch = &listenerv3.FilterChainMatch{ApplicationProtocols: []string{"http/1.0", "http/1.1", "h2c"}}
	filters := []*listenerv3.Filter{b.filter("envoy.filters.network.rbac", onlyRedirected())}
	if plan.begun() {
		filters = append(filters, b.filter("envoy.filters.network.set_filter_state", serverName()))
	}
	l.DefaultFilterChain = &listenerv3.FilterChain{Filters: append(filters, b.filter("envoy.filters.network.tcp_proxy", b.unread(p, plan.serverCluster())))}
}

// onlyRedirected closes connections that were made to the port itself: they did
// not come by the gate, and Envoy would dial itself.
func onlyRedirected() *networkrbacv3.RBAC {
	to := func(addr string, bits uint32) *rbacv3.Permission {
		return &rbacv3.Permission{Rule: &rbacv3.Permission_DestinationIp{
			DestinationIp: &corev3.CidrRange{AddressPrefix: addr, PrefixLen: wrapperspb.UInt32(bits)},
		}}
	}
	return &networkrbacv3.RBAC{
		StatPrefix: "direct",
		Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_DENY, Policies: map[string]*rbacv3.Policy{"loopback": {
			Permissions: []*rbacv3.Permission{to("127.0.0.0", 8), to(loopback6, 128)},
			Principals:  []*rbacv3.Principal{{Identifier: &rbacv3.Principal_Any{Any: true}}},
		}}},
	}
}

func tcp(addr string, port redirect.ProxyPort) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: addr, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

// mark is set before the socket is bound, so that the SYN-ACK carries it too.
func mark() *corev3.SocketOption {
	return &corev3.SocketOption{
		Description: "mark of the proxy", Level: unix.SOL_SOCKET, Name: unix.SO_MARK,
		Value: &corev3.SocketOption_IntValue{IntValue: redirect.MarkFromProxy}, State: corev3.SocketOption_STATE_PREBIND,
	}
}

// keepalive finds out about ends that went away without a word.
func keepalive() *corev3.TcpKeepalive {
	return &corev3.TcpKeepalive{KeepaliveTime: wrapperspb.UInt32(60), KeepaliveInterval: wrapperspb.UInt32(60)}
}

// builder packs messages into others and keeps the first error.
type builder struct{ err error }

func (b *builder) pack(m proto.Message) *anypb.Any {
	out := &anypb.Any{}
	// Deterministic: the version of a resource is a hash of its bytes.
	err := anypb.MarshalFrom(out, m, proto.MarshalOptions{Deterministic: true})
	if err != nil && b.err == nil {
		b.err = fmt.Errorf("pack %T for Envoy: %w", m, err)
	}
	return out
}

func (b *builder) filter(name string, m proto.Message) *listenerv3.Filter {
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: b.pack(m)}}
}

func (b *builder) listenerFilter(name string, m proto.Message) *listenerv3.ListenerFilter {
	return &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: b.pack(m)}}
}

// check finds what Envoy would refuse by its schema.
func (b *builder) check(m interface{ ValidateAll() error }) error {
	if b.err != nil {
		return b.err
	}
	if err := m.ValidateAll(); err != nil {
		return fmt.Errorf("make %T for Envoy: %w", m, err)
	}
	return nil
}
