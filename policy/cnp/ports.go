package cnp

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// maxPorts is the most ports, or ICMP fields, that one list may hold.
const maxPorts = 40

// toPorts reads the ports of a rule.
func (r *reader) toPorts(v manifest.Value, s section) []policy.PortRule {
	var ports []policy.PortRule
	items := v.List()
	if v.Len() == 0 {
		v.Warn("is empty and limits nothing; delete it, or write ports")
	}
	for _, item := range items {
		ports = append(ports, r.toPort(item, s)...)
	}
	return ports
}

// toPort reads one item of toPorts.
func (r *reader) toPort(item manifest.Value, s section) []policy.PortRule {
	known, refused := []string{"ports", "rules", "serverNames", "listener", "terminatingTLS", "originatingTLS"}, map[string]string(nil)
	if s.deny {
		advice := "delete it; what is denied by its requests stands under rules"
		known, refused = []string{"ports", "rules"}, map[string]string{
			"serverNames": advice, "listener": advice, "terminatingTLS": advice, "originatingTLS": advice,
		}
	}
	fields := item.Object(known, refused)
	list, ok := fields["ports"]
	if !ok || list.Len() == 0 {
		item.Fail("names no port; write ports")
		return nil
	}
	if list.Len() > maxPorts {
		list.Fail("has %d ports where %d are the most; write a range with endPort, or several toPorts", list.Len(), maxPorts)
	}
	common := policy.PortRule{Ref: r.ref(item.Path), TLS: r.tlsSecrets(fields)}
	if rules, ok := fields["rules"]; ok {
		common.L7 = r.l7(rules, common.Ref, s)
	}
	if names, ok := fields["serverNames"]; ok {
		common.L7 = serverNames(names, common)
	}
	if listener, ok := fields["listener"]; ok {
		if common.Listener = r.listener(listener, s); common.L7 != nil {
			listener.Fail("does not go with rules or serverNames, the listener has its own; delete one")
		}
	} else if common.L7 == nil && common.TLS != nil {
		// What is in it is not judged.
		common.L7 = &policy.L7Rules{Protocol: policy.ProtocolTLS, TLS: []policy.TLSRule{{Ref: common.Ref}}}
	}
	var ports []policy.PortRule
	for _, v := range list.List() {
		port, ok := port(v)
		if !ok {
			continue
		}
		port.Ref, port.L7, port.Listener, port.TLS = common.Ref, common.L7, common.Listener, common.TLS
		if port.L7 != nil {
			port.L7.Ends = port.TLS
		}
		if port.L7 != nil || port.Listener != nil {
			checkL7Port(v, &port)
		}
		ports = append(ports, port)
	}
	return ports
}

func checkL7Port(v manifest.Value, port *policy.PortRule) {
	dns := port.L7 != nil && port.L7.Protocol == policy.ProtocolDNS
	if port.L7 != nil && port.L7.Protocol == policy.ProtocolTLS {
		checkTLSPort(v, port)
		return
	}
	switch {
	case dns && (port.Proto == policy.ProtoSCTP):
		v.Fail("has DNS rules, which are for UDP and TCP; write one of them, or ANY")
	case dns && port.Name == "" && port.First != port.Last && port.First != 0:
		v.Fail("has DNS rules, which do not go with a range of ports; delete endPort")
	case !dns && port.Proto != policy.ProtoTCP:
		v.Fail("has L7 rules, which are for TCP only; write protocol: TCP")
	}
	if port.Name == "" && port.First == 0 {
		v.Fail("has L7 rules, which cannot be for every port; write a port")
	}
}

