package cnp

import (
	"strconv"

	"github.com/headgate/headgate/policy"
	"github.com/headgate/headgate/policy/manifest"
)

// icmps reads ICMP types, which take the place of ports.
func (r *reader) icmps(v manifest.Value) []policy.PortRule {
	var ports []policy.PortRule
	for _, item := range v.List() {
		fields := item.Object([]string{"fields"}, nil)
		list, ok := fields["fields"]
		if !ok || list.Len() == 0 {
			item.Fail("names no type; write fields: [{type: 8}]")
			continue
		}
		if list.Len() > maxPorts {
			list.Fail("has %d types where %d are the most; write several icmps", list.Len(), maxPorts)
		}
		for _, f := range list.List() {
			if port, ok := icmpType(f); ok {
				port.Ref = r.ref(item.Path)
				ports = append(ports, port)
			}
		}
	}
	return ports
}

func icmpType(v manifest.Value) (policy.PortRule, bool) {
	p := policy.PortRule{Proto: policy.ProtoICMP}
	names := icmpTypes
	fields := v.Object([]string{"type", "family"}, nil)
	if family, ok := fields["family"]; ok {
		text, isText := family.Text()
		switch {
		case text == "IPv6":
			p.Proto, names = policy.ProtoICMPv6, icmpv6Types
		case text != "IPv4":
			if isText {
				family.Fail("%q is not a family; write IPv4 or IPv6", text)
			}
			return p, false
		}
	}
	kind, ok := fields["type"]
	if !ok {
		v.Fail("type is missing; write a number or a name, as EchoRequest")
		return p, false
	}
	raw, isNumber, isText := kind.Scalar()
	n, ok := names[raw]
	if !ok && (isNumber || isText) {
		number, err := strconv.ParseUint(raw, 10, 8)
		n, ok = uint16(number), err == nil
	}
	if !ok {
		kind.Fail("is %s; write a number from 0 to 255, or a name of that family as EchoRequest", kind.Describe())
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
