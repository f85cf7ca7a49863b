package policy

import "fmt"

// Unlearnt warns of policies that pick addresses by DNS names where no policy has
// addresses learnt: that takes a rule for DNS, by which questions go through the proxy.
func Unlearnt(policies []*Policy) []string {
	var out []string
	for _, p := range policies {
		for i := range p.Rules {
			for j := range p.Rules[i].Ports {
				if l7 := p.Rules[i].Ports[j].L7; l7 != nil && len(l7.DNS) > 0 {
					return nil
				}
			}
		}
	}
	for _, p := range policies {
		for i := range p.Rules {
			for _, peer := range p.Rules[i].Peers {
				if _, ok := peer.(FQDN); ok {
					out = append(out, fmt.Sprintf("%s %s: %s.toFQDNs: names are learnt from questions that rules for DNS let through, and there is no such rule; "+
						`allow port 53 of your name servers with rules: {dns: [{matchPattern: "*"}]}`, p.Kind, p.FullName(), p.Rules[i].Ref.Path))
					break
				}
			}
		}
	}
	return out
}
