package policy

import "fmt"

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
			u.add(r.Ref.Path, "a selector of nodes", "write the entities host and remote-node")
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
	if p.TLS != nil && (p.L7 == nil || p.L7.Protocol != ProtocolKafka) {
		u.add(p.Ref.Path, "ending TLS (terminatingTLS, originatingTLS) without Kafka rules", "delete it; rules then see plain text only")
	}
	if r.Node && p.Name != "" && r.Direction == Ingress {
		u.add(p.Ref.Path+".ports", "the name of a port of a node", "write its number")
	}
	if p.L7 == nil {
		return
	}
	if r.Node {
		u.add(p.Ref.Path+".rules", "a rule for requests to or from a node (nodeSelector)", "leave rules out, or write endpointSelector")
	}
	for _, rule := range p.L7.TLS {
		u.add(rule.Ref.Path, "a rule for server names", "write toCIDR to narrow the peers")
	}
}
