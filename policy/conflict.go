package policy

import "fmt"

// ProtocolConflict finds rules of one subject that have L7 rules of different
// kinds for the same port, of which only one kind can be in force. It returns
// nil if there are none. Resolve takes the kind that comes first, and denies
// what the others would allow.
func ProtocolConflict(rules []Rule) error {
	seen := map[Protocol][]span{}
	for i := range rules {
		for j := range rules[i].Ports {
			at := span{&rules[i], &rules[i].Ports[j]}
			if at.port.L7 == nil {
				continue
			}
			own := at.port.L7.family()
			for _, protocol := range []Protocol{ProtocolHTTP, ProtocolKafka, ProtocolDNS, ProtocolTLS} {
				if protocol == own {
					continue
				}
				for _, other := range seen[protocol] {
					if other.overlaps(at) {
						return fmt.Errorf("%s has %s rules where %s has %s rules for the same port", at.port.Ref.Path, own, other.port.Ref.Path, protocol)
					}
				}
			}
			seen[own] = append(seen[own], at)
		}
	}
	return nil
}

// span is what a rule with L7 rules covers.
type span struct {
	rule *Rule
	port *PortRule
}

func (s span) overlaps(o span) bool {
	p, q := s.port, o.port
	same := p.Name == q.Name
	if p.Name == "" && q.Name == "" {
		same = p.First <= q.Last && q.First <= p.Last
	}
	if p.Proto != q.Proto && p.Proto != ProtoAny && q.Proto != ProtoAny {
		same = false
	}
	return same && s.rule.Direction == o.rule.Direction && s.rule.Node == o.rule.Node && s.rule.Subject.String() == o.rule.Subject.String()
}
