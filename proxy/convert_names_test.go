package proxy

import (
	"maps"
	"net/netip"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	proxyv1 "github.com/headgate/headgate/api/proxy/v1"
	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/decode"
	"github.com/headgate/headgate/redirect"
)

const rulesAboutNames = `
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p, annotations: {headgate.dev/deny-response: "404 gone"}}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchName: a.example.com}, {matchPattern: "*.example.org"}]
    toPorts:
    - ports: [{port: "80", protocol: TCP}, {port: "8000", endPort: 8010, protocol: TCP}]
      rules: {http: [{method: GET, path: "/x.*", headers: ["a: b"]}]}
    - ports: [{port: "443", protocol: TCP}]
      serverNames: [a.example.com, "*.example.org"]
    - ports: [{port: "8443", protocol: TCP}]
      terminatingTLS: {secret: {name: s}}
      originatingTLS: {secret: {name: s}}
      rules: {http: [{path: "/y"}]}
  - toCIDRSet: [{cidr: 192.0.2.0/24, except: [192.0.2.128/25]}]
    toPorts: [{ports: [{port: "443", protocol: ANY}]}]
  - toEntities: [world, host]
    icmps: [{fields: [{type: 8, family: IPv4}]}]
  - toEndpoints: [{matchLabels: {app: b}}]
  egressDeny:
  - toCIDR: [198.51.100.0/24]
`

// Rules about names go over the socket and come out the same: their ids say so.
func TestNamesGoOver(t *testing.T) {
	ps, err := decode.Decode("p.yaml", []byte(rulesAboutNames))
	if err != nil {
		t.Fatal(err)
	}
	labels, err := policy.EndpointLabels("default", "", "", nil, map[string]string{"app": "a"})
	if err != nil {
		t.Fatal(err)
	}
	table := policy.NewNameTable(policy.Subject{Labels: labels}, ps[0].Rules, policy.Prefixes(ps[0].Rules), true)
	n := &redirect.Names{
		Tables: map[uint32]*policy.NameTable{7: table}, Rules: map[policy.Ref]uint32{}, Sets: map[policy.SetID]redirect.SetNumber{{1}: 9},
		Prefixes:  policy.Prefixes(ps[0].Rules),
		Endpoints: []redirect.NamedEndpoint{{ID: 3, Name: "default/a", Addrs: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Table: 7}},
		Limits:    redirect.NameLimits{MinTTL: time.Second, Grace: time.Minute, PerName: 5, PerEndpoint: 6},
	}
	for i, ref := range table.Refs() {
		n.Rules[ref] = uint32(i)
	}
	wire, err := proto.Marshal(namesToProto(n))
	if err != nil {
		t.Fatal(err)
	}
	var p proxyv1.NameRules
	if err := proto.Unmarshal(wire, &p); err != nil {
		t.Fatal(err)
	}
	got, err := namesFromProto(&p)
	if err != nil {
		t.Fatal(err)
	}
	if got.Tables[7] == nil || got.Tables[7].ID != table.ID || !got.Tables[7].Audit || !maps.Equal(got.Rules, n.Rules) || !maps.Equal(got.Sets, n.Sets) ||
		!reflect.DeepEqual(got.Prefixes, n.Prefixes) || !reflect.DeepEqual(got.Endpoints, n.Endpoints) || got.Limits != n.Limits {
		t.Errorf("%+v\nwant %+v", got, n)
	}
	for _, name := range []string{"a.example.com", "b.example.org", "x.net"} {
		var picked []policy.FQDN
		for _, f := range table.Selectors() {
			if f.MatchesName(name) {
				picked = append(picked, f)
			}
		}
		a, setsA := table.Resolve(n.Prefixes[0], picked)
		b, setsB := got.Tables[7].Resolve(n.Prefixes[0], picked)
		if !reflect.DeepEqual(a.Entries, b.Entries) || len(setsA) != len(setsB) {
			t.Errorf("%s is judged otherwise on the other side", name)
		}
	}

	// Rules that are not those of the id are none.
	var rule *proxyv1.NameRule
	for _, r := range p.Tables[0].Rules {
		if len(r.Ports) > 0 && len(r.Ports[0].L7) > 0 {
			rule = r
		}
	}
	rule.AnyPeer = true
	if _, err := namesFromProto(&p); err == nil {
		t.Error("another rule is taken under the id of the first")
	}
	rule.AnyPeer, rule.Ports[0].L7 = false, nil
	if _, err := namesFromProto(&p); err == nil {
		t.Error("a rule without what it asks of requests is taken under the id of one with it")
	}
}

// A port whose connections a listener of Envoy gets goes over as such: without, the proxy
// would let past it what an endpoint knows by a name.
func TestListenersOfNamesGoOver(t *testing.T) {
	ps, err := decode.Decode("p.yaml", []byte(`
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: p}
spec:
  endpointSelector: {}
  egress:
  - toFQDNs: [{matchName: a.example.com}]
    toPorts:
    - ports: [{port: "9000", protocol: TCP}]
      listener: {name: l, priority: 7, envoyConfig: {kind: CiliumClusterwideEnvoyConfig, name: c}}
`))
	must(t, err)
	labels, err := policy.EndpointLabels("default", "", "", nil, nil)
	must(t, err)
	table := policy.NewNameTable(policy.Subject{Labels: labels}, ps[0].Rules, nil, false)
	got, err := namesFromProto(namesToProto(&redirect.Names{Tables: map[uint32]*policy.NameTable{7: table}}))
	must(t, err)
	if got.Tables[7] == nil || got.Tables[7].ID != table.ID {
		t.Fatalf("%+v", got)
	}
	world := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	want, _ := table.Resolve(world, table.Selectors())
	is, _ := got.Tables[7].Resolve(world, table.Selectors())
	at := policy.Key{Direction: policy.Egress, Proto: policy.ProtoTCP, Port: 9000, PrefixBits: 16}
	if e := want.Entries[at]; e.Verdict != policy.Redirect || is.Entries[at] != e {
		t.Errorf("%+v on this side, %+v on the other", e, is.Entries[at])
	}
	other := *ps[0].Rules[0].Ports[0].Listener
	other.Name = "other"
	ps[0].Rules[0].Ports[0].Listener = &other
	if policy.NewNameTable(policy.Subject{Labels: labels}, ps[0].Rules, nil, false).ID == table.ID {
		t.Error("another listener is the same table")
	}
}
