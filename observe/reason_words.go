package observe

import (
	"strconv"
	"strings"

	flowpb "github.com/cilium/cilium/api/v1/flow"
)

// String says the reason in words for people; where Hubble has words for the same
// number they are Hubble's.
func (r DropReason) String() string {
	if s := r.words(); s != "" {
		return s
	}
	return "Reason " + strconv.Itoa(int(r))
}

func (r DropReason) words() string {
	switch r {
	case ReasonNone:
		return "None"
	case ReasonInvalidSourceMAC:
		return "Invalid source mac"
	case ReasonInvalidSourceIP:
		return "Invalid source ip"
	case ReasonPolicyDenied:
		return "Policy denied"
	case ReasonInvalidPacket:
		return "Invalid packet"
	case ReasonUnsupportedL3:
		return "Unsupported L3 protocol"
	case ReasonUnknownL4:
		return "Unknown L4 protocol"
	case ReasonICMPv4Type:
		return "Unknown ICMPv4 type"
	case ReasonICMPv6Type:
		return "Unknown ICMPv6 type"
	case ReasonNoEndpoint:
		return "Unknown L3 target address"
	case ReasonConntrackFull:
		return "CT: Map insertion failed"
	case ReasonExtensionHeader:
		return "IPv6: Extension header not supported"
	case ReasonFragment:
		return "IP fragmentation not supported"
	case ReasonNoBackend:
		return "Service backend not found"
	case ReasonNoConnection:
		return "Unknown connection tracking state"
	case ReasonNATPorts:
		return "No mapping for NAT masquerade"
	case ReasonNoWay:
		return "FIB lookup failed"
	case ReasonInvalidIdentity:
		return "Invalid identity"
	case ReasonFragmentUnknown:
		return "First logical datagram fragment not found"
	case ReasonForbiddenICMPv6:
		return "Forbidden ICMPv6 message"
	case ReasonNoSocket:
		return "Socket lookup failed"
	case ReasonAssignFailed:
		return "Socket assign failed"
	case ReasonRedirectProtocol:
		return "Proxy redirection not supported for protocol"
	case ReasonPolicyDeny:
		return "Policy denied by denylist"
	case ReasonVLAN:
		return "VLAN traffic disallowed by VLAN filter"
	case ReasonTTL:
		return "TTL exceeded"
	case ReasonNotReady:
		return "Endpoint policy not in force yet"
	}
	return r.ownWords()
}

// ownWords are those of the reasons that Hubble does not know.
func (r DropReason) ownWords() string {
	switch r {
	case ReasonOutside:
		return "Not forwarded between networks"
	case ReasonNoRoute:
		return "No proxy serves the L7 rules"
	case ReasonProxyDown:
		return "Proxy has no listener"
	case ReasonNeighbour:
		return "ARP or NDP for another address"
	case ReasonICMPError:
		return "ICMP error for no known connection"
	case ReasonServiceClash:
		return "Client's port is connected to the service's backend already"
	case ReasonServicePort:
		return "Service has no such port"
	case ReasonServiceFull:
		return "No room for another service connection"
	case ReasonNATFull:
		return "No room for another translated connection"
	case ReasonNoNodeAddress:
		return "Device has no address to translate to"
	case ReasonTooBig:
		return "Packet too big for the way out"
	case ReasonNoDevice:
		return "Route by a device that is not served"
	case ReasonShare:
		return "Too many connections of one workload"
	case ReasonSourceRoute:
		return "Source routing not allowed"
	case ReasonFragmentProxy:
		return "Fragment on a port with L7 rules"
	}
	return ""
}

// Own reports whether the reason is headgate's, without a name in Hubble.
func (r DropReason) Own() bool { return r.ownWords() != "" }

// Desc is the reason as Hubble's enum. Headgate's own keep their number: proto3
// enums are open, so clients carry what they have no name for.
func (r DropReason) Desc() flowpb.DropReason { return flowpb.DropReason(r) }

// Name is the reason as filters spell it: "POLICY_DENIED", "PROXY_DOWN".
func (r DropReason) Name() string {
	switch r {
	case ReasonOutside:
		return "OUTSIDE"
	case ReasonNoRoute:
		return "NO_ROUTE"
	case ReasonProxyDown:
		return "PROXY_DOWN"
	case ReasonNeighbour:
		return "NEIGHBOUR"
	case ReasonICMPError:
		return "ICMP_ERROR"
	case ReasonServiceClash:
		return "SERVICE_CLASH"
	case ReasonServicePort:
		return "SERVICE_PORT"
	case ReasonServiceFull:
		return "SERVICE_FULL"
	case ReasonShare:
		return "SHARE"
	case ReasonNATFull:
		return "NAT_FULL"
	case ReasonNoNodeAddress:
		return "NO_NODE_ADDRESS"
	case ReasonTooBig:
		return "TOO_BIG"
	case ReasonNoDevice:
		return "NO_DEVICE"
	case ReasonSourceRoute:
		return "SOURCE_ROUTE"
	case ReasonFragmentProxy:
		return "FRAGMENT_PROXY"
	}
	if name, ok := flowpb.DropReason_name[int32(r)]; ok {
		return name
	}
	return strconv.Itoa(int(r))
}

// ParseDropReason takes a Name, in any case, or a number.
func ParseDropReason(s string) (DropReason, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return DropReason(n), n > 0
	}
	upper := strings.ToUpper(s)
	if v, ok := flowpb.DropReason_value[upper]; ok && v > 0 && v < 256 {
		return DropReason(v), true
	}
	for _, r := range ownReasons() {
		if upper == r.Name() {
			return r, true
		}
	}
	return ReasonNone, false
}

func ownReasons() []DropReason {
	return []DropReason{
		ReasonOutside, ReasonNoRoute, ReasonProxyDown, ReasonNeighbour, ReasonICMPError,
		ReasonServiceClash, ReasonServicePort, ReasonServiceFull,
		ReasonNATFull, ReasonNoNodeAddress, ReasonTooBig, ReasonNoDevice,
		ReasonShare, ReasonSourceRoute, ReasonFragmentProxy,
	}
}
