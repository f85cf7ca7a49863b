package envoy

import (
	"encoding/json"
	"fmt"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// APIVersion of the kinds that are read.
const APIVersion = "cilium.io/v2"

// OriginalDestination is the cluster that leads where the client dialled. It is always
// there.
const OriginalDestination = "original-destination"

// maxResources bounds one document.
const maxResources = 64

// Kinds says how the documents are read.
func Kinds() []manifest.Kind {
	return []manifest.Kind{
		{Name: policy.KindEnvoyConfig, APIVersions: []string{APIVersion}, Fields: []string{"spec", "status"}, Read: read},
		{Name: policy.KindClusterwideEnvoyConfig, APIVersions: []string{APIVersion}, Clusterwide: true, Fields: []string{"spec", "status"}, Read: read},
	}
}

// refused is what Cilium knows in such a document and this does not read.
func refused() map[string]string {
	return map[string]string{
		"services":        "connections get to a listener by an egress policy that refers to it",
		"backendServices": "write a ClusterLoadAssignment, or a cluster with its endpoints",
		"nodeSelector":    "delete it; the object is for the node that it is applied to",
	}
}

// reader reads one document.
type reader struct {
	policy *policy.Policy
	types  *resolver
	names  map[string]map[string]bool // by type URL: what is there, by the name it is written with
}

func read(d *manifest.Document, fields map[string]manifest.Value, p *policy.Policy) {
	spec, ok := fields["spec"]
	if !ok {
		d.Fail("spec", "is missing; write spec: {resources: [...]}")
		return
	}
	list, ok := spec.Object([]string{"resources"}, refused())["resources"]
	if !ok {
		spec.Fail("resources is missing; write a list of them")
		return
	}
	items := list.List()
	if len(items) == 0 || len(items) > maxResources {
		list.Fail("has %d resources; write 1 to %d", len(items), maxResources)
		return
	}
	r := &reader{policy: p, types: allowed(), names: map[string]map[string]bool{}}
	found := make([]resource, 0, len(items))
	for _, item := range items {
		if x, ok := r.parse(item); ok {
			found = append(found, x)
		}
	}
	if d.Failed() > 0 {
		return
	}
	config := &policy.EnvoyConfig{}
	for _, x := range found {
		if out, ok := r.settle(x, config); ok {
			config.Resources = append(config.Resources, out)
		}
	}
	p.Envoy = config
}

// resource is one of the list, as it is written.
type resource struct {
	at      manifest.Value
	typeURL string
	name    string
	message message
}

type message interface {
	proto.Message
	ValidateAll() error
}

const typePrefix = "type.googleapis.com/"

// parse reads a resource by the schema of its type.
func (r *reader) parse(item manifest.Value) (resource, bool) {
	x := resource{at: item}
	text, ok := item.JSON()
	if !ok {
		return x, false
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		item.Fail("is %s; write a mapping with @type", item.Describe())
		return x, false
	}
	if json.Unmarshal(fields["@type"], &x.typeURL) != nil || x.typeURL == "" {
		item.Fail("@type is missing; write one of %s", strings.Join(topTypes(), ", "))
		return x, false
	}
	delete(fields, "@type")
	switch x.typeURL {
	case listenerType:
		x.message = &listenerv3.Listener{}
		delete(fields, "address") // the node's to say; and what stands there may be anything
	case clusterType:
		x.message = &clusterv3.Cluster{}
	case routeType:
		x.message = &routev3.RouteConfiguration{}
	case endpointType:
		x.message = &endpointv3.ClusterLoadAssignment{}
	default:
		item.Fail("@type %q is not one that may stand here; write one of %s", x.typeURL, strings.Join(topTypes(), ", "))
		return x, false
	}
	text, _ = json.Marshal(fields)
	if err := (protojson.UnmarshalOptions{Resolver: r.types}).Unmarshal(text, x.message); err != nil {
		item.Fail("is not a valid %s: %s", lastPart(x.typeURL), plain(err))
		return x, false
	}
	x.name = nameOf(x.message)
	switch {
	case x.name == "":
		item.Fail("has no name; write one")
	case strings.Contains(x.name, "/"):
		item.Fail("name %q has a slash, which stands between the parts of a whole name; write another", x.name)
	case r.names[x.typeURL][x.name]:
		item.Fail("there is another %s with the name %q; write another, or delete one of them", lastPart(x.typeURL), x.name)
	default:
		if r.names[x.typeURL] == nil {
			r.names[x.typeURL] = map[string]bool{}
		}
		r.names[x.typeURL][x.name] = true
		return x, true
	}
	return x, false
}

// settle checks a resource, gives all names in it their whole form, and notes in config
// where it leads.
func (r *reader) settle(x resource, config *policy.EnvoyConfig) (policy.EnvoyResource, bool) {
	w := &walk{reader: r, at: x.at, config: config}
	w.message(x.message.ProtoReflect(), "")
	w.resource(x.message)
	if w.failed {
		return policy.EnvoyResource{}, false
	}
	if err := x.message.ValidateAll(); err != nil {
		x.at.Fail("is not a valid %s: %s", lastPart(x.typeURL), plain(err))
		return policy.EnvoyResource{}, false
	}
	value, err := proto.MarshalOptions{Deterministic: true}.Marshal(x.message)
	if err != nil {
		x.at.Fail("cannot be encoded: %v", err)
		return policy.EnvoyResource{}, false
	}
	return policy.EnvoyResource{Type: x.typeURL, Name: r.whole(x.name), Value: value}, true
}

func (r *reader) whole(name string) string {
	return policy.ResourceName(r.policy.Namespace, r.policy.Name, name)
}

func nameOf(m proto.Message) string {
	switch m := m.(type) {
	case *listenerv3.Listener:
		return m.GetName()
	case *clusterv3.Cluster:
		return m.GetName()
	case *routev3.RouteConfiguration:
		return m.GetName()
	case *endpointv3.ClusterLoadAssignment:
		return m.GetClusterName()
	}
	return ""
}

func topTypes() []string {
	return []string{
		listenerType, clusterType,
		routeType, endpointType,
	}
}

func lastPart(s string) string { return s[strings.LastIndexByte(s, '.')+1:] }

// plain is an error of the protobuf library in the spaces that everybody writes: it
// puts others in at random.
func plain(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(fmt.Sprint(err), "\u00a0", " ")), " ")
}
