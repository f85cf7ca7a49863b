package reconcile

import (
	"fmt"

	"github.com/headgate/headgate/policy"
)

// admitTLS refuses TLS before rules that another backend than headgate's own proxy has:
// it alone ends TLS, and reads server names.
func (e *Engine) admitTLS() error {
	if e.cfg.PerRoute == nil {
		return nil
	}
	for _, key := range sortedKeys(e.policies) {
		for _, r := range e.policies[key].Rules {
			for i := range r.Ports {
				l7 := r.Ports[i].L7
				if l7 == nil || l7.Ends == nil && len(l7.TLS) == 0 || !e.cfg.PerRoute(family(l7.Protocol)) {
					continue
				}
				return fmt.Errorf("%s %s: TLS does not end before rules.%s with --backend envoy yet: start the agent with --backend go, or delete terminatingTLS, originatingTLS and serverNames: %w",
					e.policies[key].Kind, r.Ports[i].Ref, l7.Protocol, ErrRefused)
			}
		}
	}
	return nil
}

// family is the protocol of the set that rules of another become part of.
func family(p policy.Protocol) policy.Protocol {
	if p == policy.ProtocolGRPC {
		return policy.ProtocolHTTP
	}
	return p
}
