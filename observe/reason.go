package observe

// DropReason says why something was dropped or refused. Where Hubble's
// flow.DropReason has a fitting number it is used, so that its tools show the
// right word; headgate's own are from 230, which Hubble leaves free. The numbers
// are those of enum drop_reason in bpf/src/lib/reason.h.
type DropReason uint8

const (
	ReasonNone             DropReason = 0
	ReasonInvalidSourceMAC DropReason = 130
	ReasonInvalidSourceIP  DropReason = 132 // spoofed
	ReasonPolicyDenied     DropReason = 133 // no rule allows it
	ReasonInvalidPacket    DropReason = 134
	ReasonUnsupportedL3    DropReason = 139 // neither IP nor ARP
	ReasonUnknownL4        DropReason = 142 // a protocol that is not tracked yet
	ReasonICMPv4Type       DropReason = 144 // neither echo nor an error that tells of a packet
	ReasonICMPv6Type       DropReason = 146
	ReasonNoEndpoint       DropReason = 150 // in an endpoint range, nobody there
	ReasonConntrackFull    DropReason = 155
	ReasonExtensionHeader  DropReason = 156 // IPv6, too many or out of order
	ReasonFragment         DropReason = 157 // overlaps another, or is of an ICMP error
	ReasonNoBackend        DropReason = 158 // a service without one
	ReasonNoConnection     DropReason = 163 // TCP that belongs to no connection and opens none
	ReasonNATPorts         DropReason = 167 // every port of the node is in use towards that remote end
	ReasonNoWay            DropReason = 169 // no route leads there
	ReasonInvalidIdentity  DropReason = 171
	ReasonFragmentUnknown  DropReason = 175 // its first fragment has not passed
	ReasonForbiddenICMPv6  DropReason = 176 // router advertisements and the like
	ReasonNoSocket         DropReason = 178 // redirected connection without its socket
	ReasonAssignFailed     DropReason = 179
	ReasonRedirectProtocol DropReason = 180 // an L7 rule on something that is not TCP
	ReasonPolicyDeny       DropReason = 181 // a rule denies it
	ReasonVLAN             DropReason = 182
	ReasonTTL              DropReason = 196
	ReasonNotReady         DropReason = 203 // the endpoint has no policy in force yet
	ReasonOutside          DropReason = 230 // to or from other networks
	ReasonNoRoute          DropReason = 231 // no proxy serves these L7 sets
	ReasonProxyDown        DropReason = 232 // the proxy has no listener
	ReasonNeighbour        DropReason = 235 // ARP or NDP for somebody else
	ReasonICMPError        DropReason = 239 // about no connection that lives and is allowed
	ReasonNATFull          DropReason = 240 // no room for another translated connection
	ReasonNoNodeAddress    DropReason = 241 // the device has no address to translate to
	ReasonTooBig           DropReason = 242 // for the way out; the sender was told
	ReasonNoDevice         DropReason = 243 // the route leads by a device that is not served
	ReasonServiceClash     DropReason = 245 // the client is connected to that backend from the same port
	ReasonServicePort      DropReason = 246 // a service's address, but none of its ports
	ReasonServiceFull      DropReason = 247 // no room for another translation
	ReasonShare            DropReason = 248 // its workload has as many connections as it may
	ReasonSourceRoute      DropReason = 254 // its sender chose the way
	ReasonFragmentProxy    DropReason = 255 // a fragment on a port with L7 rules
)
