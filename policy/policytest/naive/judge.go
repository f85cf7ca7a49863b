package naive

// say is what one rule says of one connection that it is about.
type say struct {
	deny        bool
	all         bool // of all protocols and ports
	first, last int  // otherwise: of which ports
	requests    bool // it is about some requests only
	matches     bool // and this is one
	denies      bool // as a deny, which is wider
}

// Allowed judges a connection by the policies: in words of the documentation,
//
//   - a direction in which no policy that selects the workload asks for default
//     deny allows what is not denied;
//   - a deny beats all allows;
//   - an allow of the port alone makes rules about requests void whose ports are
//     the same or more, or all: then every request is allowed;
//   - otherwise, where there are rules about requests, one of them must match.
func Allowed(documents []*Document, c *Connection) bool {
	defaultDeny := false
	var says []say
	for _, d := range documents {
		selected, denies, more := d.about(c)
		if selected {
			defaultDeny = defaultDeny || denies
			says = append(says, more...)
		}
	}
	allowed, inForce, matched := false, false, false
	for _, s := range says {
		switch {
		case s.deny && (!s.requests || s.matches):
			return false
		case s.deny:
		case s.requests:
			inForce = inForce || !void(s, says)
			matched = matched || s.matches
			allowed = true
		default:
			allowed = true
		}
	}
	if inForce {
		return matched
	}
	return allowed || !defaultDeny
}

func void(l7 say, says []say) bool {
	for _, s := range says {
		if !s.deny && !s.requests && (s.all || s.first >= l7.first && s.last <= l7.last) {
			return true
		}
	}
	return false
}

// about says whether the policy selects the workload and asks for default deny
// in the direction, and what its rules say.
func (d *Document) about(c *Connection) (selected, defaultDeny bool, says []say) {
	if d.Kube != nil {
		return d.aboutKube(c)
	}
	s := d.Cilium
	if d.Namespace != "" && c.Subject.Namespace != d.Namespace || !s.Selector.picks(c.Subject) {
		return false, false, nil
	}
	allows, denies, side := s.Ingress, s.IngressDeny, 0
	if c.Egress {
		allows, denies, side = s.Egress, s.EgressDeny, 1
	}
	defaultDeny = len(allows)+len(denies) > 0
	if s.DefaultDeny[side] != nil {
		defaultDeny = *s.DefaultDeny[side]
	}
	for i := range allows {
		for _, one := range allows[i].says(d.Namespace, c) {
			one.matches = one.matches || !defaultDeny // such a policy shows requests and denies none
			says = append(says, one)
		}
	}
	for i := range denies {
		for _, one := range denies[i].says(d.Namespace, c) {
			one.deny = true
			one.matches = one.denies
			says = append(says, one)
		}
	}
	return true, defaultDeny, says
}

func (r *CiliumRule) says(namespace string, c *Connection) []say {
	if !r.names(namespace, c.Peer) {
		return nil
	}
	if r.Ports == nil && r.ICMPs == nil {
		return []say{{all: true}}
	}
	var says []say
	for _, i := range r.ICMPs {
		if (c.Protocol == "ICMP" && i.Family == "IPv4" || c.Protocol == "ICMPv6" && i.Family == "IPv6") && c.Port == i.Type {
			says = append(says, say{first: i.Type, last: i.Type})
		}
	}
	for _, p := range r.Ports {
		for _, port := range p.Ports {
			first, last, ok := port.covers(c, "ANY")
			if !ok || c.Protocol == "SCTP" && (p.HTTP != nil || p.DNS != nil) { // no proxy reads SCTP
				continue
			}
			s := say{first: first, last: last}
			switch {
			case p.HTTP != nil && c.Protocol == "TCP":
				s.requests, s.matches = true, anyHTTP(p.HTTP, &c.Request)
				s.denies = deniedHTTP(p.HTTP, &c.Request)
			case p.DNS != nil:
				s.requests, s.matches = true, anyDNS(p.DNS, c.Request.Name)
				s.denies = s.matches
			}
			says = append(says, s)
		}
	}
	return says
}

// names reports whether the rule is about the peer. One without any list of
// peers is about everybody if it names ports, and else about nobody.
func (r *CiliumRule) names(namespace string, p *Party) bool {
	if r.Endpoints == nil && r.Entities == nil && r.CIDRs == nil && r.CIDRSet == nil {
		return r.Ports != nil || r.ICMPs != nil
	}
	for _, s := range r.Endpoints {
		if p.Namespace != "" && s.picks(p) && (namespace == "" || s.namesNamespace() || p.Namespace == namespace) {
			return true
		}
	}
	for _, e := range r.Entities {
		if p.is(e) {
			return true
		}
	}
	for _, cidr := range r.CIDRs {
		if p.within(CIDR{CIDR: cidr}) {
			return true
		}
	}
	for _, cidr := range r.CIDRSet {
		if p.within(cidr) {
			return true
		}
	}
	return false
}

// covers reports whether the port is about the connection, and of which ports.
// A name means what the side that is called means by it.
func (p Port) covers(c *Connection, unwritten string) (first, last int, ok bool) {
	protocol := p.Protocol
	if protocol == "" {
		protocol = unwritten
	}
	if protocol != c.Protocol && !(protocol == "ANY" && (c.Protocol == "TCP" || c.Protocol == "UDP" || c.Protocol == "SCTP")) {
		return 0, 0, false
	}
	if p.Port == "" || p.Port == "0" {
		return 0, 65535, true
	}
	first, isNumber := number(p.Port)
	last = max(first, p.EndPort)
	if !isNumber {
		called := c.Subject
		if c.Egress {
			called = c.Peer
		}
		meant, found := called.Ports[p.Port]
		if !found || meant.Protocol != c.Protocol {
			return 0, 0, false
		}
		first, _ = number(meant.Port)
		last = first
	}
	return first, last, first <= c.Port && c.Port <= last
}
