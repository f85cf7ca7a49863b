package verdict

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
)

// World is what there is beside policies, as files of cases describe it.
type World struct {
	Endpoints   []Endpoint `json:"endpoints"`
	Services    []Service  `json:"services"`
	Nodes       []Node     `json:"nodes"`
	Names       []Name     `json:"fqdnCache"`
	Enforcement string     `json:"enforcement"` // default, always or never; empty: default
}

// Endpoint is a workload.
type Endpoint struct {
	Name            string   `json:"name"`
	Namespace       string   `json:"namespace"`
	Labels          Texts    `json:"labels"`
	IPs             []string `json:"ips"`
	NamespaceLabels Texts    `json:"namespaceLabels"`
	ServiceAccount  string   `json:"serviceAccount"`
	Cluster         string   `json:"cluster"`
	NamedPorts      Texts    `json:"namedPorts"` // "http": "80/TCP"
}

// Service is what rules may refer to by name or labels. Without a selector its
// addresses are what is behind it.
type Service struct {
	Name      string   `json:"name"`
	Namespace string   `json:"namespace"`
	Labels    Texts    `json:"labels"`
	Selector  Texts    `json:"selector"`
	IPs       []string `json:"ips"`
}

// Node is a machine. The local one, or else the first, is what the entity host
// means.
type Node struct {
	Name   string   `json:"name"`
	Labels Texts    `json:"labels"`
	IPs    []string `json:"ips"`
	Local  bool     `json:"local"`
}

// Name is a DNS name and the addresses that were seen in answers for it.
type Name struct {
	Name string   `json:"name"`
	IPs  []string `json:"ips"`
}

// FullName is "namespace/name".
func (e *Endpoint) FullName() string { return orDefault(e.Namespace) + "/" + e.Name }

func orDefault(namespace string) string {
	if namespace == "" {
		return policy.DefaultNamespace
	}
	return namespace
}

// derivedPrefix begins the keys that say where a workload runs.
const derivedPrefix = "io.cilium.k8s."

// labels returns the labels of the endpoint's identity. Of those that say where
// a workload runs only the cluster is believed when it is among the endpoint's
// own: everything else would be a workload's claim to the rights of another, and
// is as if it were not there. What was left out is returned as well.
func (e *Endpoint) labels() (labels policy.Labels, leftOut []string, err error) {
	own := map[string]string{}
	cluster := e.Cluster
	for key, value := range e.Labels {
		key = strings.TrimPrefix(key, policy.SourceK8s+":")
		switch {
		case key == policy.KeyCluster:
			if cluster == "" {
				cluster = value
			}
		case key == policy.KeyNamespace || strings.HasPrefix(key, derivedPrefix):
			leftOut = append(leftOut, key)
		default:
			own[key] = value
		}
	}
	labels, err = policy.EndpointLabels(orDefault(e.Namespace), e.ServiceAccount, cluster, e.NamespaceLabels, own)
	if err != nil {
		return labels, nil, fmt.Errorf("read endpoint %s: %w", e.FullName(), err)
	}
	return labels, leftOut, nil
}

func (e *Endpoint) namedPorts() (policy.NamedPorts, error) {
	ports := policy.NamedPorts{}
	for name, text := range e.NamedPorts {
		number, proto, found := strings.Cut(text, "/")
		if !found {
			proto = "TCP"
		}
		n, err := strconv.ParseUint(number, 10, 16)
		p, ok := protocols()[strings.ToUpper(proto)]
		if err != nil || !ok {
			return nil, fmt.Errorf("read endpoint %s: named port %s: %q is no port; write one as 80/TCP", e.FullName(), name, text)
		}
		name = strings.ToLower(name)
		ports[name] = append(ports[name], policy.NamedPort{Proto: p, Port: uint16(n)})
	}
	return ports, nil
}

func protocols() map[string]policy.Proto {
	return map[string]policy.Proto{
		"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP,
		"ICMP": policy.ProtoICMP, "ICMPV4": policy.ProtoICMP, "ICMPV6": policy.ProtoICMPv6, "ANY": policy.ProtoAny, "": policy.ProtoAny,
	}
}

// address reads an address; IPv4 within IPv6 is IPv4. A prefix of one address,
// as "10.0.0.1/32", is taken for the address.
func address(text string) (netip.Addr, error) {
	text = strings.TrimSpace(text)
	a, err := netip.ParseAddr(text)
	if err == nil && a.Zone() == "" {
		return a.Unmap(), nil
	}
	if p, err := netip.ParsePrefix(text); err == nil && p.IsSingleIP() {
		return p.Addr().Unmap(), nil
	}
	return netip.Addr{}, fmt.Errorf("%q is no IP address", text)
}

func addresses(owner string, list []string) ([]netip.Addr, error) {
	var addrs []netip.Addr
	for _, text := range list {
		a, err := address(text)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", owner, err)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}
