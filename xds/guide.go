package xds

import (
	"errors"
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/headgate/headgate/redirect"
)

var _ redirect.Guide = (*Backend)(nil)

// Guide implements redirect.Guide: clients that speak xDS themselves, such as gRPC's, are
// told what is behind services. A service is called name.namespace, or with a port
// name.namespace:port; without one it is the first. Where they dial is judged as ever.
func (b *Backend) Guide(services []redirect.LookedUp) error {
	update := map[string]map[string]types.Resource{}
	keep := map[resourceKey]bool{}
	add := func(typeURL, name string, r types.Resource) {
		if update[typeURL] == nil {
			update[typeURL] = map[string]types.Resource{}
		}
		update[typeURL][name] = r
		keep[resourceKey{typeURL, name}] = true
	}
	whole := map[string]bool{}
	for i := range services {
		s := &services[i]
		short := s.Name + "." + s.Namespace
		name := fmt.Sprintf("%s:%d", short, s.Port)
		listeners := []string{name}
		if !whole[short] {
			whole[short] = true
			listeners = append(listeners, short)
		}
		for _, l := range listeners {
			r, err := apiListener(l, name)
			if err != nil {
				return err
			}
			add(resource.ListenerType, l, r)
		}
		add(resource.RouteType, name, routesTo(name))
		add(resource.ClusterType, name, endpointsCluster(name))
		add(resource.EndpointType, name, endpointsOf(name, s))
	}
	b.statusMu.Lock()
	gone := map[string][]string{}
	for key := range b.guided {
		if !keep[key] {
			gone[key.typeURL] = append(gone[key.typeURL], key.name)
		}
	}
	b.guided = keep
	b.statusMu.Unlock()
	var errs error
	for _, typeURL := range []string{resource.EndpointType, resource.ClusterType, resource.RouteType, resource.ListenerType} {
		errs = errors.Join(errs, b.services.put(typeURL, update[typeURL], gone[typeURL]...))
	}
	return errs
}

// byADS: all comes by the stream that the agent answers.
func byADS() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

// apiListener is what a client finds by the name that it dials.
func apiListener(name, routes string) (*listenerv3.Listener, error) {
	var b builder
	l := &listenerv3.Listener{Name: name, ApiListener: &listenerv3.ApiListener{ApiListener: b.pack(&hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: routes, ConfigSource: byADS()}},
		HttpFilters:    []*hcmv3.HttpFilter{b.httpFilter("router", &routerv3.Router{})},
	})}}
	return l, b.check(l)
}

func routesTo(cluster string) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: cluster, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: ""}},
			Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
		}},
	}}}
}

func endpointsCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name:                 name,
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig:     &clusterv3.Cluster_EdsClusterConfig{EdsConfig: byADS(), ServiceName: name},
		ConnectTimeout:       durationpb.New(5 * time.Second),
		LbPolicy:             clusterv3.Cluster_ROUND_ROBIN,
	}
}

// endpointsOf are all of one place and one weight.
func endpointsOf(name string, s *redirect.LookedUp) *endpointv3.ClusterLoadAssignment {
	here := &endpointv3.LocalityLbEndpoints{Locality: &corev3.Locality{Zone: "node"}, LoadBalancingWeight: wrapperspb.UInt32(1)}
	for _, at := range s.Backends {
		here.LbEndpoints = append(here.LbEndpoints, &endpointv3.LbEndpoint{
			HealthStatus: corev3.HealthStatus_HEALTHY,
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{
				Address: tcp(at.Addr().String(), redirect.ProxyPort(at.Port())),
			}},
		})
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{here}}
}
