package cnp

import (
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
)

// maxPorts is the most ports, or ICMP fields, that one list may hold.
const maxPorts = 40

// toPorts reads the ports of a rule.
func (r *reader) toPorts(v value, s section) []policy.PortRule {
	var ports []policy.PortRule
	items := v.list()
	if len(v.node.Content) == 0 {
		v.warn("is empty and limits nothing; delete it, or write ports")
	}
	for _, item := range items {
		known, refused := []string{"ports", "rules"}, refusedInToPorts
		if s.deny {
			known, refused = []string{"ports"}, refusedInDenyPorts
		}
		fields := item.object(known, refused)
		list, ok := fields["ports"]
		if !ok || len(list.node.Content) == 0 {
			item.fail("names no port; write ports")
			continue
		}
		if len(list.node.Content) > maxPorts {
			list.fail("has %d ports where %d are the most; write a range with endPort, or several toPorts", len(list.node.Content), maxPorts)
		}
		ref := r.ref(item.path)
		var l7 *policy.L7Rules
		if rules, ok := fields["rules"]; ok {
			l7 = r.l7(rules, ref)
		}
		for _, p := range list.list() {
			port, ok := p.port()
			if !ok {
				continue
			}
			port.Ref, port.L7 = ref, l7
			if l7 != nil {
				p.checkL7Port(port)
			}
			ports = append(ports, port)
		}
	}
	return ports
}

func (v value) checkL7Port(port policy.PortRule) {
	if port.Proto != policy.ProtoTCP {
		v.fail("has L7 rules, which are for TCP only; write protocol: TCP")
	}
	if port.Name == "" && port.First == 0 {
		v.fail("has L7 rules, which cannot be for every port; write a port")
	}
}

// port reads one item of ports.
func (v value) port() (policy.PortRule, bool) {
	var p policy.PortRule
	fields := v.object([]string{"port", "endPort", "protocol"}, nil)
	ok := true
	if proto, has := fields["protocol"]; has {
		p.Proto, ok = proto.protocol()
	}
	number, has := fields["port"]
	if !has {
		v.fail("port is missing; write a number or a name, \"0\" for every port")
		return p, false
	}
	text, isText := number.text()
	if !isText {
		return p, false
	}
	end, hasEnd := fields["endPort"]
	if isPortName(text) {
		p.Name = strings.ToLower(text)
		if hasEnd {
			end.fail("does not go with a port's name; write port as a number")
		}
		return p, ok && !hasEnd
	}
	first, err := strconv.ParseUint(text, 10, 16)
	if err != nil || strconv.FormatUint(first, 10) != text {
		number.fail("%q is not a port; write a number from 0 to 65535, or a name of at most 15 letters, digits and '-'", text)
		return p, false
	}
	p.First, p.Last = uint16(first), uint16(first)
	if first == 0 {
		p.Last = 65535
	}
	if hasEnd {
		return p, end.endPort(&p) && ok
	}
	return p, ok
}

// endPort makes the port a range.
func (v value) endPort(p *policy.PortRule) bool {
	last, ok := v.number(65535)
	switch {
	case !ok:
		return false
	case p.First == 0:
		v.fail("does not go with port 0, which is every port; write port: \"1\"")
		return false
	case last < int(p.First):
		v.fail("%d is less than port %d; write the greater one here", last, p.First)
		return false
	}
	p.Last = uint16(last)
	return true
}

// number reads a whole number from 0 to most.
func (v value) number(most int) (int, bool) {
	n, err := strconv.Atoi(v.node.Value)
	if v.node.Tag != "!!int" || err != nil || n < 0 || n > most || strconv.Itoa(n) != v.node.Value {
		v.fail("is %s; write a number from 0 to %d, without quotes", v.kind(), most)
		return 0, false
	}
	return n, true
}

func (v value) protocol() (policy.Proto, bool) {
	text, ok := v.text()
	if !ok {
		return 0, false
	}
	upper := strings.ToUpper(text)
	protos := map[string]policy.Proto{
		"ANY": policy.ProtoAny, "TCP": policy.ProtoTCP, "UDP": policy.ProtoUDP, "SCTP": policy.ProtoSCTP,
	}
	proto, ok := protos[upper]
	switch {
	case ok && upper != text:
		v.warn("%q is read as %s; write it so", text, upper)
	case ok:
	case strings.HasPrefix(upper, "ICMP"):
		v.fail("%q has no ports; write icmps instead of toPorts", text)
	default:
		v.fail("%q is not supported; write TCP, UDP, SCTP or ANY", text)
	}
	return proto, ok
}

// isPortName: an IANA service name, at most 15 letters, digits and single inner
// dashes, with a letter in it.
func isPortName(s string) bool {
	if s == "" || len(s) > 15 || s[0] == '-' || s[len(s)-1] == '-' || strings.Contains(s, "--") {
		return false
	}
	letter := false
	for i := range len(s) {
		switch c := s[i] | 0x20; {
		case c >= 'a' && c <= 'z':
			letter = true
		case s[i] != '-' && (s[i] < '0' || s[i] > '9'):
			return false
		}
	}
	return letter
}
