package envoy

import (
	"fmt"
	"net/netip"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// walk visits a resource and all that is packed into it.
type walk struct {
	*reader
	at     manifest.Value
	config *policy.EnvoyConfig
	failed bool
}

func (w *walk) fail(path, format string, args ...any) {
	w.failed = true
	w.at.Fail("%s: %s", strings.TrimPrefix(path, "."), fmt.Sprintf(format, args...))
}

// message checks a message and what is in it.
func (w *walk) message(m protoreflect.Message, path string) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		w.packed(packed, path)
		return
	}
	if advice, ok := forbiddenMessages()[m.Descriptor().FullName()]; ok {
		w.fail(path, "%s may not stand here; %s", m.Descriptor().Name(), advice)
		return
	}
	w.known(m.Interface(), path)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		at := path + "." + f.JSONName()
		if advice, ok := forbiddenFields()[f.FullName()]; ok {
			w.fail(at, "may not stand here; %s", advice)
			return true
		}
		if deprecated(f) { // nobody has looked at what they do
			w.fail(at, "is deprecated in Envoy's API; write what replaces %s there, or delete it", f.FullName())
			return true
		}
		w.field(m, f, v, at)
		return true
	})
}

func deprecated(f protoreflect.FieldDescriptor) bool {
	o, ok := f.Options().(*descriptorpb.FieldOptions)
	return ok && o.GetDeprecated()
}

func (w *walk) field(m protoreflect.Message, f protoreflect.FieldDescriptor, v protoreflect.Value, at string) {
	switch {
	case f.IsMap():
		v.Map().Range(func(k protoreflect.MapKey, x protoreflect.Value) bool {
			w.value(f.MapValue(), x, fmt.Sprintf("%s[%q]", at, k.String()))
			return true
		})
	case f.IsList():
		for i := range v.List().Len() {
			w.value(f, v.List().Get(i), fmt.Sprintf("%s[%d]", at, i))
		}
	default:
		if typeURL, ok := references()[f.FullName()]; ok && v.String() != "" {
			m.Set(f, protoreflect.ValueOfString(w.refer(typeURL, v.String(), at)))
			return
		}
		w.value(f, v, at)
	}
}

func (w *walk) value(f protoreflect.FieldDescriptor, v protoreflect.Value, at string) {
	switch {
	case f.Message() != nil:
		w.message(v.Message(), at)
	case f.Kind() == protoreflect.StringKind:
		w.text(v.String(), at)
	case f.Kind() == protoreflect.BytesKind:
		w.text(string(v.Bytes()), at)
	}
}

// text may be a format that Envoy fills in.
func (w *walk) text(text, at string) {
	for _, operator := range []string{"%ENVIRONMENT", "%FILE_CONTENT"} {
		if strings.Contains(text, operator) {
			w.fail(at, "may not read files or the environment (%s); delete it", operator)
		}
	}
}

// packed checks a message that is packed, which must be of a type that may stand here.
func (w *walk) packed(packed *anypb.Any, path string) {
	m, err := anypb.UnmarshalNew(packed, proto.UnmarshalOptions{Resolver: w.types})
	if err != nil {
		w.fail(path, "%q is not a type that may stand here", packed.GetTypeUrl())
		return
	}
	w.message(m.ProtoReflect(), path)
	if checked, ok := m.(message); ok && !w.failed {
		if err := checked.ValidateAll(); err != nil {
			w.fail(path, "is not valid: %s", plain(err))
		}
	}
	if err := anypb.MarshalFrom(packed, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		w.fail(path, "cannot be encoded: %v", err)
	}
}

// refer gives the name of a resource its whole form. It must be one of this document.
func (w *walk) refer(typeURL, name, at string) string {
	if w.names[typeURL][name] {
		return w.whole(name)
	}
	if typeURL == clusterType && name == OriginalDestination {
		return name
	}
	w.fail(at, "there is no %s %q in this object; add it, or write the name of one that is", lastPart(typeURL), name)
	return name
}

// resource puts in what everybody leaves out, and the resource's own whole name.
func (w *walk) resource(m proto.Message) {
	switch m := m.(type) {
	case *listenerv3.Listener:
		m.Name = w.whole(m.GetName())
		m.Address = placeholder() // the schema asks for one
		if len(m.GetFilterChains()) == 0 {
			w.fail("filterChains", "is missing; write at least one")
		}
	case *clusterv3.Cluster:
		w.cluster(m)
	case *routev3.RouteConfiguration:
		m.Name = w.whole(m.GetName())
	case *endpointv3.ClusterLoadAssignment:
		m.ClusterName = w.whole(m.GetClusterName())
	}
}

func placeholder() *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: "127.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 0},
	}}}
}

func (w *walk) cluster(m *clusterv3.Cluster) {
	written := m.GetName()
	m.Name = w.whole(written)
	switch m.GetType() {
	case clusterv3.Cluster_STATIC, clusterv3.Cluster_ORIGINAL_DST:
	case clusterv3.Cluster_EDS:
		if m.EdsClusterConfig == nil {
			m.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{}
		}
		if m.GetEdsClusterConfig().GetEdsConfig() == nil {
			m.EdsClusterConfig.EdsConfig = byADS()
		}
		if m.GetEdsClusterConfig().GetServiceName() == "" {
			m.EdsClusterConfig.ServiceName = w.refer(endpointType, written, "edsClusterConfig.serviceName")
		}
	default:
		w.fail("type", "%s may not stand here, as names would be asked of others; write STATIC, EDS or ORIGINAL_DST", m.GetType())
	}
}

func byADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// known checks messages that may stand here if they say the right thing.
func (w *walk) known(m proto.Message, path string) {
	switch m := m.(type) {
	case *corev3.ConfigSource:
		if m.GetAds() == nil {
			w.fail(path, "may only be {ads: {}}: all comes from the agent")
		}
		m.ResourceApiVersion = corev3.ApiVersion_V3
	case *hcmv3.Rds:
		if m.GetConfigSource() == nil {
			m.ConfigSource = byADS()
		}
	case *corev3.SocketAddress:
		w.address(m, path)
	case *clusterv3.Cluster_OriginalDstLbConfig:
		if m.GetUseHttpHeader() || m.GetHttpHeaderName() != "" || m.GetMetadataKey() != nil {
			w.fail(path, "would let clients choose where to go; delete it")
		}
	}
}

// address takes addresses of others than this machine's own services.
func (w *walk) address(m *corev3.SocketAddress, path string) {
	ip, err := netip.ParseAddr(m.GetAddress())
	switch {
	case err != nil:
		w.fail(path, "%q is not an IP address; write one", m.GetAddress())
	case ip.Unmap().IsLoopback() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLinkLocalUnicast() || ip.Zone() != "" || ip.Is4In6():
		w.fail(path, "%s is this machine itself, or nobody's; write the address of a workload or of another machine", ip)
	case m.GetNamedPort() != "" || m.GetPortValue() == 0 || m.GetPortValue() > 65535:
		w.fail(path, "has no port; write portValue")
	case m.GetProtocol() != corev3.SocketAddress_TCP:
		w.fail(path, "is not for TCP; delete protocol")
	default:
		w.config.Addresses = append(w.config.Addresses, ip)
	}
}
