package cnp

import (
	"strconv"

	"github.com/headgate/headgate/policy"
)

// icmps reads ICMP types, which take the place of ports.
func (r *reader) icmps(v value) []policy.PortRule {
	var ports []policy.PortRule
	for _, item := range v.list() {
		fields := item.object([]string{"fields"}, nil)
		list, ok := fields["fields"]
		if !ok || len(list.node.Content) == 0 {
			item.fail("names no type; write fields: [{type: 8}]")
			continue
		}
		if len(list.node.Content) > maxPorts {
			list.fail("has %d types where %d are the most; write several icmps", len(list.node.Content), maxPorts)
		}
		for _, f := range list.list() {
			if port, ok := f.icmpType(); ok {
				port.Ref = r.ref(item.path)
				ports = append(ports, port)
			}
		}
	}
	return ports
}

func (v value) icmpType() (policy.PortRule, bool) {
	p := policy.PortRule{Proto: policy.ProtoICMP}
	names := icmpTypes
	fields := v.object([]string{"type", "family"}, nil)
	if family, ok := fields["family"]; ok {
		text, isText := family.text()
		switch {
		case text == "IPv6":
			p.Proto, names = policy.ProtoICMPv6, icmpv6Types
		case text != "IPv4":
			if isText {
				family.fail("%q is not a family; write IPv4 or IPv6", text)
			}
			return p, false
		}
	}
	kind, ok := fields["type"]
	if !ok {
		v.fail("type is missing; write a number or a name, as EchoRequest")
		return p, false
	}
	n, ok := names[kind.node.Value]
	if !ok && (kind.node.Tag == "!!int" || kind.node.Tag == "!!str") {
		number, err := strconv.ParseUint(kind.node.Value, 10, 8)
		n, ok = uint16(number), err == nil
	}
	if !ok {
		kind.fail("is %s; write a number from 0 to 255, or a name of that family as EchoRequest", kind.kind())
	}
	p.First, p.Last = n, n
	return p, ok
}

// The names of types, as Cilium spells them.
var (
	icmpTypes = map[string]uint16{
		"EchoReply": 0, "DestinationUnreachable": 3, "Redirect": 5, "Echo": 8, "EchoRequest": 8,
		"RouterAdvertisement": 9, "RouterSelection": 10, "TimeExceeded": 11, "ParameterProblem": 12,
		"Timestamp": 13, "TimestampReply": 14, "Photuris": 40, "ExtendedEchoRequest": 42, "ExtendedEchoReply": 43,
	}
	icmpv6Types = map[string]uint16{
		"DestinationUnreachable": 1, "PacketTooBig": 2, "TimeExceeded": 3, "ParameterProblem": 4,
		"EchoRequest": 128, "EchoReply": 129, "MulticastListenerQuery": 130, "MulticastListenerReport": 131,
		"MulticastListenerDone": 132, "RouterSolicitation": 133, "RouterAdvertisement": 134,
		"NeighborSolicitation": 135, "NeighborAdvertisement": 136, "RedirectMessage": 137, "RouterRenumbering": 138,
		"ICMPNodeInformationQuery": 139, "ICMPNodeInformationResponse": 140,
		"InverseNeighborDiscoverySolicitation": 141, "InverseNeighborDiscoveryAdvertisement": 142,
		"HomeAgentAddressDiscoveryRequest": 144, "HomeAgentAddressDiscoveryReply": 145,
		"MobilePrefixSolicitation": 146, "MobilePrefixAdvertisement": 147, "DuplicateAddressRequestCodeSuffix": 157,
		"DuplicateAddressConfirmationCodeSuffix": 158, "ExtendedEchoRequest": 160, "ExtendedEchoReply": 161,
	}
)
