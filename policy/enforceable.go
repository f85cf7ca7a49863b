package policy

import (
	"fmt"
	"slices"
)

// Unenforceable lists what of a policy is decided here but cannot be carried out
// yet by the datapath and the proxies, each with its place. A policy with any
// such part must not be applied: to leave the part out would let through what
// it denies, or deny what it allows.
func Unenforceable(p *Policy) []error {
	u := &unenforceable{policy: p.Kind + " " + p.FullName(), seen: map[string]bool{}}
	for i := range p.Rules {
		u.rule(&p.Rules[i])
	}
	return u.errs
}

type unenforceable struct {
	policy string
	seen   map[string]bool
	errs   []error
}

func (u *unenforceable) add(path, what, advice string) {
	err := fmt.Errorf("%s: %s: %s cannot be enforced yet, only asked about with 'headgate policy verdict'; %s", u.policy, path, what, advice)
	if !u.seen[err.Error()] {
		u.seen[err.Error()] = true
		u.errs = append(u.errs, err)
	}
}

func (u *unenforceable) rule(r *Rule) {
	for _, p := range r.Peers {
		switch p.(type) {
		case FQDN:
			if r.Node {
				u.add(r.Ref.Path+".toFQDNs", "a rule of a node for DNS names", "write toCIDR, or toEntities: [world]")
			}
		case NodeSelector:
			u.add(r.Ref.Path+nodesField(r), "a selector of nodes, whose labels nobody tells this node,", "write the entities host and remote-node, or the nodes' addresses as CIDRs")
		}
	}
	for i := range r.Ports {
		u.port(r, &r.Ports[i])
	}
}

func (u *unenforceable) port(r *Rule, p *PortRule) {
	if p.Listener != nil && r.Node {
		u.add(p.Ref.Path+".listener", "a listener for what a node sends (nodeSelector)", "write endpointSelector")
	}
	if p.TLS != nil && p.Listener != nil {
		u.add(p.Ref.Path, "ending TLS (terminatingTLS, originatingTLS) before a listener", "delete it; the listener can do so itself")
	}
	if r.Node && p.Name != "" && r.Direction == Ingress {
		u.add(p.Ref.Path+".ports", fmt.Sprintf("the name %q of a port of a node, which has no names for ports,", p.Name), "write its number")
	}
	if p.L7 == nil {
		return
	}
	if r.Node {
		u.add(p.Ref.Path+".rules"+l7Field(p.L7), "a rule for requests to or from a node (nodeSelector)", "leave rules out, or write endpointSelector")
	}
	switch ends := p.L7.Ends; {
	case p.L7.Protocol == ProtocolDNS && (ends != nil || len(p.L7.TLS) > 0):
		u.add(p.Ref.Path, "TLS before DNS rules (serverNames, terminatingTLS, originatingTLS)", "delete it; rules then see plain text only")
	case ends != nil && !ends.Conflict && ends.Certificate == (SecretRef{}) && slices.ContainsFunc(p.L7.TLS, func(r TLSRule) bool { return r.ServerName != "" }):
		u.add(p.Ref.Path+".serverNames", "a server name of a client that speaks plain text (originatingTLS alone)", "write terminatingTLS too, or delete serverNames")
	}
}

func nodesField(r *Rule) string {
	if r.Direction == Egress {
		return ".toNodes"
	}
	return ".fromNodes"
}

// l7Field is where rules for requests of a protocol stand; empty: there are none.
func l7Field(r *L7Rules) string {
	switch r.Protocol {
	case ProtocolHTTP:
		if len(r.GRPC) > 0 && len(r.HTTP) == 0 {
			return ".grpc"
		}
		return ".http"
	case ProtocolKafka:
		return ".kafka"
	case ProtocolDNS:
		return ".dns"
	}
	return ""
}