// listener reads a reference to a listener of Envoy.
func (r *reader) listener(v manifest.Value, s section) *policy.Listener {
	if s.direction == policy.Ingress {
		v.Fail("is for egress only; delete it")
	}
	fields := v.Object([]string{"envoyConfig", "name", "priority"}, nil)
	name, hasName := fields["name"]
	config, hasConfig := fields["envoyConfig"]
	if !hasName || !hasConfig {
		v.Fail("needs envoyConfig and name; write both")
		return nil
	}
	l := &policy.Listener{Kind: kindEnvoyConfig}
	if r.policy.Namespace == "" {
		l.Kind = kindClusterwideEnvoyConfig
	}
	l.Name, _ = name.Text()
	if l.Name == "" {
		name.Fail("is empty; write the name of a listener of that object")
	}
	if priority, ok := fields["priority"]; ok {
		l.Priority, _ = priority.Number(1, 100)
	}
	of := config.Object([]string{"kind", "name"}, nil)
	if configName, ok := of["name"]; !ok {
		config.Fail("name is missing; write it")
	} else if l.Config, ok = configName.Text(); ok {
		if err := policy.ValidateName(l.Config); err != nil {
			configName.Fail("%v", err)
		}
	}
	if kind, ok := of["kind"]; ok {
		l.Kind, _ = kind.Text()
		switch {
		case l.Kind != kindEnvoyConfig && l.Kind != kindClusterwideEnvoyConfig:
			kind.Fail("%q is not a kind of listeners; write %s or %s", l.Kind, kindEnvoyConfig, kindClusterwideEnvoyConfig)
		case l.Kind == kindEnvoyConfig && r.policy.Namespace == "":
			kind.Fail("is in a namespace, which the policy is not; write %s", kindClusterwideEnvoyConfig)
		}
	}
	if l.Kind == kindEnvoyConfig {
		l.Namespace = r.policy.Namespace
	}
	return l
}

const (
	kindEnvoyConfig            = policy.KindEnvoyConfig
	kindClusterwideEnvoyConfig = policy.KindClusterwideEnvoyConfig
)

// secret reads a reference to a secret.
func (r *reader) secret(v manifest.Value) *policy.SecretRef {
	fields := v.Object([]string{"namespace", "name"}, nil)
	ref := &policy.SecretRef{Namespace: namespaceOf(fields["namespace"])}
	name, ok := fields["name"]
	if !ok {
		v.Fail("name is missing; write it")
		return ref
	}
	if ref.Name, ok = name.Text(); ok {
		if err := policy.ValidateName(ref.Name); err != nil {
			name.Fail("%v", err)
		}
	}
	if ref.Namespace == "" {
		ref.Namespace = cmp.Or(r.policy.Namespace, policy.DefaultNamespace)
	}
	return ref
}

// port reads one item of ports.
func port(v manifest.Value) (policy.PortRule, bool) {
	var p policy.PortRule
	fields := v.Object([]string{"port", "endPort", "protocol"}, nil)
	ok := true
	if proto, has := fields["protocol"]; has {
		p.Proto, ok = protocol(proto)
	}
	number, has := fields["port"]
	if !has {
		v.Fail("port is missing; write a number or a name, \"0\" for every port")
		return p, false
	}
	text, isText := number.Text()
	if !isText {
		return p, false
	}
	end, hasEnd := fields["endPort"]
	if policy.IsPortName(text) {
		p.Name = strings.ToLower(text)
		if hasEnd {
			end.Fail("does not go with a port's name; write port as a number")
		}
		return p, ok && !hasEnd
	}
	first, err := strconv.ParseUint(text, 10, 16)
	if err != nil || strconv.FormatUint(first, 10) != text {
		number.Fail("%q is not a port; write a number from 0 to 65535, or a name of at most 15 letters, digits and '-'", text)
		return p, false
	}
	p.First, p.Last = uint16(first), uint16(first)
	if first == 0 {
		p.Last = 65535
	}
	if hasEnd {
		return p, endPort(end, &p) && ok
	}
	return p, ok
}

// endPort makes the port a range.
func endPort(v manifest.Value, p *policy.PortRule) bool {
	last, ok := v.Number(0, 65535)
	switch {
	case !ok:
		return false
	case p.First == 0:
		v.Fail("does not go with port 0, which is every port; write port: \"1\"")
		return false
	case last < int(p.First):
		v.Fail("%d is less than port %d; write the greater one here", last, p.First)
		return false
	}
	p.Last = uint16(last)
	return true
}

func protocol(v manifest.Value) (policy.Proto, bool) {
	text, ok := v.Text()
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
		v.Warn("%q is read as %s; write it so", text, upper)
	case ok:
	case strings.HasPrefix(upper, "ICMP"):
		v.Fail("%q has no ports; write icmps instead of toPorts", text)
	default:
		v.Fail("%q is not supported; write TCP, UDP, SCTP or ANY", text)
	}
	return proto, ok
}
