package endpoint

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
)

// State of an endpoint.
type State string

const (
	// Regenerating: its policy is being put in force; it has no traffic before the
	// first time is over.
	Regenerating State = "regenerating"
	// Ready: its policy is in force.
	Ready State = "ready"
	// Failed: something of it could not be put in force. Detail says what.
	Failed State = "failed"
)

// Endpoint is a workload on this node.
type Endpoint struct {
	ID             uint16                      `json:"id"`
	Name           string                      `json:"name"`
	Namespace      string                      `json:"namespace"`
	ServiceAccount string                      `json:"serviceAccount,omitempty"`
	Labels         map[string]string           `json:"labels"`
	Ports          map[string]policy.NamedPort `json:"ports,omitempty"`
	IPs            []netip.Addr                `json:"ips"`
	MAC            string                      `json:"mac"`       // of the workload's side
	Interface      string                      `json:"interface"` // of the host's side
	Ifindex        int                         `json:"ifindex"`
	Inside         string                      `json:"inside"`               // name of the workload's side
	Netns          string                      `json:"netns"`                // as it was given
	ResolvConf     string                      `json:"resolvConf,omitempty"` // the file that was written for it

	State    State           `json:"-"`
	Detail   string          `json:"-"`
	Identity policy.Identity `json:"-"`
	Revision uint64          `json:"-"` // of the policy in force for it
}

// Key is "namespace/name".
func (e *Endpoint) Key() string { return e.Namespace + "/" + e.Name }

// HardwareAddr is the MAC of the workload's side.
func (e *Endpoint) HardwareAddr() net.HardwareAddr {
	mac, _ := net.ParseMAC(e.MAC)
	return mac
}

// Clone returns a copy that shares nothing.
func (e *Endpoint) Clone() *Endpoint {
	c := *e
	c.Labels, c.Ports, c.IPs = maps.Clone(e.Labels), maps.Clone(e.Ports), slices.Clone(e.IPs)
	return &c
}

// ParsePorts reads NAME=80/TCP.
func ParsePorts(specs []string) (map[string]policy.NamedPort, error) {
	protos := map[string]policy.Proto{"TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP}
	out := map[string]policy.NamedPort{}
	for _, s := range specs {
		name, rest, ok := strings.Cut(s, "=")
		number, proto, hasProto := strings.Cut(rest, "/")
		if !hasProto {
			proto = "TCP"
		}
		port, err := strconv.ParseUint(number, 10, 16)
		p, known := protos[strings.ToUpper(proto)]
		if !ok || name == "" || err != nil || port == 0 || !known {
			return nil, fmt.Errorf("port %q is not NAME=NUMBER/PROTOCOL: write, for example, http=80/TCP", s)
		}
		out[name] = policy.NamedPort{Proto: p, Port: uint16(port)}
	}
	return out, nil
}

// FormatPorts writes what ParsePorts reads, sorted.
func FormatPorts(ports map[string]policy.NamedPort) []string {
	names := map[policy.Proto]string{policy.ProtoTCP: "TCP", policy.ProtoUDP: "UDP", policy.ProtoSCTP: "SCTP"}
	out := make([]string, 0, len(ports))
	for name, p := range ports {
		out = append(out, fmt.Sprintf("%s=%d/%s", name, p.Port, names[p.Proto]))
	}
	slices.Sort(out)
	return out
}
