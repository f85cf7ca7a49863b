package oracle

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"sync"

	"github.com/cilium/cilium/pkg/endpoint/regeneration"
	"github.com/cilium/cilium/pkg/identity"
	"github.com/cilium/cilium/pkg/k8s"
	ciliumv2 "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/v2"
	networkingv1 "github.com/cilium/cilium/pkg/k8s/slim/k8s/api/networking/v1"
	"github.com/cilium/cilium/pkg/labels"
	"github.com/cilium/cilium/pkg/policy"
	"github.com/cilium/cilium/pkg/policy/api"
	"github.com/cilium/cilium/pkg/policy/trafficdirection"
	"github.com/cilium/cilium/pkg/spanstat"
	"github.com/cilium/cilium/pkg/u8proto"
	"github.com/sirupsen/logrus"

	headgate "github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/policytest"
	"github.com/headgate/headgate/policy/policytest/naive"
)

// cilium is the other engine, in the same world and with the same numbers.
type cilium struct {
	repository *policy.Repository
	labels     map[identity.NumericIdentity]labels.LabelArray
	tables     map[string]*policy.EndpointPolicy
}

func newCilium(documents []*naive.Document, e *policytest.Engine) (*cilium, error) {
	c := &cilium{
		repository: policy.NewPolicyRepository(nil, nil, nil, nil, api.NewPolicyMetricsNoop()),
		labels:     map[identity.NumericIdentity]labels.LabelArray{},
		tables:     map[string]*policy.EndpointPolicy{},
	}
	e.Identities().Each(func(info headgate.IdentityInfo) bool {
		c.labels[identity.NumericIdentity(info.ID)] = labelsOf(info).LabelArray()
		return true
	})
	c.repository.GetSelectorCache().UpdateIdentities(c.labels, nil, &sync.WaitGroup{})
	for _, d := range documents {
		rules, err := parse(d)
		if err != nil {
			return nil, fmt.Errorf("parse %s: %w", d.Name, err)
		}
		for _, r := range rules {
			if err := r.Sanitize(); err != nil {
				return nil, fmt.Errorf("sanitize %s: %w", d.Name, err)
			}
		}
		c.repository.MustAddList(rules)
	}
	return c, nil
}

// labelsOf are the labels of an identity, by Cilium's own way for ranges.
func labelsOf(info headgate.IdentityInfo) labels.Labels {
	if info.Prefix.IsValid() {
		return labels.GetCIDRLabels(netip.PrefixFrom(info.Prefix.Addr(), info.Prefix.Bits()))
	}
	out := labels.Labels{}
	for _, l := range info.Labels.All() {
		out[l.Key] = labels.NewLabel(l.Key, l.Value, l.Source)
	}
	return out
}

func parse(d *naive.Document) (api.Rules, error) {
	text := d.JSON()
	if d.Kube != nil {
		np := &networkingv1.NetworkPolicy{}
		if err := json.Unmarshal(text, np); err != nil {
			return nil, err
		}
		return k8s.ParseNetworkPolicy(np)
	}
	cnp := &ciliumv2.CiliumNetworkPolicy{}
	if err := json.Unmarshal(text, cnp); err != nil {
		return nil, err
	}
	if d.Namespace == "" {
		return (&ciliumv2.CiliumClusterwideNetworkPolicy{ObjectMeta: cnp.ObjectMeta, Spec: cnp.Spec}).Parse()
	}
	return cnp.Parse()
}

// verdict judges a connection: deny, allow or redirect.
func (c *cilium) verdict(q *naive.Connection, e *policytest.Engine) (headgate.Verdict, error) {
	table := c.tables[q.Subject.Name]
	if table == nil {
		number := identity.NumericIdentity(e.Number(q.Subject))
		of := owner{q.Subject}
		selected, _, err := c.repository.GetSelectorPolicy(identity.NewIdentity(number, c.labels[number].Labels()), 0, stats{}, of.GetID())
		if err != nil {
			return 0, fmt.Errorf("resolve: %w", err)
		}
		table = selected.DistillPolicy(of, redirects(selected, of))
		if err := table.Ready(); err != nil { // it lets go of what it was made from
			return 0, fmt.Errorf("resolve: %w", err)
		}
		c.tables[q.Subject.Name] = table
	}
	direction := trafficdirection.Ingress
	if q.Egress {
		direction = trafficdirection.Egress
	}
	key := policy.KeyForDirection(direction).WithIdentity(identity.NumericIdentity(e.Number(q.Peer))).
		WithPortProto(numbers[q.Protocol], uint16(q.Port))
	entry, found := lookup(table, key)
	switch {
	case !found || entry.IsDeny():
		return headgate.Deny, nil
	case entry.ProxyPort > 0:
		return headgate.Redirect, nil
	}
	return headgate.Allow, nil
}

var numbers = map[string]u8proto.U8proto{
	"TCP": u8proto.TCP, "UDP": u8proto.UDP, "SCTP": u8proto.SCTP, "ICMP": u8proto.ICMP, "ICMPv6": u8proto.ICMPv6, "GRE": 47,
}

// lookup asks the table as the datapath would. The method is there for tests, but
// of a field that is not exported.
func lookup(table *policy.EndpointPolicy, key policy.Key) (policy.MapStateEntry, bool) {
	field := reflect.ValueOf(table).Elem().FieldByName("policyMapState")
	state := reflect.NewAt(field.Type(), field.Addr().UnsafePointer())
	out := state.MethodByName("Lookup").Call([]reflect.Value{reflect.ValueOf(key)})
	return out[0].Interface().(policy.MapStateEntry), out[1].Bool()
}

// redirects gives every redirect a port.
func redirects(selected policy.SelectorPolicy, of owner) map[string]uint16 {
	ports := map[string]uint16{}
	for filter, per := range selected.RedirectFilters() {
		port := filter.Port
		if port == 0 && filter.PortName != "" {
			port = of.GetNamedPort(filter.Ingress, filter.PortName, filter.U8Proto)
		}
		ports[policy.ProxyID(uint16(of.GetID()), filter.Ingress, string(filter.Protocol), port, per.GetListener())] = 12345
	}
	return ports
}

// owner is the endpoint that tables are for.
type owner struct{ *naive.Party }

func (o owner) GetID() uint64                                                            { return 7 }
func (o owner) IsHost() bool                                                             { return false }
func (o owner) MapStateSize() int                                                        { return 0 }
func (o owner) PolicyDebug(logrus.Fields, string)                                        {}
func (o owner) RegenerateIfAlive(*regeneration.ExternalRegenerationMetadata) <-chan bool { return nil }

// GetNamedPort knows what ingress rules mean. Of peers it knows nothing.
func (o owner) GetNamedPort(ingress bool, name string, proto u8proto.U8proto) uint16 {
	p, found := o.Ports[name]
	if !ingress || !found || numbers[p.Protocol] != proto {
		return 0
	}
	n, _ := strconv.ParseUint(p.Port, 10, 16)
	return uint16(n)
}

type stats struct{}

func (stats) WaitingForPolicyRepository() *spanstat.SpanStat { return &spanstat.SpanStat{} }
func (stats) PolicyCalculation() *spanstat.SpanStat          { return &spanstat.SpanStat{} }
